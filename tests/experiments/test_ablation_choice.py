"""The ablation where devices have a choice: its arithmetic, its data and scenarios, and small runs to their picture and tables."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import ablation_choice
from experiments.ablation import WAYS
from experiments.ablation_choice import DAY, PARTS, TASKS, hard_runs, measured, offers, over_time, pictures
from experiments.asked import Asked
from experiments.bids import Bid, Bids, changed
from experiments.record import Runs
from experiments.watched import Round
from olearning.scenario import check
from olearning.simulation import Simulation
from schemas.facts import Worth
from tests.plane import LAYOUT, START, Arithmetic


def offer(contribution: float, progress: float, starved: int = 0) -> Worth:
    return Worth(contribution, progress, starved, 0.0)


OFFERS = {"far": offer(0.8, 0.1), "quick": offer(0.1, 0.9), "late": offer(0.2, 0.2, starved=2)}


def a_round(opened: float, progress: float, admitted: str, counted: str, samples: int) -> Round:
    at = round(opened * DAY * 1000)
    return Round("west", "easy-0", 1, at, at + 1, 0.1, 2, tuple(admitted), tuple(counted), samples, progress)


@pytest.mark.parametrize(
    ("without", "best"),
    [
        ((), "late"),  # 0.16 by its boost
        (("contribution",), "quick"),  # 0.225 against 0.2 and 0.025
        (("boost",), "quick"),  # 0.09 against 0.08 and 0.04
        (("boost", "contribution"), "quick"),
        (("boost", "progress"), "far"),
        (("progress",), "far"),  # 0.8, as much as the boosted one: the first by name
        (("contribution", "progress", "boost"), "far"),
    ],
)
def test_the_best_offer_with_and_without_a_part(without, best):
    assert Bid("west", "far", OFFERS).best(4, without) == best


def test_how_often_a_part_changes_the_best():
    alone, two = Bid("west", "far", {"far": OFFERS["far"]}), Bid("west", "far", OFFERS)
    calm = Bid("west", "far", {"far": OFFERS["far"], "low": offer(0.1, 0.1)})
    assert changed([alone], 4, ("boost",)) == 0.0, "there is no choice"
    assert changed([alone, two, calm], 4, ("boost",)) == 0.5
    assert offers([two, calm]) == {"contribution": 0.5, "progress": 0.5, "boost": 0.5, "open": 2.5}
    assert set(offers([])) == {*PARTS, "open"}


TREE = {
    "seed": 3,
    "zones": {"east": {"devices": 6}, "west": {"devices": 3}},
    "partitions": 2,
    "tasks": [
        {
            "task": task,
            "model": "arithmetic",
            "data": "none",
            "rounds": {"demand": 2, "over_commit": 1.0, "deadline_s": 20, "lease_s": 5},
            "epochs": {"count": 2, "rounds": 2},
        }
        for task in ("one", "two")
    ],
}


def test_every_bid_is_noted_with_what_was_open():
    bids = Bids(["east", "west"], 2)
    made = Simulation(check(TREE, "here"), Arithmetic(), lambda spec, seed: (LAYOUT, START), None, [bids])
    list(made.run())
    assert len(bids.bids) == made.result.bids > 0
    assert len(bids.done) == made.result.rounds
    assert {b.zone for b in bids.bids} == {"east", "west"}
    assert {task for b in bids.bids for task in b.offers} == {"one", "two"}
    assert sum(b.task in b.offers for b in bids.bids) > len(bids.bids) / 2
    assert {w.progress for b in bids.bids for w in b.offers.values()} >= {1.0}
    assert all(r.samples > 0 and 0 < r.progress <= 1 for r in bids.done if r.counted)


def test_what_is_measured_by_hand():
    rounds = [a_round(0.1, 0.5, "ab", "a", 10), a_round(0.4, 0.1, "ab", "ab", 30), a_round(0.6, 0.3, "c", "c", 5)]
    found = measured(rounds, 0.4)
    assert (found["rounds"], found["starved"], found["admitted"], found["runs"]) == (3, 1, 5, 4)
    assert (found["late"], found["samples"]) == (3, 45)
    assert found["progress"] == [[0.5, 0.5, 0.5], [0.15, 0.2, 0.25]]
    assert measured(rounds, 1.0)["progress"][1] is None


def test_accuracy_over_time_and_the_share_of_hard_tasks():
    assert over_time([(0.0, 0.1), (0.5, 0.5), (1.2, 0.9)], 1) == pytest.approx(0.5 * 0.1 + 0.5 * 0.5)
    assert hard_runs({"easy-0": {"runs": 1}, "hard-0": {"runs": 2}, "hard-3": {"runs": 1}}) == 0.75


@pytest.mark.parametrize(("classes", "noise"), [(2, 0.3), (10, 0.0)])
def test_easy_and_hard_tasks_have_as_many_pictures(classes, noise):
    d, other = pictures(classes, noise, 0), pictures(classes, noise, 1)
    assert len(d.y) == len(other.y) == 1_438
    assert set(d.y.tolist()) == set(d.test_y.tolist()) == set(range(classes))
    assert len(np.unique(d.x, axis=0)) > 1_400, "no picture twice"
    assert (d.test_x == other.test_x).all() == (not noise)


@pytest.mark.program
@pytest.mark.parametrize(("quick", "many"), [(True, ["all in", "none in"]), (False, list(WAYS))])
def test_each_way_is_run_and_shown(tmp_path, quick, many):
    """Of a stand-in for the simulation, in which what is left out costs accuracy."""
    seen = []

    def simulate(tree, watchers):
        check(dict(tree), "here")  # the real one would take it
        seen.append(tree)
        watchers[0].bids.append(Bid("west", "far", OFFERS))
        worth = 0.97 - 0.1 * len(tree["without"])
        at = 1000 * DAY * tree["days"] / 2
        for task in TASKS:
            round_of = a_round(tree["days"] / 4, 0.1, "ab", "a", 7)
            watchers[0].done.append(Round("west", task, *(getattr(round_of, f) for f in Round.__match_args__[2:])))
        epochs = [SimpleNamespace(task=t, at=n * at, accuracy=a) for t in TASKS for n, a in ((0, 0.1), (1, worth))]
        return SimpleNamespace(updates=4, bids=8, epochs=epochs)

    ablation_choice.run(Asked("ablation-choice", tmp_path, Runs(tmp_path, "abc"), simulate, print, None, 1, quick))
    assert [tree["without"] for tree in seen] == [list(WAYS[way]) for way in many]
    rows = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert [r["result"]["tasks"]["hard-0"]["samples"] for r in rows] == [7] * len(many)
    assert rows[0]["result"]["offers"] == {"contribution": 1.0, "progress": 1.0, "boost": 1.0, "open": 3.0}
    assert (tmp_path / "ablation-choice.png").stat().st_size > 5_000
    assert (tmp_path / "ablation-choice.svg").exists()
    table = (tmp_path / "table.md").read_text()
    assert [table.count(f"| {way} |") for way in many] == [2] + [1] * (len(many) - 1)
    assert "| 0.667 (1) |" in table, "the share of runs that were of hard tasks"
