"""The ablation: its arithmetic, and a small run to its picture and tables."""

import json

import pytest

from experiments import ablation
from experiments.ablation import ALL, WAYS, last, measured, reached
from experiments.watched import Round
from olearning.experiment import experiment


def test_what_is_measured_by_hand():
    rounds = [
        Round("z", "t", 1, 0, 1, reward, demand, tuple(admitted), tuple(counted))
        for reward, demand, admitted, counted in ((0.1, 2, "ab", "a"), (0.3, 3, "ab", "ab"), (0.2, 1, "c", ""))
    ]
    found = measured(rounds)
    assert (found["rounds"], found["starved"], found["admitted"], found["wasted"]) == (3, 1, 5, 2)
    assert found["reward"] == pytest.approx([0.12, 0.2, 0.28])


def test_the_day_of_the_target_and_the_end():
    points = [[0.0, 0.1], [1.0, 0.85], [2.0, 0.7], [2.5, 0.9]]
    assert [reached(points, target, 3) for target in (0.8, 0.9, 0.95)] == [1.0, 2.5, 3]
    assert last(points) == pytest.approx((0.85 + 0.7 + 0.9) / 3)


def test_one_is_left_out_at_a_time():
    assert [len(w) for w in WAYS.values()] == [0, 1, 1, 1, 1, 1, 5]
    assert {m for w in WAYS.values() if len(w) == 1 for m in w} == set(ALL)


def test_a_small_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "DEVICES", 3)
    monkeypatch.setattr(ablation, "TASKS", {"a": (2, 4), "b": (1, 2)})
    monkeypatch.setattr(ablation, "WAYS", {"all in": (), "none in": ALL})
    experiment("ablation", tmp_path, None, 1, quick=True)
    rows = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert [r["settings"]["without"] for r in rows] == [[], list(ALL)]
    for row in rows:
        assert all(t["rounds"] > 0 and t["accuracy"] for t in row["result"]["tasks"].values())
    assert rows[0]["result"]["tasks"] != rows[1]["result"]["tasks"]
    assert (tmp_path / "ablation.png").stat().st_size > 5_000
    assert (tmp_path / "ablation.svg").exists()
    assert (tmp_path / "table.md").read_text().count("| none in |") == 5
