"""ECLM on real Kafka, every role of the plane a process: unlike devices adapt one model by sub-models, and move no byte of other modules.
The process that derives sub-models is killed as the first question comes."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.learner import TorchLearner, prepare, structure
from device_sim.modular import known
from learning.modular.structure import blocks_of
from olearning.planes import Processes
from olearning.roles import Role
from processors.submitter import Submitter
from schemas.blocks import DeltaBlock
from schemas.facts import Finalised, TaskAdmitted
from schemas.modules import Modules, Profile, Submodel
from schemas.task import Epochs, Rounds, TaskSpec, Training
from schemas.topics import read, topic
from streams.processor import Answer, Effect, Follow, Input, Record
from tests.integration.scribe import Scribe

pytestmark = pytest.mark.kafka

Z, PARTITIONS, ROUNDS = "east", 2, 2
LINKS = (1.3, 1.3, 1.6, 2.0, 4.0)
"""Mbit/s, by device: a transfer takes `transfer_s` of it at most."""
SPEC = TaskSpec(
    "digits",
    "mlp",
    "digits",
    model_args={"hidden": "32,32"},
    data_args={"devices": len(LINKS)},
    training=Training(epochs=1, batch=16, learning_rate=0.05),
    rounds=Rounds(len(LINKS), 1.0, 1, 60.0, lease_s=30.0, fill_s=15.0, partial=True),
    epochs=Epochs(1, ROUNDS),
    modules=Modules(modules=8, ratio=2.0, k=2, transfer_s=0.15),
)


class Watcher(Scribe):
    """Reads the logs of questions, answers and deltas as well."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked = asyncio.Event()
        self.read: list[tuple[str, object, int]] = []
        """What travelled: topic, message, and bytes of key and value as they lie in the log."""
        self.follows = False

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Answer(tag=("log", _, _)):
                return  # the task is over, and its topics are gone
            case Record() if event.topic.split(".")[2] in ("profiles", "submodels", "deltas"):
                message = read(event.topic, event.value, event.headers)
                self.read.append((event.topic, message, len(event.value or b"") + len(event.key or "")))
                if isinstance(message, Profile):
                    self.asked.set()
            case _:
                yield from super().handle(event, now)
        if not self.follows and self.of(TaskAdmitted):
            self.follows = True
            names = [topic(self.namespace, Z, what).name for what in ("profiles", "submodels")]
            names.append(topic(self.namespace, Z, "deltas", "digits").name)
            yield from (Follow(n, p, 0, ("log", n, p)) for n in names for p in range(PARTITIONS))


async def on_kafka(bootstrap: str, folder: Path) -> tuple[Watcher, list[str], Fleet]:
    namespace = f"modular-{secrets.token_hex(4)}"
    said: list[str] = []
    plane = Processes(bootstrap, folder, said.append, 6_000, 0.5)
    p = {"partitions": str(PARTITIONS)}
    roles = [Role("global", "global", namespace, options={"zones": Z, **p})]
    roles += [Role(kind, kind, namespace, Z, p) for kind in ("zone", "aggregator", "modules")]
    watcher = Watcher(namespace, (Z,), (SPEC.task,))
    devices = [Device(f"d{n}", n, abilities={"bandwidth": mbit}) for n, mbit in enumerate(LINKS)]
    fleet = Fleet(namespace, Z, "fleet", "life", devices, TorchLearner(), Manner(training=(100, 500), reaction=100))
    layout, vector, _ = prepare(SPEC, 1)
    tasks: list[asyncio.Task] = []
    try:
        await plane.start(roles)
        watching = asyncio.create_task(plane.host(lambda life: watcher))
        make = lambda life: Submitter(namespace, life, SPEC, layout, vector, 1, 60_000, structure(SPEC))  # noqa: E731
        done = await plane.host(make)
        assert done.ok, done.reason
        tasks.append(asyncio.create_task(plane.host(lambda life: fleet)))
        async with asyncio.timeout(200):
            await watcher.asked.wait()
            plane.kill("modules")
            ended = await watching
        assert ended.ok, (ended.reason, said)
    finally:
        for t in tasks:
            t.cancel()
        await plane.stop()
    return watcher, said, fleet


def test_unlike_devices_adapt_by_sub_models_and_move_no_byte_of_other_modules(broker, tmp_path):
    watcher, said, fleet = asyncio.run(on_kafka(broker, tmp_path))
    assert [s.split()[0] for s in said] == ["modules"], said
    assert len([f for f in watcher.of(Finalised, Z, SPEC.task) if f.manifest]) == ROUNDS
    layout = known(SPEC).layout
    choices = {m.device: m.choice for _, m, _ in watcher.read if isinstance(m, Submodel) and m.choice}
    assert len(choices) == len(LINKS)
    assert sorted(len(c[0]) - 1 for c in choices.values()) == [1, 1, 2, 4, 7]  # shrunk modules

    sent: dict[str, set[int]] = defaultdict(set)
    size: dict[str, int] = defaultdict(int)
    deltas: dict[str, set[int]] = defaultdict(set)
    for _, m, n in watcher.read:
        if isinstance(m, DeltaBlock):
            sent[m.device].add(m.block)
            size[m.device] += n
            deltas[m.device].add(m.round)
    assert set(sent) == set(choices)
    for device, choice in choices.items():
        blocks = blocks_of(layout, choice, selector=False)
        assert sent[device] == set(blocks)
        values = 4 * sum(layout.sizes[b] for b in blocks)
        # As the broker has it: int32 values, and less than 300 bytes around each block.
        assert values < size[device] / len(deltas[device]) < values + 300 * len(blocks)
    least, most = (f(size.values()) for f in (min, max))
    assert least < most / 2

    # One edge for all devices: it read each block that one of them has once for each version, and no other.
    mine = set().union(*(blocks_of(layout, c) for c in choices.values()))
    unread = set(range(len(layout.sizes))) - mine
    assert {layout.sizes[b] for b in unread} == {layout.sizes[2]}  # the noise's
    once = sum(4 * layout.sizes[b] + 200 for b in mine)
    assert fleet.edge.fetched < ROUNDS * once
