"""ECLM on real Kafka, every role of the plane a process: unlike devices adapt one model by sub-models, and move no byte of other modules.
Some are a fleet's, others phones behind a gateway. The process that derives sub-models is killed as the first question comes, the
gateway as the first delta of one of its phones does."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.learner import TorchLearner, prepare, structure
from device_sim.modular import known
from device_sim.pseudonym import pseudonym
from learning.modular.structure import blocks_of
from olearning.phone import Phone
from olearning.roles import Role
from olearning.tokens import Signed, salt
from processors.submitter import Submitter
from schemas.blocks import DeltaBlock
from schemas.facts import Finalised, TaskAdmitted
from schemas.modules import Modules, Profile, Submodel
from schemas.task import Epochs, Rounds, TaskSpec, Training
from schemas.topics import read, topic
from streams.processor import Answer, Effect, Follow, Input, Record
from tests.integration.scribe import Scribe
from tests.integration.staged import Z, staged
from tests.integration.test_cli_kafka import free_ports

pytestmark = pytest.mark.kafka

PARTITIONS, ROUNDS, HERE = 2, 2, 3
"""So many of the devices are a fleet's."""
SECRET = b"a secret of 24 bytes, so."
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


PHONES = {pseudonym(f"d{n}", Z, SPEC.tenant, salt(SECRET)) for n in range(HERE, len(LINKS))}


class Watcher(Scribe):
    """Reads the logs of questions, answers and deltas as well."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked, self.gave = asyncio.Event(), asyncio.Event()
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
                elif isinstance(message, DeltaBlock) and message.device in PHONES:
                    self.gave.set()
            case _:
                yield from super().handle(event, now)
        if not self.follows and self.of(TaskAdmitted):
            self.follows = True
            names = [topic(self.namespace, Z, what).name for what in ("profiles", "submodels")]
            names.append(topic(self.namespace, Z, "deltas", "digits").name)
            yield from (Follow(n, p, 0, ("log", n, p)) for n in names for p in range(PARTITIONS))


@dataclass
class Ran:
    watcher: Watcher
    said: list[str]
    fleet: Fleet
    phones: list[Phone]
    complaints: list[str]


async def on_kafka(bootstrap: str, folder: Path) -> Ran:
    secret, complaints = folder / "secret", []
    secret.write_bytes(SECRET)
    url = f"http://127.0.0.1:{free_ports(0)}"
    gateway = Role("gateway", "gateway", "", options={"secret": str(secret), "listen": url.removeprefix("http://")})
    manner = Manner(training=(100, 500), reaction=100)
    devices = [Device(f"d{n}", n, abilities={"bandwidth": mbit}) for n, mbit in enumerate(LINKS)]
    layout, vector, _ = prepare(SPEC, 1)
    async with staged(bootstrap, folder, "modular", PARTITIONS, ("modules",), gateway) as stage:
        namespace = stage.namespace
        watcher = Watcher(namespace, (Z,), (SPEC.task,))
        watching = stage.hosts(watcher)
        await stage.does(lambda life: Submitter(namespace, life, SPEC, layout, vector, 1, 60_000, structure(SPEC)))
        fleet = Fleet(namespace, Z, "fleet", "life", devices[:HERE], TorchLearner(), manner)
        stage.hosts(fleet)
        phones = [
            Phone(url, Signed(SECRET).token(d.id), Z, d, TorchLearner(), complaints.append, manner)
            for d in devices[HERE:]
        ]
        alive = [stage.beside(phone.run()) for phone in phones]
        async with asyncio.timeout(200):
            await watcher.asked.wait()
            stage.plane.kill("modules")
            await watcher.gave.wait()
            stage.plane.kill("gateway")
            ended = await watching
        assert ended.ok, (ended.reason, stage.said)
        assert not any(task.done() for task in alive), alive
    return Ran(watcher, stage.said, fleet, phones, complaints)


def test_unlike_devices_adapt_by_sub_models_and_move_no_byte_of_other_modules(broker, tmp_path):
    """Some are a fleet's, others phones behind a gateway."""
    ran = asyncio.run(on_kafka(broker, tmp_path))
    watcher = ran.watcher
    assert [s.split()[0] for s in ran.said] == ["modules", "gateway"], ran.said
    assert [text for text in ran.complaints if not text.startswith("the gateway ")] == [], "but that it was away"
    assert len([f for f in watcher.of(Finalised, Z, SPEC.task) if f.manifest]) == ROUNDS
    layout = known(SPEC).layout
    choices = {m.device: m.choice for _, m, _ in watcher.read if isinstance(m, Submodel) and m.choice}
    assert len(choices) == len(LINKS)
    assert sorted(len(c[0]) - 1 for c in choices.values()) == [1, 1, 2, 4, 7]  # shrunk modules

    sent: dict[str, set[int]] = defaultdict(set)
    size: dict[str, int] = defaultdict(int)
    deltas: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for _, m, n in watcher.read:
        if isinstance(m, DeltaBlock):
            sent[m.device].add(m.block)
            if (m.round, m.block) not in deltas[m.device]:  # what a gateway did not answer comes again
                size[m.device] += n
            deltas[m.device].add((m.round, m.block))
    assert set(sent) == set(choices)
    for device, choice in choices.items():
        blocks = blocks_of(layout, choice, selector=False)
        assert sent[device] == set(blocks)
        values, rounds = 4 * sum(layout.sizes[b] for b in blocks), len({n for n, _ in deltas[device]})
        # As the broker has it: int32 values, and less than 300 bytes around each block.
        assert values < size[device] / rounds < values + 300 * len(blocks)
    least, most = (f(size.values()) for f in (min, max))
    assert least < most / 2

    # An edge of many devices read each block that one of them has once for each version, and no other; a phone its own.
    def once(names: Iterable[str]) -> int:
        mine = set().union(*(blocks_of(layout, choices[name]) for name in names))
        assert {layout.sizes[b] for b in set(range(len(layout.sizes))) - mine} >= {layout.sizes[2]}  # the noise's
        return ROUNDS * sum(4 * layout.sizes[b] + 200 for b in mine)

    here = [pseudonym(f"d{n}", Z, SPEC.tenant, ran.fleet.manner.salt) for n in range(HERE)]
    assert ran.fleet.edge.fetched < once(here)
    for phone in ran.phones:
        assert phone.alone.edge.fetched < once([pseudonym(phone.device.id, Z, SPEC.tenant, salt(SECRET))])
