"""ECLM's online stage end to end, in virtual time: unlike devices adapt one cloud model, each by its own modules."""

from collections import defaultdict
from collections.abc import Iterator

import pytest

from device_sim.learner import Learners, prepare, scorer, structure
from device_sim.modular import known
from learning.modular.structure import SELECTOR, blocks_of, owners
from learning.modular.training import Settings
from olearning.model_files import read_model
from olearning.offline import Stage, train
from olearning.scenario import check
from olearning.simulation import NAMESPACE, Simulation
from processors.derivation import Deriver
from schemas.blocks import DeltaBlock
from schemas.messages import Registration
from schemas.modules import Profile, Submodel
from schemas.topics import read, topic
from schemas.wire import checksum
from streams.processor import Effect, Follow, Input, Membership, Record

ZONES, PARTITIONS = ("east", "west"), 2
TREE = {
    "zones": {"east": {"devices": 9}, "west": {"devices": 1}},
    "devices": {"phones": "usual", "capacity": "usual"},
    "partitions": PARTITIONS,
    "tasks": [
        {
            "task": "digits",
            "model": "mlp",
            "model_args": {"hidden": "32,32"},
            "data": "digits",
            "data_args": {"devices": 10, "partition": "dirichlet", "alpha": 0.5},
            "training": {"epochs": 2, "batch": 16, "learning_rate": 0.05},
            "rounds": {"demand": 6, "minimum": 1, "deadline_s": 300.0, "lease_s": 250.0, "fill_s": 20.0},
            "epochs": {"count": 2, "rounds": 2, "deadline_s": 3600.0},
            "modules": {"modules": 8, "ratio": 2.0, "k": 2, "transfer_s": 0.15, "sample_ms": 250.0},
        }
    ],
}
LOADED = check(TREE, "here")
SPEC = LOADED.specs[0]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Version 0: what a short offline stage gave."""
    layout, _, _ = prepare(SPEC, 0)
    stage = Stage(passes=2, enhance=1, proxy=0.1, settings=Settings(batch=16, lr=0.01))
    return read_model(train(SPEC, stage, tmp_path_factory.mktemp("offline"), lambda text: None), layout)


class Listener:
    """Keeps what travels: here logs are swept."""

    name, membership, tick = "listener", None, 10_000
    WHAT = ("registrations", "profiles", "submodels")

    def __init__(self) -> None:
        self.heard: dict[type, list[tuple[str, object]]] = defaultdict(list)
        self.bytes: dict[str, int] = defaultdict(int)
        """Of deltas, by device."""

    def start(self, now: int) -> Iterator[Effect]:
        for z in ZONES:
            names = [topic(NAMESPACE, z, what).name for what in self.WHAT]
            names.append(topic(NAMESPACE, z, "deltas", "digits").name)
            yield from (Follow(name, p, 0) for name in names for p in range(PARTITIONS))

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Record):
            m = read(event.topic, event.value, event.headers)
            self.heard[type(m)].append((event.topic.split(".")[1], m))
            if isinstance(m, DeltaBlock):
                self.bytes[m.device] += len(event.value or b"")
        return iter(())


def simulated(first) -> tuple[Simulation, Listener]:
    listener = Listener()
    assert isinstance(listener.membership, Membership | None)

    def made(spec, seed):
        return prepare(spec, seed)[0], first

    return Simulation(LOADED, Learners(), made, scorer(), [listener], structure), listener


def hosts(s: Simulation, kind: str):
    return [h for h in s.memory.hosts if type(h.processor).__name__ == kind]


@pytest.mark.program
def test_unlike_devices_adapt_one_model_each_by_its_own_modules(first):
    simulation, listener = simulated(first)
    (deriver, _) = [h for h in simulation.memory.hosts if isinstance(h.processor, Deriver)]
    simulation.memory.run(lambda: bool(listener.heard[Profile]), 60_000)
    deriver.crash()  # with questions on their way to it
    simulation.memory.run(limit=4_000)
    deriver.restart()
    for _ in simulation.run():
        pass
    result, layout = simulation.result, known(SPEC).layout
    scores = [e.accuracy for e in result.epochs if e.accuracy is not None]
    assert len(scores) == 3
    assert scores[-1] > scores[0] + 0.05

    answers = {(z, m.device): m for z, m in listener.heard[Submodel] if isinstance(m, Submodel)}
    assert set(answers) == {(z, m.device) for z, m in listener.heard[Profile] if isinstance(m, Profile)}
    choices = {key: m.choice for key, m in answers.items() if m.choice}
    assert len(set(choices.values())) >= 4  # unlike devices, unlike models
    assert any(m.why for m in answers.values()) or len(choices) == 10

    sent: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for z, m in listener.heard[DeltaBlock]:
        assert isinstance(m, DeltaBlock)
        sent[z, m.device, m.round].add(m.block)
    assert sent
    names = owners(layout)
    for (z, device, _), blocks in sent.items():
        assert blocks == set(blocks_of(layout, choices[z, device], selector=False))
        assert not {names[b] for b in blocks} & {SELECTOR, "noise"}
        whole = sum(4 * layout.sizes[b] for b in blocks)
        rounds = sum(d == device for _, d, _ in sent)
        assert listener.bytes[device] < rounds * (1.1 * whole + 300 * len(blocks))
    for _, m in listener.heard[Registration]:
        assert isinstance(m, Registration)
        assert m.blocks

    # West has one device, so all that its edge read of models is what that device fetched.
    edge = next(h.processor.edge for h in hosts(simulation, "Fleet") if h.processor.zone == "west")
    ((_, choice),) = [(d, c) for (z, d), c in choices.items() if z == "west"]
    mine = {(layout.sizes[b], names[b]) for b in blocks_of(layout, choice)}
    assert edge.fetched
    fetched = [b.values for b in edge._blocks]
    assert set(fetched) == {n for n, _ in mine}
    versions = 1 + 2 * 2  # of each block at most
    assert edge.fetched < versions * sum(4 * n + 200 for n, _ in mine)
    assert edge.fetched < versions * 4 * sum(layout.sizes)
    assert checksum(first.tobytes()) != result.models["digits"]
