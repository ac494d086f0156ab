"""`olearning data`."""

import numpy as np

from olearning.cli import outcome
from olearning.errors import OK, USAGE


def test_an_archive_is_converted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = np.zeros((2, 28, 28), np.uint8), np.arange(2)
    np.savez("archive.npz", X_train=x, y_train=y, X_test=x, y_test=y)
    words = ["data", "convert", "mnist", "archive.npz", "data.npz"]
    assert outcome(words) == OK
    assert "X       uint8 (2, 28, 28)" in capsys.readouterr().out
    with np.load("data.npz") as file:
        assert {*file} == {"X", "y", "test_X", "test_y", "scale"}
    assert outcome(words) == USAGE
    assert "data.npz is there already" in capsys.readouterr().err
    assert outcome(["data", "convert", "tiff", "archive.npz", "new.npz"]) == USAGE
    assert "known: hapt-features, hapt-raw, speech, mnist, cifar10" in capsys.readouterr().err
