"""The ablation: its arithmetic, its scenarios, and small runs to their picture and tables."""

import json
from types import SimpleNamespace

import pytest

from experiments import ablation
from experiments.ablation import ALL, TASKS, WAYS, last, measured, reached
from experiments.asked import Asked
from experiments.record import Runs
from experiments.watched import Round
from olearning.scenario import check


def a_round(task: str, reward: float, demand: int, admitted: str, counted: str) -> Round:
    return Round("west", task, 1, 0, 1, reward, demand, tuple(admitted), tuple(counted))


def test_what_is_measured_by_hand():
    found = measured([a_round("a", 0.1, 2, "ab", "a"), a_round("a", 0.3, 3, "ab", "ab"), a_round("a", 0.2, 1, "c", "")])
    assert (found["rounds"], found["starved"], found["admitted"], found["wasted"]) == (3, 1, 5, 2)
    assert found["reward"] == pytest.approx([0.12, 0.2, 0.28])


def test_the_day_of_the_target_and_the_end():
    points = [[0.0, 0.1], [1.0, 0.85], [2.0, 0.7], [2.5, 0.9]]
    assert [reached(points, target, 3) for target in (0.8, 0.9, 0.95)] == [1.0, 2.5, 3]
    assert last(points) == pytest.approx((0.85 + 0.7 + 0.9) / 3)


def test_one_is_left_out_at_a_time():
    assert [len(w) for w in WAYS.values()] == [0, 1, 1, 1, 1, 1, 5]
    assert {m for w in WAYS.values() if len(w) == 1 for m in w} == set(ALL)


@pytest.mark.program
@pytest.mark.parametrize(("quick", "many"), [(True, ["all in", "none in"]), (False, list(WAYS))])
def test_each_way_is_run_and_shown(tmp_path, quick, many):
    """Of a stand-in for the simulation, in which what is left out costs accuracy."""
    seen = []

    def simulate(tree, watchers):
        check(dict(tree), "here")  # the real one would take it
        seen.append(tree)
        watchers[0].done += [a_round(task, 0.1, 2, "ab", "a") for task in TASKS]
        worth = 0.9 - 0.1 * len(tree["without"])
        day = 1000 * ablation.DAY
        epochs = [SimpleNamespace(task=t, at=at * day, accuracy=a) for t in TASKS for at, a in ((0, 0.1), (1, worth))]
        return SimpleNamespace(updates=4, bids=8, epochs=epochs)

    ablation.run(Asked("ablation", tmp_path, Runs(tmp_path, "abc"), simulate, print, None, 1, quick))
    assert [tree["without"] for tree in seen] == [list(WAYS[way]) for way in many]
    rows = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert [r["result"]["tasks"]["a"]["wasted"] for r in rows] == [1] * len(many)
    assert (tmp_path / "ablation.png").stat().st_size > 5_000
    assert (tmp_path / "ablation.svg").exists()
    table = (tmp_path / "table.md").read_text()
    assert all(table.count(f"| {way} |") == 5 for way in many)
    days = ablation.DAYS if not quick else 1
    assert f"| none in | {days:.2f} (1) |" in table, "it never came to the target"
    assert "| all in | 1.00 (1) |" in table
