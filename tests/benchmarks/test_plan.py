"""The benchmark of plans, small: what it compares, what it says, and that it ends. No figure of speed is looked at."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from benchmarks import plan
from benchmarks.line import Line
from benchmarks.plan import Tried, best, longest, tried
from benchmarks.plan_picture import below, draw, gain, latest, read, table
from learning.knapsack import TABLE, Found
from olearning.commands.bench import bench_plan
from olearning.errors import Trouble

WAYS = {"by_reward", "greedy", "by_slot", "unhinted", "hinted", "plan"}


def measured(**how) -> dict[str, Line]:
    lines: list[Line] = []
    plan.run(lines.append, **{"seeds": 2, "best_seconds": 0.5, "seconds": 0.2, "limits": ()} | how)
    return {line.case: line for line in lines}


# ------------------------------------------------------------------ what is compared


def test_the_best_known_is_searched_on_only_if_nothing_is_proven(monkeypatch):
    problem = [1.0, 2.0, 3.0], [5, 5, 5], [10]
    low, high = tried(problem, lambda: Found((0, 0, None), False)), tried(problem, lambda: Found((0, None, 0), False))
    assert (low.reward, high.reward) == (3, 4)
    asked = []

    def solver(rewards, times, slots, hint, seconds):
        asked.append((hint, seconds))
        return Found((None, 0, 0), True)

    monkeypatch.setattr(plan, "solve", solver)
    found = best(problem, [low, high], 7.0)
    assert (found.reward, found.proven, asked) == (5, True, [(high.plan, 7.0)])
    for known in ([low, Tried(found.plan, True, 5, 0)], [Tried(found.plan, False, 5, 0)]):  # proven; at the bound
        assert best(problem, known, 7.0)[:3] == (found.plan, True, 5)
    assert len(asked) == 1


# ------------------------------------------------------------------ what is said


def test_a_line_for_each_size_beside_bound_and_best_known():
    lines = measured(slots=(1, 3), tasks=(5, 12))
    assert list(lines) == [f"plan m={m} tasks={n} times=30-300" for m in (1, 3) for n in (5, 12)]
    for line in lines.values():
        share, took = line.settings["share"], line.settings["took"]
        assert share.keys() == took.keys() == WAYS
        assert max(share.values()) <= 1
        assert (
            share["by_reward"]
            <= share["greedy"]
            <= share["plan"]
            == pytest.approx(line.value / line.peer_value, abs=1e-5)
        )
        assert line.value <= line.peer_value <= line.limit
        assert (line.settings["seeds"], line.settings["best_proven"]) == (2, 2)
        assert share["plan"] > 1 - 1e-5  # so small are exact
        assert min(took.values()) > 0


def test_fig_8_solves_the_same_problems_and_says_0_where_nothing_was_found():
    lines = measured(slots=(3,), tasks=(12,), limits=(0.0, 0.5), capped={(3, 12)})
    whole, none, some = lines.values()
    assert list(lines) == [
        f"{x} m=3 tasks=12 times=30-300{y}"
        for x, y in (("plan", ""), ("within", " seconds=0"), ("within", " seconds=0.5"))
    ]
    assert none.settings["share"]["unhinted"] == 0
    assert none.settings["share"]["hinted"] == none.settings["share"]["greedy"] == whole.settings["share"]["greedy"] < 1
    assert some.settings["share"] == {"greedy": whole.settings["share"]["greedy"], "unhinted": 1, "hinted": 1}
    assert [x.peer_value for x in (none, some)] == [whole.peer_value] * 2


def test_it_says_how_long_it_takes_at_most():
    one_slot, one_of_fig_8, one_besides = 3 * 2, 3 * 2 + 60 + 2 * 8.8, 3 * 2 + 60
    assert longest((1, 5), (50, 100), 2, 60) == pytest.approx(2 * (2 * one_slot + one_of_fig_8 + one_besides))


@pytest.mark.program
def test_the_command_needs_no_broker_and_prints_a_line_for_each():
    done = subprocess.run(
        [sys.executable, "-m", "olearning", "bench", "plan", "--quick", "--json", "--times", "5,9"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "at most 0 minutes" in done.stderr
    cases = [json.loads(x)["case"] for x in done.stdout.splitlines()]
    assert cases[:2] == ["plan m=1 tasks=10 times=5-9", "plan m=3 tasks=10 times=5-9"]
    assert cases[2:] == [f"within m=3 tasks=10 times=5-9 seconds={s}" for s in (0.05, 0.1)]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--tasks", "some", "'some' is not a count"),
        ("--times", "9,5", "the least and the most"),
        ("--times", "9", "as in 30,300"),
    ],
)
def test_what_cannot_be_is_refused(option, value, words):
    with pytest.raises(Trouble, match=words):
        bench_plan(**{option.removeprefix("--"): value})


# ------------------------------------------------------------------ what is drawn


@pytest.mark.program
def test_lines_become_a_picture_and_a_table(tmp_path):
    lines = measured(slots=(5,), tasks=(10, 50), seconds=0.1, best_seconds=0.1, limits=(0.1, 0.2), capped={(5, 50)})
    file = tmp_path / "lines.jsonl"
    texts = [json.dumps(line.as_json()) for line in lines.values()]
    file.write_text("\n".join(texts + texts))
    rows = read([file])
    draw(rows, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
    head, _, *body = table(rows)
    assert [x.split(" | ")[:3] for x in body] == [["| 30-300", "5", "10"], ["| 30-300", "5", "50"]]
    assert all(x.count("|") == head.count("|") for x in body)


# ------------------------------------------------------------------ what the planner makes of it

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "plan.jsonl"


def gains(chooser) -> tuple[list[float], list[float]]:
    """What 2 s of CP-SAT added to greedy's plans [%], by sizes where this table asks it and where it does not."""
    asked, left = [], []
    for row in latest(read([RESULTS]), "plan"):
        share = next((s for m, n, s in chooser if int(row["m"]) <= m and int(row["tasks"]) <= n), 1)
        if row["m"] != "1" and below(row):
            (asked if below(row) > 100 * share else left).append(gain(row))
    return asked, left


def test_the_planner_s_table_is_what_was_measured():
    asked, left = gains(TABLE)
    assert mean(asked) > 2
    assert min(asked) > 0.1
    assert mean(left) < 0.25
    assert max(left) < 0.6


def test_control_another_table_would_not_do():
    def without(row):
        return gains([r for r in TABLE if r != row])

    assert max(gains([(m, n, 3 * share) for m, n, share in TABLE])[1]) > 0.6
    assert min(gains([(m, n, share / 3) for m, n, share in TABLE])[0]) < 0.1
    for row in TABLE[1:]:  # the first is for what is solved in ms
        assert max(without(row)[1]) > 0.6 or row == (20, 50, 0.01)  # this is for plans that are better than greedy's
