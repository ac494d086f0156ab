"""What a watcher says of rounds is what the ledgers say; fairness by hand."""

import pytest

from experiments.watched import Rounds, jain, names
from olearning.scenario import check
from olearning.simulation import Simulation
from tests.plane import LAYOUT, START, Arithmetic

TREE = {
    "seed": 3,
    "zones": {"east": {"devices": 6}, "west": {"devices": 3}},
    "devices": {"drop": 0.3},
    "tasks": [
        {
            "task": "toy",
            "model": "arithmetic",
            "data": "none",
            "rounds": {"demand": 4, "over_commit": 1.0, "deadline_s": 20, "lease_s": 5},
            "epochs": {"count": 2, "rounds": 2},
        }
    ],
}


@pytest.fixture(scope="module")
def watched() -> tuple[Rounds, Simulation]:
    rounds = Rounds(["east", "west"])
    made = Simulation(check(TREE, "here"), Arithmetic(), lambda spec, seed: (LAYOUT, START), None, [rounds])
    list(made.run())
    return rounds, made


def test_every_round_is_noted_with_who_was_in_it(watched):
    rounds, made = watched
    assert len(rounds.done) == made.result.rounds == 8
    assert sum(len(r.counted) for r in rounds.done) == made.result.updates
    known = {zone: names({zone: [f"{zone}-{n}" for n in range(9)]}, zone) for zone in ("east", "west")}
    for r in rounds.done:
        assert set(r.counted) <= set(r.admitted) <= set(known[r.zone])
        assert (r.epoch, r.demand, r.took > 0) == (1 + (rounds.done.index(r) >= 4), 4, True)


def test_who_was_too_few_starved_and_who_dropped_wasted_a_slot(watched):
    rounds, _ = watched
    assert {r.zone for r in rounds.done if r.starved} == {"west"}
    assert all(r.starved for r in rounds.done if r.zone == "west")
    assert sum(r.wasted for r in rounds.done) == sum(len(r.admitted) - len(r.counted) for r in rounds.done) > 0


def test_jain_by_hand():
    assert jain([1, 1, 1, 1]) == 1
    assert jain([0.2] * 7) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([3, 1]) == pytest.approx(16 / 20)
    assert jain([0, 0]) == 1.0
