"""The benchmark of the forecast: its scores by hand, and that it tells good forecasts from bad ones."""

import json
import subprocess
import sys

import pytest

from benchmarks.forecast import DAY, HOUR, Row, learn, longest, run, table
from device_sim.forecast import SURE, Forecast


def hours(*windows):
    return [(round(a * HOUR), round(b * HOUR)) for a, b in windows]


class Clockwork:
    """Free from 1 to 7 and from 20 to 22, UTC, each day alike."""

    def __init__(self, device: str, offset: float, day_ms: int, seed: int):
        pass

    def windows(self, from_ms: int, to_ms: int) -> list[tuple[int, int]]:
        days = range(from_ms // DAY - 1, to_ms // DAY + 2)
        every = [(n * DAY + s, n * DAY + e) for n in days for s, e in hours((1, 7), (20, 22))]
        return [(s, e) for s, e in every if s < to_ms and e > from_ms]

    def window(self, now_ms: int) -> tuple[int, int] | None:
        raise NotImplementedError

    next_start = window


def test_scores_by_hand():
    row = Row("someone", 1)
    row.add(hours((1, 3), (10, 14), (20, 24)), hours((-1, 2), (9.5, 15), (16, 17), (22, 30)), 0)
    found = row.as_json()
    assert found["windows_a_day"] == 3
    assert found["precision"] == pytest.approx((1 + 4 + 2) / 10)
    assert found["recall"] == pytest.approx(7 / (2 + 5.5 + 1 + 2), abs=1e-4)
    assert found["held"] == pytest.approx(1 / 3, abs=1e-4)  # the second; the last begins too early
    assert row.late == [2, 0.5, -2]
    assert row.early == [-1, 1]  # the last ends with the day
    assert (found["start_error_h"], found["end_error_h"]) == (1.5, 1)
    assert (found["start_late_h"], found["end_early_h"]) == (pytest.approx(0.5 / 3, abs=1e-4), 0)


def test_nothing_predicted_is_no_share():
    row = Row("someone", 0)
    row.add([], hours((1, 2)), 0)
    assert row.as_json() == {
        "bench": "forecast", "who": "someone", "weeks": 0, "devices": 1, "windows_a_day": 0, "recall": 0,
    }  # fmt: skip
    row.add(hours((3, 4)), hours((1, 2)), 0)
    assert (row.as_json()["precision"], row.as_json()["held"], row.late) == (0, 0, [])
    assert list(table([row]))[-1] == "| 0 | someone | 0.50 | 0.000 | 0.000 | 0.000 | – | – |"


def test_the_longest_of_a_day():
    windows = hours((-3, 2), (5, 9), (10, 11), (12, 15), (23, 40))
    assert longest(windows, 0, 3) == hours((-0, 2), (5, 9), (12, 15))


def test_what_comes_each_day_alike_is_foreseen_by_all_but_the_prior():
    rows = {(r.who, r.weeks): r.as_json() for r in run(devices=7, weeks=(0, 2), m=3, habits=Clockwork)}
    for who in ("foresight", "model", "yesterday"):
        assert [rows[who, 2][k] for k in ("precision", "recall", "held", "start_error_h")] == [1, 1, 1, 0]
    assert rows["foresight", 0]["recall"] == 1
    assert "precision" not in rows["yesterday", 0]
    before = {k: v for k, v in rows["model", 0].items() if k != "who"}
    assert before == {k: v for k, v in rows["prior", 0].items() if k != "who"}
    assert rows["prior", 2]["recall"] < 0.9


def test_a_forecast_is_told_no_more_than_the_past():
    class Told(Forecast):
        ends: list[int] = []

        def observe(self, start_ms: int, end_ms: int) -> None:
            super().observe(start_ms, end_ms)
            self.ends.append(end_ms)

    model = Told(0, DAY, 2 * HOUR)
    learn(model, Clockwork("", 0, DAY, 0), 21 * HOUR)
    assert model.ends == [7 * HOUR, 21 * HOUR, 21 * HOUR]
    learn(model, Clockwork("", 0, DAY, 0), 23 * HOUR)
    assert model.ends[3:] == [22 * HOUR, 23 * HOUR]


def test_on_made_habits_what_it_promises_holds():
    rows = {(r.who, r.weeks): r.as_json() for r in run(devices=150, weeks=(4,))}
    model, yesterday = rows["model", 4], rows["yesterday", 4]
    assert model["held"] > SURE - 0.1 > yesterday["held"]
    assert model["precision"] > max(0.9, yesterday["precision"], rows["prior", 4]["precision"])
    assert rows["prior", 4]["recall"] < model["recall"] < rows["foresight", 4]["recall"] < 1
    assert rows["foresight", 4]["held"] == 1


def olearning(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "olearning", *words], capture_output=True, text=True, timeout=60)


@pytest.mark.program
def test_the_command_prints_a_line_for_each():
    done = olearning("bench", "forecast", "--quick", "-m", "2", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in done.stdout.splitlines()]
    assert [(x["weeks"], x["who"]) for x in lines] == [
        (w, who) for w in (0, 1, 2, 4) for who in ("foresight", "model", "yesterday", "prior")
    ]
    assert {x["devices"] for x in lines} == {50}
    assert all(0 < x["precision"] <= 1 for x in lines if x["windows_a_day"])


def test_the_command_refuses_what_is_no_chance():
    done = olearning("bench", "forecast", "--sure", "1.5")
    assert done.returncode == 2
    assert "a chance of 1.5 is none" in done.stderr
