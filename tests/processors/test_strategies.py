"""A merge of one's own in a whole plane: its state in the log, leaders that die, lack its code or find it failing."""

import numpy as np
import pytest

from device_sim.fleet import Manner
from learning import strategies
from learning.strategies import strategy
from processors.auditor import Auditor
from processors.steerer import Change, Steerer
from schemas import task
from schemas.facts import Closed, Finalised, Merged, Retired, TaskEnded, TaskRefused
from schemas.messages import Objection
from schemas.task import Epochs, Rounds, Server, TaskSpec
from schemas.topics import GLOBAL, read, topic
from streams.memory import Memory
from tests.plane import NS, Plane

DEVICES, ZONES = 4, ("east", "west")
OWN, BUILT_IN = "rolling", "fedavgm"


def rolling(settings, model, delta, state):
    """FedAvgM as somebody else would write it."""
    step = settings["momentum"] * state[0] + delta
    return model + settings["rate"] * step, [step]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(strategies, "_own", {})
    monkeypatch.setattr(strategies, "STRATEGIES", {})
    monkeypatch.setattr(task, "STRATEGIES", strategies.STRATEGIES)


def know(function=rolling) -> None:
    strategies._own.clear()
    strategies.STRATEGIES.clear()
    strategy(OWN, settings={"rate": 1.0, "momentum": 0.9}, arrays=1)(function)


def unlearn() -> None:
    strategies._own.clear()
    strategies.STRATEGIES.clear()


def own(at: str) -> Server:
    """As it travels: with all its settings."""
    return Server(OWN, at, args={"rate": 0.05, "momentum": 0.9})


def spec(server: Server, name: str = "toy") -> TaskSpec:
    rounds = Rounds(demand=DEVICES, over_commit=1.0, minimum=DEVICES, deadline_s=100, lease_s=50)
    return TaskSpec(name, "arithmetic", "none", rounds=rounds, epochs=Epochs(2, 3, 3600.0), server=server)


def plane_of(*specs: TaskSpec) -> Plane:
    manner = Manner(training=(50, 300), reaction=50, report=500)
    plane = Plane(Memory(seed=5), aggregators=1, devices=DEVICES, manner=manner)
    for s in specs:
        plane.submit(s)
    return plane


def finish(plane: Plane, name: str = "toy") -> None:
    assert plane.memory.run(lambda: plane.ended(name), 400_000), "it does not end"
    assert {n: h.stopped for n, h in plane.hosts.items() if h.stopped} == {}


def objections(plane: Plane) -> list[Objection]:
    found = plane.memory.records(topic(NS, GLOBAL, "metrics").name)
    messages = [read(r.topic, r.value, r.headers) for r in found]
    return [m for m in messages if isinstance(m, Objection)]


def must(at: str) -> bytes:
    """The model of the same run with the built-in optimiser of that formula."""
    plane = plane_of(spec(Server(BUILT_IN, at, learning_rate=0.05, momentum=0.9)))
    finish(plane)
    return plane.model("toy").tobytes()


@pytest.mark.parametrize("at", ["zone", "globe"])
def test_it_does_what_a_built_in_one_of_its_formula_does_bit_for_bit(at):
    know()
    plane = plane_of(spec(own(at)))
    finish(plane)
    assert plane.model("toy").tobytes() == must(at)
    steps = [f for z in ZONES for f in plane.facts(z) if isinstance(f, Finalised)]
    merges = [f for f in plane.facts(GLOBAL) if isinstance(f, Merged)]
    here, there = (steps, merges) if at == "zone" else (merges, steps)
    assert all(f.optimiser for f in here)
    assert not any(f.optimiser for f in there)
    assert objections(plane) == []


@pytest.mark.parametrize(("at", "leader"), [("zone", "zone-east"), ("globe", "global")])
def test_its_state_outlives_its_leader(at, leader):
    """The leader dies after every step that it stored."""
    know()
    plane = plane_of(spec(own(at)))
    kinds = Finalised if at == "zone" else Merged
    scope = "east" if at == "zone" else GLOBAL
    for n in range(1, 3):
        assert plane.memory.run(lambda n=n: sum(isinstance(f, kinds) for f in plane.facts(scope)) >= n, 400_000)
        plane.hosts[leader].crash()
        plane.hosts[leader].restart()
    finish(plane)
    assert plane.model("toy").tobytes() == must(at)


def test_control_one_that_keeps_its_state_in_the_process_gives_another_model():
    """The check above would see it: what is kept elsewhere is shared by both zones, and dies."""
    mind = {"b": 0.0}

    def forgetful(settings, model, delta, state):
        mind["b"] = settings["momentum"] * mind["b"] + delta if np.shape(mind["b"]) in ((), delta.shape) else delta
        return model + settings["rate"] * mind["b"], state

    know(forgetful)
    plane = plane_of(spec(own("zone")))
    finish(plane)
    assert plane.model("toy").tobytes() != must("zone")


# ------------------------------------------------------------------ who lacks its code


def test_a_coordinator_that_does_not_know_it_refuses_the_task_in_words():
    plane = plane_of(spec(own("zone")))
    assert plane.memory.run(lambda: any(isinstance(f, TaskRefused) for f in plane.facts(GLOBAL)), 60_000)
    (refused,) = [f for f in plane.facts(GLOBAL) if isinstance(f, TaskRefused)]
    assert "'rolling' is not known here; known: fedavg, " in refused.reason
    assert "--load" in refused.reason
    assert {n: h.stopped for n, h in plane.hosts.items() if h.stopped} == {}
    know()
    plane.submit(spec(own("zone")))  # the same name again: nothing ran under it
    finish(plane)


@pytest.mark.parametrize(("at", "who"), [("zone", {"zone-east", "zone-west"}), ("globe", {"global"})])
def test_a_leader_that_lost_its_code_says_so_and_goes_on_with_others_and_then_with_it(at, who):
    know()
    plane = plane_of(spec(own(at)), spec(Server(), "other"))
    scope, kinds = ("east", Finalised) if at == "zone" else (GLOBAL, Merged)

    def steps() -> int:
        return sum(isinstance(f, kinds) and f.task == "toy" for f in plane.facts(scope))

    assert plane.memory.run(lambda: steps() > 0, 400_000)
    unlearn()  # as if all were started again without --load
    before = steps()
    finish(plane, "other")
    assert steps() <= before + 1  # one may have been on its way
    assert not plane.ended("toy")
    said = [o for o in objections(plane) if o.task == "toy"]
    assert {o.source for o in said} == who
    assert len(said) == len(who)  # once each
    assert all("'rolling' is not known here" in o.reason for o in said)
    know()
    finish(plane)
    assert plane.memory.now < 3_600_000  # no epoch had to wait for its deadline


# ------------------------------------------------------------------ code that fails


@pytest.mark.parametrize(("at", "leader"), [("zone", "zone-east"), ("globe", "global")])
def test_one_that_fails_stands_still_and_goes_on_when_its_leader_comes_with_better_code(at, leader):
    def broken(settings, model, delta, state):
        raise ZeroDivisionError("no such merge")

    know(broken)
    plane = plane_of(spec(own(at)), spec(Server(), "other"))
    finish(plane, "other")
    assert not plane.ended("toy")
    said = [o for o in objections(plane) if o.source == leader]
    assert [o.reason for o in said] == ["strategy 'rolling' failed: ZeroDivisionError: no such merge"]
    know()
    for name in ("zone-east", "zone-west", "global"):
        plane.hosts[name].crash()
        plane.hosts[name].restart()
    finish(plane)
    assert plane.model("toy").tobytes() == must(at)


@pytest.mark.parametrize("at", ["zone", "globe"])
@pytest.mark.parametrize("fails", [False, True], ids=["unknown", "failing"])
def test_a_task_that_stands_still_can_be_stopped(at, fails):
    def broken(settings, model, delta, state):
        raise ZeroDivisionError("no such merge")

    know(broken if fails else rolling)
    plane = plane_of(spec(own(at)))
    assert plane.memory.run(lambda: any(isinstance(f, Closed) for f in plane.facts("east")), 60_000)
    if not fails:
        unlearn()
    assert not plane.memory.run(lambda: plane.ended("toy"), 60_000)
    steerer = plane.memory.host(lambda life: Steerer(NS, "toy", Change("stop"), "ann"))
    assert plane.memory.run(lambda: plane.ended("toy"), 20_000), steerer.stopped
    assert [f.why for f in plane.facts(GLOBAL) if isinstance(f, TaskEnded)] == ["stopped by ann"]
    assert plane.memory.run(lambda: all(any(isinstance(f, Retired) for f in plane.facts(z)) for z in ZONES), 20_000)


# ------------------------------------------------------------------ an audit


def audit(plane: Plane):
    host = plane.memory.host(lambda life: Auditor(NS, "east", "toy", 2))
    assert plane.memory.run(lambda: host.stopped is not None, 60_000)
    return host.processor.audit


def test_an_audit_does_the_step_again_or_says_what_it_lacks():
    know()
    plane = plane_of(spec(own("zone")))
    finish(plane)
    found = audit(plane)
    assert found.ok
    assert found.model
    unlearn()
    found = audit(plane)
    assert found.differs == []
    (missing,) = found.missing
    assert "the model was not recomputed: server.optimiser 'rolling' is not known here" in missing
    assert not found.ok
    know(lambda settings, model, delta, state: (model, state))
    assert audit(plane).differs  # other code under that name gives another model
