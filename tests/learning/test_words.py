"""What of an error may leave a device: its kind and place, and words only where they quote nobody's data."""

import pytest

from learning.registry import UnknownModel
from learning.words import Plain, said


def caught(e: Exception) -> Exception:
    try:
        raise e
    except Exception as raised:
        return raised


def test_plain_words_pass_and_all_others_stay():
    assert said(caught(Plain("there is no file x.npz on this machine"))) == "there is no file x.npz on this machine"
    assert said(UnknownModel("no model 'x'")) == "no model 'x'"
    text = said(caught(ValueError("bad sample [0.25, 0.5] of Ann")))
    assert text.startswith("ValueError at test_words.py:")
    assert "Ann" not in text
    assert "0.25" not in text


def test_the_place_is_in_the_code_of_whoever_wrote_it_not_in_a_package_s():
    import torch

    with pytest.raises(IndexError, match="7") as caught:
        torch.nn.functional.nll_loss(torch.zeros(1, 3), torch.tensor([7]))
    assert said(caught.value).startswith("IndexError at test_words.py:")


def test_without_a_traceback_as_from_a_worker_the_kind_is_said():
    assert said(RuntimeError("Target 12 is out of bounds.")).startswith("RuntimeError (")
