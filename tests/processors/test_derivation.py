"""Every profile has its answer, whoever dies; the answer is what the derivation says, and what has none is told why."""

from functools import partial
from random import Random

import pytest
from msgspec.structs import replace

from learning.modular.derivation import Derivation, Limits
from processors import derivation
from processors.derivation import AHEAD, Deriver
from schemas.blocks import Manifest, Place
from schemas.facts import LEADERSHIP, Claimed, Founded, TaskAdmitted, TaskEnded, ZoneJoined
from schemas.modules import Modules, Profile, Structure, Submodel
from schemas.topics import GLOBAL, topic, zone_topics
from schemas.wire import decode, encode
from streams.memory import Memory
from streams.processor import Send, send
from tests.modular import STRUCTURE
from tests.plane import LAYOUT, NS, spec
from tests.some import some

PARTS = 4
GREEDY = partial(Derivation, solver=False)
IMPORTANCE = ((512, 256, 128, 128), (64, 64, 832, 64))


class World:
    """A zone's topics, a global ledger with tasks in it, and some derivers."""

    def __init__(self, seed: int = 0, derivers: int = 1, tasks: tuple[str, ...] = ("t",)):
        self.memory = Memory(seed=seed)
        for zone in (GLOBAL, "east"):
            for t in zone_topics(NS, zone):
                self.memory.create(t.name, t.partitions(PARTS))
        self.profiles, self.submodels = topic(NS, "east", "profiles"), topic(NS, "east", "submodels")
        self.put(Founded("g", GLOBAL, PARTS), Claimed("g", "1", {LEADERSHIP: 0}), ZoneJoined(1, "east", "z", PARTS))
        for t in tasks:
            self.put(self.admitted(t))
        self.hosts = [self.memory.host(lambda life, n=n: Deriver(NS, "east", f"m{n}", GREEDY)) for n in range(derivers)]

    def admitted(self, task: str, structure: Structure | None = STRUCTURE) -> TaskAdmitted:
        place = Manifest(topic(NS, GLOBAL, "models").name, 0, (Place(0, 0, "k", 0),))
        plain = spec(task)
        modular = replace(plain, rounds=replace(plain.rounds, partial=True), modules=Modules() if structure else None)
        return TaskAdmitted(1, modular, LAYOUT, place, ("east",), structure=structure)

    def put(self, *facts) -> None:
        for fact in facts:
            self.memory.append(send(topic(NS, GLOBAL, "ledger"), fact))

    def ask(self, device: str, task: str = "t", asked: int = 1, **more) -> tuple[int, int]:
        profile = Profile(device, task, asked, **({"importance": IMPORTANCE} | more))
        return self.memory.append(send(self.profiles, profile, device))

    def answers(self) -> list[tuple[int, Submodel]]:
        found = [(p, r) for p in range(PARTS) for r in self.memory.records(self.submodels.name, p)]
        return [(p, decode(r.value, (Submodel,))) for p, r in found]

    def one(self, **more) -> Submodel:
        self.ask("d", **more)
        assert self.memory.run(lambda: bool(self.answers()), 5_000)
        return self.answers()[-1][1]


def test_an_answer_is_what_the_derivation_says_and_goes_to_the_profiles_partition():
    w = World()
    at = [w.ask(f"d{n}", bytes=4 * (60 + 10 * n), batch=8) for n in range(3)]
    w.memory.run(limit=2_000)
    found = {a.device: (p, a) for p, a in w.answers()}
    for n, (p, offset) in enumerate(at):
        where, answer = found[f"d{n}"]
        shares = [[s / 1024 for s in layer] for layer in IMPORTANCE]
        wanted = GREEDY(STRUCTURE, 8)(shares, Limits(4 * (60 + 10 * n), 2**60, 2**60))
        assert (where, answer.profile, answer.choice, answer.why) == (p, offset, wanted, "")
    assert len({a.choice for _, a in w.answers()}) == 3


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"bytes": 100}, "one module of each layer and the shared part need 160 bytes to transfer, limit 100"),
        ({"importance": ((1, 1),)}, r"importance is of \[2\] modules a layer, the model has \[4, 4\]"),
        ({"task": "u"}, "task u is not there"),
    ],
)
def test_who_cannot_have_one_is_told_why(more, why):
    answer = World().one(**more)
    assert not answer.choice
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(answer.why)


def test_a_task_without_modules_or_over_has_no_sub_models():
    w = World(tasks=())
    w.put(w.admitted("t", None))
    assert w.one().why == "task t is not modular"
    w = World()
    w.put(TaskEnded(1, "t", "stopped"))
    assert w.one().why == "task t is over"


def test_a_profile_that_overtakes_its_task_waits_for_it():
    """What the ledger held when the profile came is read before anybody says that there is no such task."""
    w = World(tasks=())
    for host in w.hosts:
        w.memory.run(limit=2_000)
        host.freeze()
    w.put(w.admitted("t"))
    w.ask("d")
    w.hosts[0].thaw()
    w.memory.run(limit=5_000)
    assert [(a.choice != (), a.why) for _, a in w.answers()] == [(True, "")]


def test_what_is_no_profile_is_a_dead_letter_and_holds_up_nobody():
    w = World()
    for value in (b"", b"\xc1", encode(Submodel("d", "t", 1, 0, 0))):
        w.memory.append(Send(w.profiles.name, value, "d"))
    w.memory.append(send(w.profiles, Profile("other", "t", 1, IMPORTANCE), "d"))
    assert w.one().choice
    letters = w.memory.records(topic(NS, GLOBAL, "dead-letters").name)
    assert len(letters) == 4


def test_a_flood_waits_in_the_log(monkeypatch):
    """Of profiles whose task nobody knows yet only so many are in memory; all are answered."""
    monkeypatch.setattr(derivation, "FULL", 50)
    w = World()
    w.memory.run(limit=2_000)
    for n in range(150):
        w.ask("d", "u", asked=n)
    most = 0

    def watch() -> bool:
        nonlocal most
        most = max(most, *(len(p.waiting) for p in w.hosts[0].processor.parts.values()))
        return len(w.answers()) == 150

    assert w.memory.run(watch, 60_000)
    assert 0 < most <= 50


@pytest.mark.parametrize("seed", some(range(12), 3))
def test_no_profile_stays_without_an_answer_whoever_dies(seed):
    """Nobody asks twice here. Two derivers crash, freeze and wake at random; answers are late, doubled, out of order."""
    w, dice = World(seed, derivers=2), Random(seed)
    w.memory.network = lambda host, sent: [dice.randint(1, 400) for _ in range(1 + (dice.random() < 0.1))]
    asked = []
    for n in range(60):
        asked.append((f"d{n % 9}", n, *w.ask(f"d{n % 9}", asked=n, bytes=4 * dice.randint(30, 100))))
        w.memory.run(limit=dice.randint(0, 300))
        host = dice.choice(w.hosts)
        match dice.randrange(8):
            case 0 if host.alive and not host.frozen:
                host.crash()
            case 1 if host.alive and not host.frozen:
                host.freeze()
            case _ if host.frozen:
                host.thaw()
            case _ if not host.alive:
                host.restart()
    for host in w.hosts:
        if host.frozen:
            host.thaw()
        if not host.alive:
            host.restart()
    w.memory.run(limit=20_000)
    answers: dict[tuple[int, int], set] = {}
    for p, a in w.answers():
        answers.setdefault((p, a.profile), set()).add((a.device, a.asked, a.choice, a.why))
    assert {(p, at) for _, _, p, at in asked} == set(answers)
    for device, n, p, at in asked:
        ((whose, number, choice, why),) = answers[p, at]  # whoever answered, it is the same
        assert (whose, number) == (device, n)
        assert bool(choice) != bool(why)


def test_the_next_begins_where_answers_have_landed():
    w = World()
    for n in range(20):
        w.ask("d", asked=n)
    w.memory.run(limit=3_000)
    (p,) = {p for p, _ in w.answers()}
    w.hosts[0].crash()
    w.memory.run(limit=5_000)
    before = len(w.answers())
    w.hosts[0].restart()
    w.memory.run(limit=5_000)
    again = [a.profile for _, a in w.answers()[before:]]
    assert again == list(range(20 - len(again), 20))
    assert len(again) <= 2 * AHEAD < 20
    w.memory.cut(w.submodels.name, p, len(w.answers()))  # retention
    w.memory.cut(w.profiles.name, p, 15)
    w.hosts[0].crash()
    w.memory.run(limit=5_000)
    w.hosts[0].restart()
    w.memory.run(limit=5_000)
    assert [a.profile for _, a in w.answers()] == list(range(15, 20))
