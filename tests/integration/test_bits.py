"""Real training, real processes, real Kafka: whoever is killed, the global model has the bits of an undisturbed run.

Rounds wait for all their devices, so that both runs train on the same deltas; the undisturbed run is in memory, which also
shows that both runtimes carry out the same thing.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import olearning
from olearning.planes import Processes
from olearning.submitting import submitter
from olearning.tasks import parse_task
from olearning.up import Shape
from processors.submitter import Submitter
from schemas.facts import Finalised, Merged
from schemas.task import Distribute, Epochs, Rounds
from streams.ledger import Globe, Ledger, Zone
from streams.memory import Memory
from streams.models import assemble, fetch
from streams.processor import Answer, Effect, Follow, Input, Membership, Record, Requests, Stop

TASK = Path(olearning.__file__).with_name("digits.toml")
DEVICES, ZONES, TASK_NAME = 4, ("east", "west"), "digits"


def shape(namespace: str) -> Shape:
    return Shape(namespace, ZONES, 2, DEVICES, evaluator=False, partitions=4, day_seconds=0, seed=3)


def task(namespace: str, differences: bool = False) -> Submitter:
    """The demo's task, but every round waits for all devices of its zone."""
    made = submitter(TASK, namespace, 3, wait_s=120)("life")
    rounds = Rounds(DEVICES, over_commit=1.0, minimum=DEVICES, deadline_s=120, lease_s=120)
    more = {"epochs": Epochs(2, 2), "distribute": Distribute(differences)}
    made.spec = msgspec.structs.replace(parse_task(TASK), rounds=rounds, **more)
    return made


class Watch:
    """Reads the ledgers; stops when the task is over, with its last model."""

    membership: Membership | None = None
    name, tick = "watch", 100

    def __init__(self, namespace: str):
        self.topics = {f"{namespace}.{z}.ledger": z for z in ("global", *ZONES)}
        self.ledgers: dict[str, Ledger] = {
            z: Ledger(Globe() if z == "global" else Zone()) for z in self.topics.values()
        }
        self.accepted: list[tuple[str, object]] = []
        self.requests = Requests()
        self.model: np.ndarray | None = None

    def start(self, now: int) -> Iterator[Effect]:
        yield from (Follow(name, 0, 0) for name in self.topics)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Record):
            zone = self.topics[event.topic]
            fact, void = self.ledgers[zone].feed(event)
            if not void:
                self.accepted.append((zone, fact))
            if TASK_NAME in self.ledgers["global"].state.over and not self.requests.open:
                manifest = [f.manifest for _, f in self.accepted if isinstance(f, Merged) and f.manifest][-1]
                yield fetch(manifest, self.requests, manifest)
        elif isinstance(event, Answer):
            (manifest,) = self.requests.close(event.tag)
            self.model = assemble(manifest, event.value)
            yield Stop("it is over", ok=True)

    def round(self, zone: str):
        t = self.ledgers[zone].state.tasks.get(TASK_NAME)
        return t.rounds[t.round] if t and t.state == "open" else None

    def holder(self, zone: str) -> str:
        """Who holds most shards."""
        holders = [h.holder for h in self.ledgers[zone].state.shards]
        return max(sorted(set(holders)), key=holders.count)

    def once(self) -> None:
        """No round finalised twice, no epoch merged twice."""
        rounds = [(z, f.round) for z, f in self.accepted if isinstance(f, Finalised)]
        epochs = [f.epoch for _, f in self.accepted if isinstance(f, Merged)]
        assert sorted(rounds) == [(z, n) for z in ZONES for n in (1, 2, 3, 4)]
        assert epochs == [1, 2]
        assert all(f.devices == DEVICES for _, f in self.accepted if isinstance(f, Finalised))


@pytest.fixture(scope="module")
def undisturbed() -> np.ndarray:
    """The model of a run in memory, in virtual time, in which nothing happens."""
    memory, s = Memory(seed=5), shape("calm")
    for role in (*s.plane(), *s.fleets()):
        for topic, partitions in role.topics():
            memory.create(topic.name, partitions)
        memory.host(role.build)
    watch = Watch("calm")
    watching = memory.host(lambda life: watch)
    submitted = memory.host(lambda life: task("calm"))
    assert memory.run(lambda: watching.stopped is not None, 300_000)
    assert submitted.stopped
    assert submitted.stopped.ok
    watch.once()
    assert watch.model is not None
    return watch.model


async def run(
    bootstrap: str, folder: Path, victims: dict[int, str], differences: bool = False
) -> tuple[Watch, list[str]]:
    """A run of processes; in round n of the zone east the n-th victim is killed as soon as all devices have their slots."""
    namespace = f"bits-{secrets.token_hex(4)}"
    said: list[str] = []
    plane, watch, left, killed = (
        Processes(bootstrap, folder, said.append, 2_000, 0.5),
        Watch(namespace),
        dict(victims),
        [],
    )
    try:
        s = shape(namespace)
        await plane.start([*s.plane(), *s.fleets()])
        watching = asyncio.create_task(plane.host(lambda life: watch))
        submitted = await plane.host(lambda life: task(namespace, differences))
        assert submitted.ok, submitted.reason
        end = time.monotonic() + 200
        while not watching.done():
            assert time.monotonic() < end, f"not over in time; {said}"
            r = watch.round("east")
            if r and r.round in left and len(r.devices) == DEVICES:
                who = left.pop(r.round)
                plane.kill(who := watch.holder("east") if who == "aggregator" else who)
                killed.append(who)
            await asyncio.sleep(0.02)
        assert watching.result().ok, watching.result().reason
    finally:
        await plane.stop()
    return watch, killed


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_killed_aggregators_change_no_bit(broker: str, tmp_path: Path, undisturbed: np.ndarray) -> None:
    watch, killed = asyncio.run(run(broker, tmp_path, {2: "aggregator", 3: "aggregator"}))
    assert len(killed) == 2
    watch.once()
    assert watch.model is not None
    assert watch.model.tobytes() == undisturbed.tobytes()


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_killed_coordinators_change_no_bit(broker: str, tmp_path: Path, undisturbed: np.ndarray) -> None:
    """Though edges have most versions as differences from the ones before, and the undisturbed run's had none."""
    watch, killed = asyncio.run(run(broker, tmp_path, {1: "zone-east", 2: "global", 4: "zone-east"}, differences=True))
    assert killed == ["zone-east", "global", "zone-east"]
    watch.once()
    versions = [f.manifest for _, f in watch.accepted if isinstance(f, Finalised | Merged) and f.manifest]
    assert sum(any(m.differences) for m in versions) > len(versions) / 2
    assert watch.model is not None
    assert watch.model.tobytes() == undisturbed.tobytes()


def test_the_comparison_would_notice(undisturbed: np.ndarray) -> None:
    """Negative control: one weight that differs in its last bit is seen."""
    other = undisturbed.copy()
    other[0] = np.nextafter(other[0], np.float32(np.inf))
    assert other.tobytes() != undisturbed.tobytes()
