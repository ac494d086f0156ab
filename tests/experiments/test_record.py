"""Raw results are kept, a run that is there is not done again, and what the file holds is what was seen."""

import json

import numpy as np
import pytest

from experiments.asked import Asked, Cannot
from experiments.data import HAR, archive, converted
from experiments.drawing import band, markdown, panels, save, spread
from experiments.record import Runs


def test_a_run_that_is_there_is_not_done_again(tmp_path):
    done = []

    def work(seed: int) -> dict:
        done.append(seed)
        return {"accuracy": [0.5, seed]}

    runs = Runs(tmp_path, "abc")
    first = runs.of({"seed": 1, "way": "a"}, lambda: work(1))
    runs.of({"seed": 2, "way": "a"}, lambda: work(2))
    again = Runs(tmp_path, "later")
    assert again.of({"way": "a", "seed": 1}, lambda: work(1)) == first == {"accuracy": [0.5, 1]}
    assert done == [1, 2]
    again.of({"seed": 1, "way": "b"}, lambda: work(3))
    assert done == [1, 2, 3]
    assert [json.loads(x)["commit"] for x in (tmp_path / "raw.jsonl").read_text().splitlines()] == [
        "abc",
        "abc",
        "later",
    ]


def test_a_run_that_failed_leaves_no_line(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Runs(tmp_path, "abc").of({"seed": 1}, lambda: 1 / 0)
    assert not (tmp_path / "raw.jsonl").exists()


def test_another_file_is_refused_in_words(tmp_path):
    (tmp_path / "raw.jsonl").write_text('{"settings": {"seed": 1}, "result": 1}\nhello\n')
    with pytest.raises(ValueError, match=r"raw\.jsonl, line 2, is no run"):
        Runs(tmp_path, "abc")


def test_spread_and_table():
    assert spread([0.5, 0.7]) == "0.600 ± 0.141 (2)"
    assert spread([2.0], 1) == "2.0 (1)"
    assert spread([]) == "–"
    assert markdown(["way", "days"], [["a", 3]]) == "| way | days |\n|---|--:|\n| a | 3 |\n"


def test_the_same_picture_is_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        figure, axes = panels(1, 2)
        band(axes[0, 0], [0, 1, 2], [[0, 1, 2], [1, 2, 3]], color="#0072b2", label="x")
        save(figure, tmp_path / name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def asked(folder, data=None) -> Asked:
    return Asked("x", folder, Runs(folder, "abc"), lambda tree, watchers: None, print, data)


def test_data_that_is_not_there_is_asked_for(tmp_path):
    with pytest.raises(Cannot, match="give the folder that has it by --data"):
        archive(asked(tmp_path), HAR)
    with pytest.raises(Cannot, match=f"there is no {HAR} in"):
        archive(asked(tmp_path, tmp_path), HAR)
    np.savez(tmp_path / HAR, y=np.zeros(3))
    with pytest.raises(Cannot, match="is not a hapt-raw archive: it lacks"), converted(asked(tmp_path, tmp_path), HAR):
        pass
