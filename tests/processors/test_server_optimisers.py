"""Server optimisers in a whole plane: each one, in the zones and in the globe, against plain numpy bit for bit; and leaders that die."""

from collections.abc import Callable, Iterable
from random import Random

import numpy as np
import pytest

from device_sim.fleet import Manner
from device_sim.pseudonym import seed_of
from learning import optimisers
from processors import global_leader, zone_leader
from processors.auditor import Auditor
from processors.globe import GlobalCoordinator
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from schemas.blocks import STATISTICS, Tensor, layout
from schemas.facts import Closed, Finalised, Merged
from schemas.task import Epochs, Rounds, Server, TaskSpec
from schemas.topics import GLOBAL
from streams.memory import Memory
from tests.plane import LAYOUT, NS, START, Plane
from tests.some import some

ROUNDS, EPOCHS, DEVICES, ZONES = 3, 3, 4, ("east", "west")
RATE = 0.05
"""Not the default: far enough from it that nothing here rests on it."""
CUTS = np.split(np.arange(len(START)), np.cumsum(LAYOUT.sizes)[:-1])
Who = Callable[[str, int], Iterable[int]]


def everyone(zone: str, n: int) -> Iterable[int]:
    return range(DEVICES)


# ------------------------------------------------------------------ what must be, from the papers' formulas


class Oracle:
    """One optimiser's state and steps, written anew: float64 steps from float32 arrays."""

    def __init__(self, name: str):
        v0 = {"fedadagrad": 1e-6, "fedadam": 1e-6, "fedyogi": 1e-6}.get(name, 0.0)
        self.name, n = name, len(START)
        self.m, self.v = np.zeros(n, np.float32), np.full(n, v0, np.float32)
        self.seen = np.zeros(n, bool)

    def step(self, x: np.ndarray, cut: np.ndarray, d: np.ndarray) -> np.ndarray:
        """x[cut] after the delta d."""
        m, v = self.m[cut].astype(np.float64), self.v[cut].astype(np.float64)
        if self.name == "fedavg":
            change = RATE * d
        elif self.name == "fedavgm":
            m = 0.9 * m + d
            change = RATE * m
        elif self.name == "fedadagrad":
            v = v + d * d
            change = RATE * d / (np.sqrt(v) + 1e-3)
        elif self.name in ("fedadam", "fedyogi"):
            m = 0.9 * m + (1 - 0.9) * d
            if self.name == "fedadam":
                v = 0.99 * v + (1 - 0.99) * (d * d)
            else:
                v = v - (1 - 0.99) * (d * d) * np.sign(v - d * d)
            change = RATE * m / (np.sqrt(v) + 1e-3)
        elif not self.seen[cut].any():
            v, change = d * d, d
        else:
            v = v - (1 - 0.999) * (d * d) * np.sign(v - d * d)
            change = RATE * d / (np.sqrt(v) + 1e-3)
        self.seen[cut] = True
        self.m[cut], self.v[cut] = m, v
        return (x[cut].astype(np.float64) + change).astype(np.float32)


def mean_delta(zone: str, n: int, cut: np.ndarray, local: np.ndarray, who: Who) -> tuple[np.ndarray, int]:
    """The weighted mean of what `tests.plane.Arithmetic` says the devices' training is, and the samples."""
    total, samples = np.zeros(len(cut), np.int64), 0
    for k in who(zone, n):
        dice = seed_of(1, f"{zone}-{k}", "toy", n)
        noise = np.random.default_rng(dice).standard_normal(len(START)).astype(np.float32)
        units = (0.1 * noise - 0.1 * local)[cut].astype(np.float64) * (1 + dice % 50) * 2**24
        e = 0  # rounded once, to the finest multiple of a power of two that fits int32
        while np.abs(np.rint(units / 2**e)).max() >= 2**31:
            e += 1
        total += np.rint(units / 2**e).astype(np.int64) * 2**e
        samples += 1 + dice % 50
    return total * 2.0**-24 / max(samples, 1), samples


def oracle(server: Server, who: Who = everyone) -> np.ndarray:
    """The last global model. A round or an epoch in which nobody counts changes nothing, the state included."""
    name, at = server.optimiser, server.at
    states = {place: Oracle(name) for place in (*ZONES, GLOBAL)}
    model, rounds = START, dict.fromkeys(ZONES, 0)
    for _ in range(EPOCHS):
        results, weights = [], []
        for zone in ZONES:
            local, weight, done = model, 0, 0
            while done < ROUNDS:
                rounds[zone] += 1
                if not list(who(zone, rounds[zone])):
                    continue
                new, done = local.copy(), done + 1
                for cut in CUTS:
                    d, samples = mean_delta(zone, rounds[zone], cut, local, who)
                    if at == "zone":
                        new[cut] = states[zone].step(local, cut, d)
                    else:
                        new[cut] = (local[cut].astype(np.float64) + d).astype(np.float32)
                local, weight = new, weight + samples
            results.append(local.astype(np.float64) * weight)
            weights.append(weight)
        merged = (sum(results) / sum(weights)).astype(np.float32)
        if at == "globe":
            new = model.copy()
            for cut in CUTS:
                new[cut] = states[GLOBAL].step(model, cut, merged[cut].astype(np.float64) - model[cut])
            merged = new
        model = merged
    return model


# ------------------------------------------------------------------ running it


def task(server: Server, **more) -> TaskSpec:
    rounds = Rounds(
        **({"demand": DEVICES, "over_commit": 1.0, "minimum": DEVICES, "deadline_s": 100, "lease_s": 50} | more)
    )
    return TaskSpec("toy", "arithmetic", "none", rounds=rounds, epochs=Epochs(EPOCHS, ROUNDS), server=server)


def plane_of(server: Server, seed: int = 0, **more) -> Plane:
    manner = Manner(training=(50, 300), reaction=50, report=500)
    plane = Plane(Memory(seed=seed), aggregators=1, devices=DEVICES, manner=manner)
    plane.submit(task(server, **more))
    return plane


def finish(plane: Plane) -> None:
    assert plane.memory.run(lambda: plane.ended("toy"), 400_000), "it does not end"
    assert {n: h.stopped for n, h in plane.hosts.items() if h.stopped} == {}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """States in several blocks: two for each array."""
    monkeypatch.setattr(optimisers, "BLOCK", len(START) // 2)


def server_of(name: str, at: str) -> Server:
    return Server(name, at, learning_rate=RATE)


NAMES = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "pyramidfl-yogi")
ALL = [pytest.param(server_of(name, at), id=f"{name} at {at}") for name in NAMES for at in ("zone", "globe")]
ARRAYS = {"fedavg": 0, "fedavgm": 1, "fedadagrad": 1, "pyramidfl-yogi": 1, "fedadam": 2, "fedyogi": 2}


def finals(plane: Plane, zone: str) -> list[Finalised]:
    return [f for f in plane.facts(zone) if isinstance(f, Finalised)]


@pytest.mark.parametrize("server", ALL)
def test_each_optimiser_bit_for_bit_and_its_state_where_it_works(server):
    plane = plane_of(server)
    finish(plane)
    assert plane.model("toy").tobytes() == oracle(server).tobytes()
    zones = [f for zone in ZONES for f in finals(plane, zone)]
    merges = [f for f in plane.facts(GLOBAL) if isinstance(f, Merged)]
    assert (len(zones), len(merges)) == (2 * EPOCHS * ROUNDS, EPOCHS)
    here, there = (zones, merges) if server.at == "zone" else (merges, zones)
    arrays = ARRAYS[server.optimiser]
    assert all(f.optimiser is None for f in there)
    for f in here:
        assert (f.optimiser is not None) == bool(arrays)
        if f.optimiser:
            assert len(f.optimiser.blocks) == 2 * arrays
            assert not {p.key for p in f.optimiser.blocks} & {p.key for p in f.manifest.blocks}
            assert len(plane.vector(f.optimiser)) == arrays * len(START)
    last = {f.optimiser for f in here if f.optimiser}
    assert len(last) == (len(here) if arrays else 0)  # each at places of its own


def test_optimisers_and_places_are_different_models():
    assert len({oracle(p.values[0]).tobytes() for p in ALL}) == len(ALL)


def test_a_task_without_a_server_optimiser_is_plain_fedavg():
    plane = Plane(
        Memory(seed=0), aggregators=1, devices=DEVICES, manner=Manner(training=(50, 300), reaction=50, report=500)
    )
    plain = task(Server())
    plane.submit(plain)
    finish(plane)
    model = START
    for epoch in range(EPOCHS):
        results, weights = [], []
        for zone in ZONES:
            local, weight = model, 0
            for n in range(epoch * ROUNDS + 1, (epoch + 1) * ROUNDS + 1):
                pairs = [mean_delta(zone, n, cut, local, everyone) for cut in CUTS]
                local = (local.astype(np.float64) + np.concatenate([d for d, _ in pairs])).astype(np.float32)
                weight += pairs[0][1]
            results.append(local.astype(np.float64) * weight)
            weights.append(weight)
        model = (sum(results) / sum(weights)).astype(np.float32)
    assert plane.model("toy").tobytes() == model.tobytes()
    assert not any(f.optimiser for zone in ZONES for f in finals(plane, zone))


# ------------------------------------------------------------------ statistics


def with_statistics(server: Server) -> Plane:
    """A plane whose model's second block holds statistics."""
    plane = Plane(Memory(seed=0), devices=DEVICES, manner=Manner(training=(50, 300), reaction=50, report=500))
    shape = layout((Tensor("w", (7,)), Tensor("running_var", (5,), group=STATISTICS)))
    plane.memory.host(lambda life: Submitter(NS, life, task(server), shape, START, 1))
    finish(plane)
    return plane


@pytest.mark.parametrize("at", ["zone", "globe"])
def test_statistics_take_the_plain_mean_whatever_the_optimiser(at):
    """Devices' deltas here go by element, so that what becomes of the statistics does not depend on the weights."""
    plain, plane = with_statistics(Server()), with_statistics(server_of("fedadam", at))
    must, model = plain.model("toy"), plane.model("toy")
    assert model[7:].tobytes() == must[7:].tobytes()
    assert not (model[:7] == must[:7]).any()
    for n in (1, ROUNDS * EPOCHS):
        auditor = plane.memory.host(lambda life, n=n: Auditor(NS, "east", "toy", n))
        assert plane.memory.run(lambda a=auditor: a.stopped is not None, 60_000)
        assert (auditor.processor.audit.differs, auditor.processor.audit.missing) == ([], [])


# ------------------------------------------------------------------ rounds that fail


@pytest.mark.parametrize("at", ["zone", "globe"])
def test_a_failed_round_changes_neither_model_nor_state(at):
    """The east's fleet sleeps through its third round, which fails, and the fourth goes on from the second's state."""
    server = server_of("fedadam", at)
    plane = plane_of(server, deadline_s=4, lease_s=3)
    zone, fleet = plane.hosts["zone-east"].processor, plane.hosts["fleet-east"]
    reached = lambda n: "toy" in zone.zone.tasks and zone.zone.tasks["toy"].round >= n  # noqa: E731
    assert plane.memory.run(lambda: reached(3), 100_000)
    fleet.crash()
    assert plane.memory.run(lambda: reached(4) or zone.zone.tasks["toy"].state == "closed", 100_000)
    assert plane.memory.run(lambda: reached(4), 100_000)
    kept = zone.zone.tasks["toy"].optimiser
    fleet.restart()
    finish(plane)
    said = finals(plane, "east")
    failed = {f.round for f in said if not f.manifest}
    assert 3 in failed
    assert all(f.optimiser is None for f in said if f.round in failed)
    assert kept == said[1].optimiser
    assert (kept is not None) == (at == "zone")
    gone = dict.fromkeys(failed, ())
    assert {f.round for f in finals(plane, "west") if not f.manifest} == set()
    who = lambda z, n: gone.get(n, range(DEVICES)) if z == "east" else range(DEVICES)  # noqa: E731
    assert plane.model("toy").tobytes() == oracle(server, who).tobytes()


# ------------------------------------------------------------------ leaders that die


def kill(server: Server, name: str, when: Callable[[Plane], bool], seed: int) -> Plane:
    """The leader dies at that moment, and comes back before or after its session is over."""
    plane = plane_of(server, seed)
    assert plane.memory.run(lambda: when(plane), 400_000), "choose an earlier moment: it was over by then"
    host = plane.hosts[name]
    host.crash()
    plane.memory.run(limit=Random(seed).choice((0, 20, 1500)))
    host.restart()
    finish(plane)
    return plane


def check(server: Server, name: str, when: Callable[[Plane], bool], seed: int) -> None:
    plane = kill(server, name, when, seed)
    assert plane.model("toy").tobytes() == oracle(server).tobytes(), "another model"
    for zone in ZONES:
        assert [f.round for f in finals(plane, zone)] == list(range(1, ROUNDS * EPOCHS + 1))
        assert [f.round for f in plane.facts(zone) if isinstance(f, Closed)] == list(range(1, ROUNDS * EPOCHS + 1))


def at_input(name: str, n: int) -> Callable[[Plane], bool]:
    return lambda plane: plane.hosts[name].handled >= n


def at_request(name: str, what: str, left: int, step: int) -> Callable[[Plane], bool]:
    """`left` requests of this kind are out, in a later round or epoch `step`: so a state was stored before."""

    def now(plane: Plane) -> bool:
        out = [a for a in plane.hosts[name].processor.requests.open.values() if a[0] == what and a[2] >= step]
        return len(out) == left

    return now


def moments(name: str, upto: int, count: int, step: int):
    dice = Random(name)
    for n in sorted(dice.sample(range(1, upto), count)):
        yield pytest.param(name, at_input(name, n), n, id=f"{name} input {n}")
    for what, left in (("state", 1), ("block", 1), ("state block", 4), ("state block", 3), ("state block", 1)):
        yield pytest.param(name, at_request(name, what, left, step), left, id=f"{name} {left} {what} out")


@pytest.mark.parametrize(("name", "when", "seed"), some(moments("zone-east", 300, 25, 4), 6))
def test_a_zone_leader_killed_at_any_point_changes_no_bit(name, when, seed):
    check(server_of("fedadam", "zone"), name, when, seed)


@pytest.mark.parametrize(("name", "when", "seed"), some(moments("global", 280, 15, 2), 5))
def test_a_global_leader_killed_at_any_point_changes_no_bit(name, when, seed):
    check(server_of("fedyogi", "globe"), name, when, seed)


@pytest.mark.parametrize("name", some(NAMES, 2))
@pytest.mark.parametrize(("at", "leader", "step"), [("zone", "zone-east", 4), ("globe", "global", 2)])
def test_every_optimiser_outlives_its_leader(name, at, leader, step):
    check(server_of(name, at), leader, at_request(leader, "block", 1, step), 3)


@pytest.mark.parametrize("left", [4, 1])
@pytest.mark.parametrize(("at", "leader", "step"), [("zone", "zone-east", 4), ("globe", "global", 2)])
def test_a_leader_that_freezes_while_it_writes_and_wakes_under_another_changes_no_bit(at, leader, step, left):
    server = server_of("fedyogi", at)
    plane = plane_of(server, seed=left)
    if at == "zone":
        plane.host(f"{leader}-b", lambda life: ZoneCoordinator(NS, "east", plane.partitions, f"{leader}-b", life))
    else:
        plane.host(f"{leader}-b", lambda life: GlobalCoordinator(NS, ZONES, plane.partitions, f"{leader}-b", life))
    names = [leader, f"{leader}-b"]
    leads = lambda: next((n for n in names if plane.hosts[n].processor.token), leader)  # noqa: E731
    assert plane.memory.run(lambda: at_request(leads(), "state block", left, step)(plane), 400_000)
    first = leads()
    [second] = set(names) - {first}
    plane.hosts[first].freeze()
    assert plane.memory.run(lambda: bool(plane.hosts[second].processor.token), 100_000)
    plane.memory.run(limit=left * 30)
    plane.hosts[first].thaw()
    finish(plane)
    assert plane.model("toy").tobytes() == oracle(server).tobytes()


# ------------------------------------------------------------------ controls


@pytest.mark.parametrize(("at", "module"), [("zone", zone_leader), ("globe", global_leader)])
@pytest.mark.parametrize("name", [n for n in NAMES if ARRAYS[n]])
def test_control_a_leader_that_forgets_the_state_gives_another_model(monkeypatch, name, at, module):
    """One that begins with the first state in every round; the check that finds equal bits above must find these."""
    server = server_of(name, at)
    lays = "apply_sums" if at == "zone" else "apply_merged"
    right = getattr(module, lays)
    monkeypatch.setattr(
        module, lays, lambda *args, **more: right(*args[:-1], module.first_state(args[0], len(args[1])), **more)
    )
    plane = plane_of(server)
    finish(plane)
    assert plane.model("toy").tobytes() != oracle(server).tobytes()


def test_control_a_state_kept_in_the_process_and_not_read_from_the_fold_dies_with_it(monkeypatch):
    server, write, step = server_of("fedadam", "zone"), zone_leader.ZoneLeader._write, zone_leader.apply_sums

    def from_mind(self, task, job, r):
        mind = self.__dict__.setdefault("mind", {})
        job.state = mind.get(task, zone_leader.first_state(server, len(START)))

        def remember(*args, **more):
            new, mind[task] = step(*args, **more)
            return new, mind[task]

        monkeypatch.setattr(zone_leader, "apply_sums", remember)
        yield from write(self, task, job, r)

    monkeypatch.setattr(zone_leader.ZoneLeader, "_write", from_mind)
    plane = plane_of(server)
    finish(plane)
    assert plane.model("toy").tobytes() == oracle(server).tobytes()  # nobody died
    plane = kill(server, "zone-east", at_request("zone-east", "block", 1, 4), 3)
    assert plane.model("toy").tobytes() != oracle(server).tobytes()
