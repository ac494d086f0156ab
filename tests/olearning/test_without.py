"""Left out is what was asked to be left out, and nothing else."""

import msgspec
import pytest

from device_sim.device import own_quality
from olearning.errors import Trouble
from olearning.roles import population
from olearning.scenario import check
from olearning.simulation import Simulation
from olearning.without import QUALITY, appraisal, plain
from processors.zone_leader import worth
from schemas.blocks import Manifest
from schemas.facts import ZONE_FACTS, Opened
from schemas.wire import decode
from streams.ledger import GlobalTask, ZoneTask
from tests.plane import LAYOUT, START, Arithmetic, spec

G = GlobalTask(spec(), LAYOUT, Manifest("t", 0, ()), ("east", "west"), 0, contributions={"east": 0.3, "west": 0.7})
T = ZoneTask((0,), (1,), ((),), measured=((2.0, 1.0), (1.0, 0.5)), starved=2)
MADE = 0.25 * 0.5  # eq. 2


def test_with_all_in_it_is_what_the_zone_leader_says():
    for t in (None, T, msgspec.structs.replace(T, starved=0)):
        assert appraisal(())("east", G, t) == worth("east", G, t)


@pytest.mark.parametrize(
    ("without", "contribution", "progress", "reward"),
    [
        ((), 0.3, MADE, 4 * 0.3 * MADE),
        (("contribution",), 0.5, MADE, 4 * 0.5 * MADE),
        (("progress",), 0.3, 1.0, 1.0),
        (("boost",), 0.3, MADE, 0.3 * MADE),
        (("contribution", "progress", "boost"), 0.5, 1.0, 0.5),
        (("quality", "forecast"), 0.3, MADE, 4 * 0.3 * MADE),
    ],
)
def test_one_at_a_time(without, contribution, progress, reward):
    found = appraisal(without)("east", G, T)
    assert found.contribution == contribution
    assert found.progress == pytest.approx(progress)
    assert found.reward == pytest.approx(reward)
    assert found.starved == 2, "it starved whether that raises its reward or not"


def test_devices_lose_what_is_left_out_of_them():
    def crowd():
        return population("east", {"count": "2", "day-seconds": "60"}).devices()

    for d in crowd():
        plain([d], ("contribution", "boost"))
        assert d.appraise is own_quality
        assert d.learns is not None
        plain([d], ("quality",))
        assert d.appraise(d, None) == QUALITY
        assert d.learns is not None
    for d in crowd():
        plain([d], ("forecast",))
        assert d.appraise is own_quality
        assert d.learns is None


TREE = {
    "zones": {"east": {"devices": 4}, "west": {"devices": 4}},
    "devices": {"day_seconds": 60},
    "tasks": [
        {"task": "toy", "model": "arithmetic", "data": "none"}
        | {"rounds": {"demand": 2, "deadline_s": 8, "lease_s": 4}, "epochs": {"count": 3, "rounds": 2}}
    ],
}


def announced(without: tuple[str, ...]) -> set[float]:
    """The contribution and progress by which the last round of a zone was opened."""
    made = Simulation(check(TREE | {"without": without}, "here"), Arithmetic(), lambda s, seed: (LAYOUT, START), None)
    list(made.run())
    facts = [decode(r.value, ZONE_FACTS) for r in made.memory.records("sim.east.ledger")]
    worth = [f for f in facts if isinstance(f, Opened)][-1].worth
    return {worth.contribution, worth.progress}


def test_a_simulation_does_without():
    assert announced(("contribution", "progress")) == {0.5, 1.0}
    assert announced(()).isdisjoint({0.5, 1.0})


def test_what_is_no_mechanism_is_refused():
    with pytest.raises(Trouble, match="without"):
        check(TREE | {"without": ["luck"]}, "here")
