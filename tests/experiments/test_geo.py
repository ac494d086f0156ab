"""One layer against two: the arithmetic by hand, and a small run to its picture and table."""

import json
from collections import Counter

import pytest

from experiments import geo
from experiments.geo import PLACES, accuracy_at, chosen, measured
from experiments.watched import Round
from olearning.experiment import experiment

WHERE = {"all": {"a": "west", "b": "mid", "c": "india", "d": "east"}}
DAY_MS = 1000 * geo.DAY


def a_round(epoch: int, closed: float, admitted: str, counted: str, took: float = 1 / 24) -> Round:
    """Times in days."""
    at = round(closed * DAY_MS)
    return Round("all", "t", epoch, at - round(took * DAY_MS), at, 1.0, 2, tuple(admitted), tuple(counted))


def test_what_is_measured_by_hand():
    rounds = [a_round(1, 0.5, "abcd", "abcd"), a_round(2, 1.2, "ab", "a", 0.5), a_round(3, 1.5, "bb", "bb")]
    m = measured(rounds, WHERE, 2)
    assert m["counted"] == [round(2 / 7, 4), round(3 / 7, 4), round(1 / 7, 4), round(1 / 7, 4)]
    assert m["admitted"] == [0.25, 0.5, 0.125, 0.125]
    assert m["wasted"] == 1 / 8
    assert m["by_day"] == [[0.25] * 4, [round(1 / 3, 4), round(2 / 3, 4), 0, 0]]
    assert m["fair"] == pytest.approx(49 / (4 * 15), abs=1e-3)
    assert m["fair_day"] == pytest.approx((1 + 9 / (4 * 5)) / 2, abs=1e-3)
    assert m["fair_model"] == pytest.approx((1 + 1 / 4) / 2), "the last epoch may not be over"
    assert (m["took_h"][0], m["took_h"][-1], m["rounds"], m["models"]) == (1.0, 12.0, 3, 2)


def test_a_day_without_rounds_is_no_unfair_day():
    assert measured([a_round(1, 1.5, "a", "a")], WHERE, 2)["fair_day"] == (1 + 0.25) / 2


def test_accuracy_is_that_of_the_last_model_by_then():
    points = [[0.0, 0.1], [1.0, 0.5], [2.5, 0.4]]
    assert [accuracy_at(points, day) for day in (0.5, 1.0, 2.4, 3)] == [0.1, 0.5, 0.5, 0.4]


def test_who_is_picked_asleep_or_not_is_waited_for():
    found = chosen(0, 5)
    assert 4 < found["p50"] <= found["p95"] < 24, "80 of 104 are not free in one night"
    assert 0.3 < found["wasted"] < 0.8


@pytest.mark.program
def test_a_small_run(tmp_path):
    experiment("geo", tmp_path, None, 1, quick=True)
    rows = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert Counter(r["settings"]["way"] for r in rows) == dict.fromkeys(geo.WAYS, 1)
    for row in rows:
        r = row["result"]
        assert sum(r["counted"]) == pytest.approx(1, abs=1e-3)
        assert r["rounds"] > 0
        assert len(r["accuracy"]) > 0
    assert (tmp_path / "geo.png").stat().st_size > 5_000
    assert (tmp_path / "geo.svg").exists()
    assert (tmp_path / "table.md").read_text().count("| fairness") == 2
    assert len(PLACES) == 4
