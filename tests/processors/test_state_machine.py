"""All processors at once under whatever Hypothesis thinks of: sent, sent again, dropped, reordered, crashed, frozen, cut.

The machine plays the devices; `machine.py` has the plane, `books.py` its books, and after every step these must agree. A soak: `STATE_MACHINE=5000 STATE_MACHINE_STEPS=120 pytest tests/processors/test_state_machine.py -k soak`.
"""

import dataclasses
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from processors import accumulator
from processors.accumulator import Accumulator
from processors.aggregator import Aggregator
from processors.desk import Desk, ZoneDesk
from processors.work import Work
from schemas import sets
from schemas.facts import Update
from schemas.sharing import SHARING, Quota, Sharing
from schemas.task import Epochs, Rounds, Server
from schemas.topics import GLOBAL, topic
from streams import ledger, reading
from streams.ledger import Zone, chains, rounds
from streams.processor import send
from tests.plane import NS
from tests.processors.machine import DEVICES, GARBAGE, SESSION, Shape, World, shuffled

pytestmark = pytest.mark.proof

MANY = st.integers(0, 10_000)
"""Which one, counted round and round."""
MOMENTS = st.sampled_from((0, 0, 5, 50, 300, 2 * SESSION))


@st.composite
def shapes(draw: Any) -> Shape:
    demand, staleness = draw(st.integers(1, 4)), draw(st.sampled_from((None, None, 0, 1, 2)))
    return Shape(
        seed=draw(st.integers(0, 99)),
        zones=draw(st.sampled_from((1, 1, 2))),
        shards=draw(st.integers(1, 4)),
        aggregators=draw(st.integers(2, 3)),
        standbys=draw(st.booleans()),
        every=draw(st.sampled_from((10, 15, 30, 5, 0))),
        commit=draw(st.sampled_from((200, 50, 800))),
        hold=draw(st.sampled_from((2**25, 80, 48))),
        rounds=Rounds(
            demand=demand,
            over_commit=draw(st.sampled_from((1.0, 1.5, 3.0))),
            minimum=draw(st.integers(1, demand)),
            deadline_s=draw(st.sampled_from((2.0, 8.0))),
            lease_s=draw(st.sampled_from((0.5, 3.0))),
            grace_s=draw(st.sampled_from((0.0, 0.3))),
            refill=0 if staleness is None else draw(st.integers(1, 1 + demand // 2)),
            staleness=staleness or 0,
            atomic=draw(st.booleans()),
            partial=draw(st.booleans()),
        ),
        epochs=Epochs(draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.sampled_from((8.0, 3600.0)))),
        server=Server(*draw(st.sampled_from((("fedavg", "zone"), ("fedyogi", "zone"), ("fedyogi", "globe"))))),
        latency=draw(st.sampled_from((3, 40))),
        loss=draw(st.sampled_from((0.5, 0.0, 1.0))),
        losses=draw(st.sampled_from((False, False, True))),
    )


@st.composite
def shared(draw: Any) -> Shape:
    """The same with a sharing policy, a quota, and both time-outs."""
    shape, seconds = draw(shapes()), st.sampled_from((0.0, 0.5, 2.0))
    return dataclasses.replace(
        shape,
        policy=draw(st.sampled_from(("fifo", "irs", "max-min", "reward"))),
        quota=Quota(devices=draw(st.sampled_from((0, 2, 4))), bytes=draw(st.sampled_from((0, 0, 1_500)))),
        rounds=replace(shape.rounds, fill_s=draw(seconds), serve_s=draw(seconds)),
    )


class Machine(RuleBasedStateMachine):
    world: World | None = None

    @initialize(shape=shapes())
    def begin(self, shape: Shape) -> None:
        self.go(shape)

    def go(self, shape: Shape) -> None:
        self.world = World(shape)
        self.world.submit()
        self.world.run(3_000)
        self.turn(shape.seed, 8, 400)

    @property
    def w(self) -> World:
        assert self.world
        return self.world

    # ------------------------------------------------------------------ devices

    @rule(seed=MANY, share=st.integers(1, 10), ms=st.sampled_from((100, 400, 1_000)))
    def turn(self, seed: int, share: int, ms: int) -> None:
        """A good while of a round: devices register, and most of what they have to send is sent, in any order."""
        for i in shuffled(range(DEVICES), seed):
            for open in self.w.open():
                self.w.register(*open, i)
        self.w.run(200)
        self.w.check()
        for i in shuffled(range(len(self.w.unsent)), seed)[: 1 + len(self.w.unsent) * share // 8]:
            self.w.send(i)
        self.w.run(ms)

    @rule(seed=MANY)
    def turn_and_turn(self, seed: int) -> None:
        """A round or two, with nothing held back."""
        for n in range(3):
            self.turn(seed + n, 8, 400)

    @rule(i=MANY, device=st.integers(0, DEVICES - 1), ahead=st.sampled_from((0, 0, 0, -1, 1)))
    def register(self, i: int, device: int, ahead: int) -> None:
        if open := self.w.open():
            zone, task, n = open[i % len(open)]
            self.w.register(zone, task, max(0, n + ahead), device)

    @precondition(lambda self: self.world and self.world.unsent)
    @rule(which=st.lists(MANY, min_size=1, max_size=4))
    def send(self, which: list[int]) -> None:
        for i in which:
            self.w.send(i)

    @precondition(lambda self: self.world and self.world.unsent)
    @rule(seed=MANY, ms=st.sampled_from((100, 900)))
    def send_halves(self, seed: int, ms: int) -> None:
        self.w.halves(seed)
        self.w.run(ms)

    @precondition(lambda self: self.world and self.world.unsent)
    @rule(seed=MANY)
    def send_all_in_any_order(self, seed: int) -> None:
        for i in shuffled(range(len(self.w.unsent)), seed):
            self.w.send(i)

    @precondition(lambda self: self.world and self.world.sent)
    @rule(which=st.lists(MANY, min_size=1, max_size=4))
    def send_again(self, which: list[int]) -> None:
        for i in which:
            self.w.deliver(*self.w.sent[-1 - i % len(self.w.sent)])

    @precondition(lambda self: self.world and self.world.unsent)
    @rule(i=MANY)
    def never_send(self, i: int) -> None:
        self.w.unsent.pop(i % len(self.w.unsent))

    @precondition(lambda self: self.world and (self.world.sent or self.world.unsent))
    @rule(kind=st.sampled_from(sorted(GARBAGE)), i=MANY)
    def garbage(self, kind: str, i: int) -> None:
        self.w.garbage(kind, i)

    @precondition(lambda self: self.world and self.world.tasks < 2)
    @rule()
    def submit(self) -> None:
        self.w.submit()

    # ------------------------------------------------------------------ time and network

    @rule(ms=st.sampled_from((1, 5, 20, 60, 200, 500, SESSION, 3_000)))
    def tick(self, ms: int) -> None:
        self.w.run(ms)

    @rule(copies=st.sampled_from((0.0, 0.1, 0.5)), late=st.sampled_from((0, 50, 2_000)))
    def weather(self, copies: float, late: int) -> None:
        self.w.copies, self.w.late = copies, late

    @rule(what=st.sampled_from(("ledger", "ledger", "registrations", "partials", "models", "checkpoints")), i=MANY)
    def lands_again(self, what: str, i: int) -> None:
        self.w.again(what, i)

    # ------------------------------------------------------------------ processes

    @rule(i=MANY, how=st.sampled_from(("crash", "freeze", "leave", "back")), ms=MOMENTS)
    def process(self, i: int, how: str, ms: int) -> None:
        """Something befalls a process, or it comes back, a zombie perhaps."""
        self.w.process(self.w.named(i), how)
        self.w.run(ms)

    @rule(i=MANY, how=st.sampled_from(("crash", "freeze", "leave")), ms=st.sampled_from((0, 10, 100, 2 * SESSION)))
    def process_and_back(self, i: int, how: str, ms: int) -> None:
        """Within the session or past it."""
        self.w.process(self.w.named(i), how)
        self.w.run(ms)
        self.w.process(self.w.named(i), "back")

    @rule()
    def all_back(self) -> None:
        for h in list(self.w.hosts.values()):
            self.w.process(h, "back")

    @precondition(lambda self: self.world and len(self.world.hosts) < 14)
    @rule(i=MANY)
    def join(self, i: int) -> None:
        self.w.join(self.w.zones[i % len(self.w.zones)])

    @rule(i=MANY, how=st.sampled_from(("crash", "freeze", "leave")), ms=MOMENTS)
    def lose_a_leader(self, i: int, how: str, ms: int) -> None:
        scopes = (GLOBAL, *self.w.zones)
        if h := self.w.leader(scopes[i % len(scopes)]):
            self.w.process(h, how)
            self.w.run(ms)

    # ------------------------------------------------------------------ logs

    @rule(i=MANY, back=st.integers(0, 3))
    def retention(self, i: int, back: int) -> None:
        self.w.cut(i, back)

    @precondition(lambda self: self.world and self.world.shape.losses)
    @rule(i=MANY, more=st.integers(1, 4))
    def retention_overtakes(self, i: int, more: int) -> None:
        self.w.overtake(i, more)

    @precondition(lambda self: self.world and self.world.shape.losses)
    @rule(i=MANY, back=st.integers(1, 4))
    def a_log_loses_its_end(self, i: int, back: int) -> None:
        self.w.lose(i, back)

    @precondition(lambda self: self.world and self.world.losses())
    @rule(i=MANY, off=st.sampled_from((0, 0, 0, 1)), late=st.lists(st.integers(0, 30), max_size=4))
    def abandon(self, i: int, off: int, late: list[int]) -> None:
        """A person does; then appends from before the loss land again."""
        losses = self.w.losses()
        zone, task, at = losses[i % len(losses)]
        self.w.abandon(zone, task, at + off)
        for k in late:
            self.w.again("ledger", k, zone)

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def the_books_agree(self) -> None:
        if self.world:
            self.world.check()

    def teardown(self) -> None:
        if self.world:
            try:
                if not self.world.failed:
                    self.world.end()
            finally:
                self.world.close()


class SharedMachine(Machine):
    """Tenants share the devices. Whatever a plan or a quota refuses, and however early rounds end: the books agree, and they end."""

    @initialize(shape=shared())
    def begin(self, shape: Shape) -> None:
        self.go(shape)

    @rule(policy=st.sampled_from(("fifo", "srsf", "irs", "max-min", "reward")))
    def another_policy(self, policy: str) -> None:
        self.w.memory.append(send(topic(NS, GLOBAL, "tenants"), Sharing(policy), SHARING))


def profile(examples: int, steps: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        print_blob=True,
        report_multiple_bugs=False,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


@pytest.mark.timeout(3600)  # where it is red: Hypothesis takes minutes to say it shortly
def test_whatever_happens_the_books_agree():
    run_state_machine_as_test(Machine, settings=profile(350, 50, derandomize=True))


@pytest.mark.timeout(3600)
def test_whatever_a_policy_says_the_books_agree():
    run_state_machine_as_test(SharedMachine, settings=profile(100, 50, derandomize=True))


@pytest.mark.skipif("STATE_MACHINE" not in os.environ, reason="a soak: set STATE_MACHINE to a number of runs")
@pytest.mark.timeout(0)
def test_soak():
    steps = int(os.environ.get("STATE_MACHINE_STEPS", "100"))
    run_state_machine_as_test(Machine, settings=profile(int(os.environ["STATE_MACHINE"]), steps))


# ------------------------------------------------------------------ controls


def lax(*reasons: str) -> Any:
    """The fold without the guards that void a fact for these reasons."""
    strict = chains.require
    return lambda holds, reason: None if any(r in reason for r in reasons) else strict(holds, reason)


def ignorant(self: Any, task: str, work: Any, t: Any) -> Any:
    """Who takes a shard over does not ask what was counted before."""
    work.bitmaps.loaded |= {c.offset for r in t.rounds.values() for c in r.commits}
    work.bitmaps.unloaded = {}
    return ()


def one_too_many(self: Any, outcome: str, real: Any = Accumulator.tally) -> None:
    real(self, outcome)
    if outcome == "duplicate":
        real(self, "counted")
        self.counts["duplicate"] -= 1


def forgetful(self: Any, *a: Any, real: Any = Work.resume) -> Any:
    """Who takes a shard over does not read again what is held."""
    shard = real(self, *a)
    shard.recall.clear()
    shard.position = shard.start
    return shard


def in_part(data: Any, kind: Any, real: Any = reading.restore) -> Any:
    """A checkpoint that is read without what was done in its rounds."""
    state = real(data, kind)
    if isinstance(state, Zone):
        tasks = {
            k: replace(t, rounds={n: replace(r, done=frozenset(), contributors=0) for n, r in t.rounds.items()})
            for k, t in state.tasks.items()
        }
        state = replace(state, tasks=tasks)
    return state


CONTROLS: dict[str, tuple[Any, str, Any]] = {
    "duplicates are known after a take-over": (Aggregator, "_load", ignorant),
    "duplicates are known": (Work, "known", lambda self, round, slot, block: False),
    "commits tile": (chains, "require", lax("is committed up to")),
    "counts are what they say": (Accumulator, "tally", one_too_many),
    "what is held is read again": (Work, "resume", forgetful),
    "a checkpoint is the whole state": (reading, "restore", in_part),
    "ledgers are cut below what readers need": (ZoneDesk, "needed", Desk.needed),
    "staleness weighs": (accumulator, "staleness_factor", lambda s, fraction: 2**fraction),
    "a slot counts what it owes": (sets, "has", lambda blocks, block: True),
    "a slot is done with what it owes": (ledger.Round, "owed", lambda self, slot: len(self.opened.sizes)),
    "zones are merged block by block": (Update, "weigh", lambda self, n: (self.samples,) * n),
    "a task with a loss stands still": (rounds, "_whole", lambda t, task: None),
}


@pytest.mark.parametrize("guard", CONTROLS)
def test_control_goes_red_without(guard, monkeypatch):
    monkeypatch.setattr(*CONTROLS[guard])
    with pytest.raises(Exception, match=r".") as red:
        run_state_machine_as_test(Machine, settings=profile(1_000, 60, derandomize=True, phases=[Phase.generate]))
    print(f"{red.value!r:.300}")
