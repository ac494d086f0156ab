"""The figures of planning, small: what is run, what is added up, and that a choice that is worse would be seen."""

import json
from pathlib import Path

import pytest

from experiments import planning
from experiments.asked import Asked
from experiments.planning import FREE, SOLVERS, WAYS, Planned, gain, show, table, table_of_choice
from experiments.record import Runs
from learning.knapsack import bound, by_slot, greedy, solve, total
from learning.planning import by_reward, drawn

SEEDS = 2


def asked(folder: Path) -> Asked:
    return Asked(
        "planning", folder, Runs(folder, "abc"), lambda tree, watchers: None, lambda text: None, seeds=SEEDS, quick=True
    )


def planned(folder: Path, rewards: dict[str, float] | None = None) -> Planned:
    """A problem, and what was found for it."""
    out = Planned(Runs(folder, "abc"), 0, 3, 12)
    out.rewards = rewards or {}
    return out


# ------------------------------------------------------------------ what is run


@pytest.mark.program
def test_a_picture_a_table_and_a_line_a_run_that_is_not_done_again(tmp_path, monkeypatch):
    planning.run(asked(tmp_path))
    assert {p.name for p in tmp_path.iterdir()} == {"raw.jsonl", "table.md", "planning.png", "planning.svg"}
    lines = [json.loads(x)["settings"] for x in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert {(x["seed"], x["slots"], x["tasks"]) for x in lines} == {(s, 3, n) for s in range(SEEDS) for n in (10, 20)}
    assert {x["way"] for x in lines} - {"max"} == {*FREE, *SOLVERS}
    assert {(x["tasks"], x["work"]) for x in lines if x["way"] == "unhinted"} == {(10, 0.1), (20, 0.1), (20, 0.001)}
    before = (tmp_path / "table.md").read_text()
    assert "–" not in before
    monkeypatch.setattr(planning, "ways", None)
    monkeypatch.setattr(planning, "draw", lambda of, to: None)
    planning.run(asked(tmp_path))
    assert (tmp_path / "table.md").read_text() == before


def test_rewards_are_those_of_the_plans_and_max_is_not_below_any(tmp_path):
    problem, some = drawn(0, 12, 3), planned(tmp_path)
    for way in (*FREE, *SOLVERS):
        some.by(way, 0.01 if way in SOLVERS else None)
    some.most(0.01)
    plans = {
        "by_reward": by_reward(*problem),
        "greedy": greedy(*problem),
        "by_slot": by_slot(*problem).plan,
        "unhinted": solve(*problem, work=0.01).plan,
    }
    assert {way: some.rewards[way] for way in plans} == pytest.approx({w: total(*problem, p) for w, p in plans.items()})
    assert max(some.rewards.values()) == some.rewards["max"] <= bound(*problem)
    assert some.rewards.keys() == WAYS.keys()


@pytest.mark.parametrize("limit", [0.0, 5.0])
def test_max_is_looked_for_only_if_nothing_is_proven(tmp_path, limit):
    some = planned(tmp_path)
    some.by("unhinted", limit)
    some.most(5.0)
    assert any('"max"' in key for key in some.runs.rows) == (limit == 0)
    assert some.rewards["max"] == pytest.approx(total(*some.problem, solve(*some.problem).plan))


def test_0_where_no_plan_came_and_no_longer_limit_than_it_takes(tmp_path):
    some = planned(tmp_path)
    some.within([0.0, 5.0, 50.0])
    none, found, again = some.curve.values()
    assert 0 == none < found == again
    assert sorted(row["settings"]["work"] for row in some.runs.rows.values()) == [0.0, 5.0]


# ------------------------------------------------------------------ what is shown

ROW = {"by_reward": 8.0, "greedy": 10.0, "unhinted": 9.0, "hinted": 9.0, "by_slot": 9.0, "plan": 10.5, "max": 11.0}


def test_our_choice_is_held_against_the_better_of_greedy_and_mkp():
    assert gain(ROW) == pytest.approx(5)
    assert gain(ROW | {"unhinted": 10.5}) == pytest.approx(0)
    assert gain(ROW | {"by_reward": 21.0}) == pytest.approx(-50)


def test_control_a_choice_that_is_below_is_counted(tmp_path):
    fine, below, rounded = (planned(tmp_path, ROW | {"plan": plan}) for plan in (10.5, 9.9, 10 - 1e-7))
    assert table_of_choice({(5, 50): [fine, rounded]}).splitlines()[-1] == "| 5 | 2 | 0 | -0.00 | +2.50 | +5.00 |"
    assert (
        table_of_choice({(5, 50): [fine], (5, 99): [below]}).splitlines()[-1] == "| 5 | 2 | 1 | -1.00 | +2.00 | +5.00 |"
    )


def test_the_table_has_the_mean_and_spread_of_each_way_and_a_dash_where_nothing_was_run(tmp_path):
    text = table(
        {(5, 50): [planned(tmp_path, ROW), planned(tmp_path, ROW | {"greedy": 12.0})], (5, 99): [planned(tmp_path)]}
    )
    assert "| 5 | 50 | 8.00 ± 0.00 (2) | 11.00 ± 1.41 (2) | 9.00 ± 0.00 (2) |" in text
    assert "| 5 | 99 | – | – |" in text


def test_what_there_is_so_far_is_shown(tmp_path):
    show(
        {
            (5, 50): [planned(tmp_path, ROW)],
            (5, 99): [planned(tmp_path, {"greedy": 1.0})],
            (20, 50): [planned(tmp_path)],
        },
        tmp_path,
    )
    assert (tmp_path / "planning.png").exists()
