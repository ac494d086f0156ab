"""Many devices behind one edge: who registers, who stays away, and what is sent."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from device_sim.availability import Availability
from device_sim.board import Board
from device_sim.device import PATIENCE, Device
from device_sim.fleet import Fleet, Manner
from device_sim.job import TRAINING
from device_sim.outbox import Outbox
from device_sim.pseudonym import pseudonym
from learning.aggregation import quantise
from processors.oracle import plain
from schemas.blocks import CODECS, DeltaBlock, Manifest, ModelBlock, Place, slices
from schemas.facts import Committed, Finalised, Retired
from schemas.messages import (
    Admission,
    Announcement,
    CheckIn,
    Credits,
    FleetReport,
    Objection,
    Receipt,
    Ref,
    Refusal,
    Registration,
)
from schemas.modules import Modules
from schemas.task import Training, Upload
from schemas.topics import GLOBAL, read, task_topics, topic, zone_topics
from schemas.wire import checksum
from streams.memory import Memory
from streams.processor import Send, send
from tests.plane import LAYOUT, NS, START, Arithmetic, Done, Plane, spec

Z, P, SIZES = "z", 4, LAYOUT.sizes
QUICK = Manner(training=(100, 100), reaction=50, report=500)


@dataclass
class Learner(Arithmetic):
    """Arithmetic that notes what it is asked to do, and may decline or diverge."""

    unable: str = ""
    bad: float = 0.0
    asked: list[tuple[str, int, bytes]] = field(default_factory=list)

    def objection(self, a: Announcement) -> str:
        return self.unable

    def run(self, a: Announcement, device: Device, base: np.ndarray) -> Any:
        self.asked.append((device.id, a.round, base.tobytes()))
        done = super().run(a, device, base)
        return Done(np.where(np.arange(len(base)) == 3, done.delta + self.bad, done.delta), done.samples, done.loss_sum)


class Edge:
    """A fleet alone: the test speaks for the plane."""

    def __init__(self, devices: list[Device], learner: Any, manner: Manner = QUICK):
        self.memory = Memory()
        for zone in (GLOBAL, Z):
            for t in zone_topics(NS, zone):
                self.memory.create(t.name, t.partitions(P))
        for t in task_topics(NS, Z, "t"):
            self.memory.create(t.name, P)
        self.manner, self.devices = manner, devices
        self.manifest = self.model()
        self.host = self.memory.host(lambda life: Fleet(NS, Z, "fleet", life, devices, learner, manner))

    def model(self) -> Manifest:
        places = []
        for i, piece in enumerate(slices(SIZES)):
            data = START[piece].tobytes()
            block = ModelBlock("t", 0, i, memoryview(data))
            at = self.memory.append(send(topic(NS, Z, "models"), block, f"m/{i}"))
            places.append(Place(*at, f"m/{i}", checksum(data)))
        return Manifest(topic(NS, Z, "models").name, 0, tuple(places))

    def announce(
        self,
        n: int = 1,
        cause: int = 5,
        open: bool = True,
        deadline: int = 10**9,
        codec: str = "int32",
        keep: float = 1.0,
        reward: float = 1.0,
        over: bool = False,
        staleness: int = 0,
        partial: bool = False,
        modules: Modules | None = None,
    ) -> None:
        a = Announcement(
            task="t", tenant="acme", round=n, open=open, cause=Ref("ledger-z", cause), model="m", model_args={}, data="d",
            data_args={}, training=Training(), sizes=SIZES, unit=-24, largest=65536.0, base=self.manifest,
            deadline=deadline, seed=1, codec=codec, keep=keep, reward=reward, over=over, staleness=staleness, partial=partial,
            modules=modules,
        )  # fmt: skip
        for p in range(P):
            self.memory.append(send(topic(NS, Z, "announcements"), a, "t", p))

    def answer(self, device: str, n: int = 1, slot: int = 0, refuse: int = 0, by: str = "") -> None:
        name, cause = by or self.name(device), Ref("ledger-z", 9)
        m = Refusal(name, "t", n, "full", refuse, cause) if refuse else Admission(name, "t", n, slot, 10**9, cause)
        self.memory.append(send(topic(NS, Z, "admissions"), m, name))

    def name(self, device: str, tenant: str = "acme") -> str:
        return pseudonym(device, Z, tenant, self.manner.salt)

    def said(self, what: str, task: str = "", zone: str = Z) -> list[Any]:
        t = topic(NS, zone, what, task)
        records = [r for p in range(t.partitions(P)) for r in self.memory.records(t.name, p)]
        out = [read(r.topic, r.value, r.headers) for r in sorted(records, key=lambda r: r.timestamp)]
        assert all(
            r.key == getattr(m, "device", r.key)
            for r, m in zip(sorted(records, key=lambda r: r.timestamp), out, strict=True)
        )
        return out

    def wishes(self) -> list[Registration]:
        return self.said("registrations")

    def deltas(self) -> list[DeltaBlock]:
        return self.said("deltas", "t")

    def run(self, ms: int = 1_000) -> None:
        self.memory.run(limit=ms)
        assert self.host.stopped is None


def edge(n: int = 1, manner: Manner = QUICK, **learner: Any) -> tuple[Edge, Learner]:
    what = Learner(**learner)
    return Edge([Device(f"phone-{i}", i) for i in range(n)], what, manner), what


def admitted(n: int = 1, codec: str = "int32", keep: float = 1.0, **learner: Any) -> tuple[Edge, Learner]:
    """All its devices admitted to round 1."""
    e, what = edge(n, **learner)
    e.announce(codec=codec, keep=keep)
    e.run()
    for i in range(n):
        e.answer(f"phone-{i}", slot=i)
    return e, what


# ------------------------------------------------------------------ registering


def test_every_free_device_registers_once_under_its_pseudonym():
    e, _ = edge(5)
    e.announce()
    e.run(PATIENCE - 500)
    assert {(w.device, w.task, w.round) for w in e.wishes()} == {(e.name(f"phone-{i}"), "t", 1) for i in range(5)}
    assert len(e.wishes()) == 5
    assert {c.device for c in e.said("checkins") if isinstance(c, CheckIn)} == {
        e.name(f"phone-{i}", "") for i in range(5)
    }


def test_a_fleet_that_cannot_train_a_task_does_not_register():
    e, _ = edge(3, unable="no such model here")
    e.announce()
    e.run(5_000)
    assert e.wishes() == []
    assert e.host.processor.objections == {"t": "no such model here"}  # type: ignore[attr-defined]


def test_a_closed_or_past_round_draws_nobody():
    e, _ = edge(2)
    e.announce(1, open=False)
    e.run()
    e.announce(2, cause=6, deadline=e.memory.now)
    e.run()
    assert e.wishes() == []
    e.announce(3, cause=7)
    e.run()
    assert [w.round for w in e.wishes()] == [3, 3]


@pytest.mark.parametrize("reward", [-1.0, 1e300, np.inf, np.nan])
def test_an_absurd_reward_is_a_dead_letter(reward):
    e, _ = edge()
    e.announce(reward=reward)
    e.run()
    assert e.wishes() == []
    assert len({(d.topic, d.offset) for d in e.said("dead-letters", zone=GLOBAL)}) == 1


def test_a_device_whose_data_cannot_be_read_stays_away():
    e, learner = edge(3)

    def size(a: Announcement, device: Device) -> tuple[int, int]:
        if device.number == 1:
            raise IndexError("no share 1")
        return 10, 2

    learner.size = size  # type: ignore[method-assign]
    e.announce()
    e.run()
    assert {w.device for w in e.wishes()} == {e.name("phone-0"), e.name("phone-2")}


def test_an_older_announcement_is_ignored():
    e, _ = edge()
    e.announce(2, cause=8)
    e.announce(1, cause=5)
    e.run()
    assert [w.round for w in e.wishes()] == [2]


def test_devices_asleep_by_day_do_not_register():
    day = 240_000
    nights = [Availability(f"phone-{i}", 0.0, day, seed=1) for i in range(6)]
    e = Edge([Device(f"phone-{i}", i, n) for i, n in enumerate(nights)], Learner())
    noon = day // 2
    assert not any(n.window(noon) for n in nights)
    e.memory.run(limit=noon)
    before = len(e.said("checkins"))
    e.announce()
    e.run(10_000)
    assert e.wishes() == []
    assert len(e.said("checkins")) == before
    evening = max(n.next_start(noon) for n in nights)
    e.memory.run(limit=evening + 500 - e.memory.now)
    assert {w.device for w in e.wishes()} == {e.name(f"phone-{i}") for i in range(6)}


def test_dawn_ends_what_a_device_is_in():
    nights = Availability("phone-0", 0.0, 240_000, seed=1)
    e = Edge([Device("phone-0", 0, nights)], Learner(), Manner(training=(5_000, 5_000), reaction=50))
    _, end = nights.night(0)
    e.memory.run(limit=end - 1_000)
    e.announce()
    e.run(300)
    e.answer("phone-0")
    e.run(100)
    assert e.devices[0].state == "training"
    e.run(10_000)
    assert e.devices[0].state == "asleep"
    assert e.deltas() == []


def test_a_refused_device_tries_again_when_it_may():
    e, _ = edge()
    e.announce()
    e.run(200)
    e.answer("phone-0", refuse=2_000)
    e.run(1_900)
    assert len(e.wishes()) == 1
    e.run(600)
    assert len(e.wishes()) == 2
    e.answer("phone-0", slot=3)
    e.run()
    assert {b.slot for b in e.deltas()} == {3}


def test_a_device_that_hears_nothing_asks_again():
    e, _ = edge()
    e.announce()
    e.run(PATIENCE + 1_000)
    assert len(e.wishes()) == 2


def test_an_answer_meant_for_another_is_no_business_of_mine():
    e, _ = edge()
    e.announce()
    e.run(500)
    e.answer("phone-0", by="somebody-else")
    e.answer("phone-0", n=2)
    for value in (b"\xff", None):
        e.memory.append(Send(topic(NS, Z, "admissions").name, value, "x", 0))
    e.run()
    assert e.devices[0].state == "registered"
    assert e.deltas() == []


# ------------------------------------------------------------------ training


def test_a_delta_is_what_training_gave_rounded_once():
    e, learner = admitted(3)
    e.run()
    assert sorted(learner.asked) == [(f"phone-{i}", 1, START.tobytes()) for i in range(3)]
    fleet: Any = e.host.processor
    for i in range(3):
        a = fleet.rounds["t"]
        done = Arithmetic().run(a, Device(f"phone-{i}", i), START)
        mine = sorted((b for b in e.deltas() if b.device == e.name(f"phone-{i}")), key=lambda b: b.block)
        assert [(b.block, b.slot, b.weight, b.samples, b.round) for b in mine] == [
            (n, i, done.samples, done.samples, 1) for n in range(2)
        ]
        for b, piece in zip(mine, slices(SIZES), strict=True):
            q, exponent = quantise(done.delta[piece].astype(np.float64) * done.samples, -24, 65536.0)
            assert (bytes(b.data), b.exponent) == (q.astype("<i4").tobytes(), exponent)
        assert mine[0].loss == round(done.loss_sum * 1e6)
    e.run(PATIENCE + 1_000)
    assert len(e.wishes()) == 3  # one round each


def values(b: DeltaBlock) -> np.ndarray:
    """What a block says, in model units."""
    return plain(b.codec, b.data, SIZES[b.block]) * 2.0 ** (b.exponent - 24)


@pytest.mark.parametrize("codec", CODECS)
def test_a_delta_is_written_as_the_task_says_and_the_same_each_time(codec):
    runs = []
    for _ in range(2):
        e, _ = admitted(3, codec=codec, keep=0.5)
        e.run()
        runs.append([(b.device, b.block, b.exponent, bytes(b.data)) for b in e.deltas()])
        assert {b.codec for b in e.deltas()} == {codec}
    assert len(runs[0]) == 6
    assert runs[0] == runs[1]


def test_devices_and_rounds_round_by_dice_of_their_own():
    """Two devices that learned the same do not send the same: else what they round would not even out."""
    e, learner = admitted(2, codec="int8")
    learner.run = lambda a, device, base: Done(np.linspace(-1, 1, 12), 3, 0.0)  # type: ignore[method-assign]
    e.run()
    one, two = ([bytes(b.data) for b in e.deltas() if b.device == e.name(f"phone-{i}")] for i in range(2))
    assert one != two


def test_what_top_k_leaves_out_is_added_the_next_time():
    e, learner = admitted(1, codec="top-k+int8", keep=0.3)
    learner.run = lambda a, device, base: Done(np.linspace(0.5, 1, 12) ** 9, 3, 0.0)  # type: ignore[method-assign]
    wanted, said = np.zeros(12), np.zeros(12)
    for n in range(1, 21):
        e.run()
        mine = [b for b in e.deltas() if b.round == n]
        assert [b.block for b in mine] == [0, 1]
        wanted += 3 * np.linspace(0.5, 1, 12) ** 9
        for b, piece in zip(mine, slices(SIZES), strict=True):
            assert np.count_nonzero(values(b)) <= 3
            said[piece] += values(b)
        left = np.concatenate(list(e.devices[0].left["t"].values()))
        np.testing.assert_allclose(said + left, wanted, rtol=1e-5)
        e.announce(n + 1, cause=10 * n, codec="top-k+int8", keep=0.3)
        e.run()
        e.answer("phone-0", n + 1)
    assert (said > 0).all()  # the small ones' turn came, too


def test_a_diverged_run_leaves_nothing_for_the_next_one():
    e, _ = admitted(1, codec="top-k+int8", keep=0.3, bad=np.nan)
    e.run()
    assert e.deltas() == []
    assert e.devices[0].left == {}


def test_a_codec_that_is_not_known_here_is_objected_to():
    e, learner = edge()
    e.announce(codec="int4")
    e.run()
    assert e.wishes() == []
    (said,) = [m for m in e.said("metrics", zone=GLOBAL) if isinstance(m, Objection)]
    assert said.reason == "codec int4 is not known here: install the version that knows it"
    assert learner.asked == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_a_diverged_run_sends_nothing(bad):
    e, learner = admitted(2, bad=bad)
    e.run(3_000)
    assert len(learner.asked) == 2
    assert e.deltas() == []
    assert [d.state for d in e.devices] == ["idle", "idle"]
    assert len(e.wishes()) == 2  # and does not ask for the same round again


def test_a_round_that_closes_meanwhile_is_left():
    e, learner = admitted(2)
    e.run(20)
    e.announce(1, cause=20, open=False)
    e.run()
    assert learner.asked == []
    assert e.deltas() == []
    e.announce(2, cause=21)
    e.run(500)
    assert [w.round for w in e.wishes()] == [1, 1, 2, 2]


def test_a_model_is_fetched_once_for_all():
    e, learner = admitted(6)
    asked: list[Any] = []
    find = e.memory._find
    e.memory._find = lambda t, p: asked.append(p.key) or find(t, p)  # type: ignore[method-assign,func-returns-value]
    e.run()
    assert len(learner.asked) == 6
    assert sorted(asked) == ["m/0", "m/1"]


def test_a_lost_model_is_objected_to_and_stops_nothing_else():
    e, _ = edge()
    e.manifest = Manifest(e.manifest.topic, 0, (e.manifest.blocks[0], Place(0, 0, "gone", 0)))
    e.announce()
    e.run()
    e.answer("phone-0")
    e.memory.run(limit=1_000)
    assert e.host.stopped is None
    assert "gone" in e.host.processor.objections["t"]
    assert [d.state for d in e.host.processor.devices if d.state == TRAINING] == []
    assert e.deltas() == []


def test_a_job_whose_older_model_is_lost_is_given_up_in_words_and_not_fetched_for_ever():
    """Its round is not the one that is announced by now, and would have counted as a stale one."""
    e, _ = edge()
    asked, find, good = [], e.memory._find, e.manifest
    e.memory._find = lambda t, p: asked.append(p.key) or find(t, p)  # type: ignore[method-assign,func-returns-value]
    e.manifest = Manifest(good.topic, 0, (Place(0, 0, "gone", 0), good.blocks[1]))
    e.announce(staleness=2)
    e.run()
    e.answer("phone-0")
    e.manifest = good
    e.announce(2, cause=6, staleness=2)
    e.run(4_000)
    assert asked.count("gone") == 1
    said = [m for m in e.said("metrics", zone=GLOBAL) if isinstance(m, Objection)]
    assert [(o.task, "(gone)" in o.reason) for o in said] == [("t", True)]
    assert [w.round for w in e.wishes()] == [1, 2], "it goes on with the round that can be done"


def test_receipts_and_reports_are_counted():
    e, _ = admitted(2)
    for outcome in ("counted", "counted", "late"):
        e.memory.append(send(topic(NS, Z, "receipts"), Receipt(e.name("phone-0"), "t", 1, 0, outcome, (0,), (4,)), "x"))
    e.memory.append(send(topic(NS, Z, "receipts"), Receipt("a stranger", "t", 1, 0, "counted", (0,), (4,)), "x"))
    e.run()
    fleet: Any = e.host.processor
    assert fleet.outcomes == {"counted": 2, "late": 1}
    last = [m for m in e.said("metrics", zone=GLOBAL) if isinstance(m, FleetReport)][-1]
    assert (last.blocks, last.bytes) == (4, fleet.outboxes[Z].sent_bytes)
    assert last.states == {"asleep": 0, "idle": 2, "asking": 0, "registered": 0, "training": 0}


# ------------------------------------------------------------------ in a plane


def test_resent_deltas_are_counted_once():
    def model(resend: float) -> tuple[bytes, int, int]:
        plane = Plane(Memory(), manner=Manner(training=(50, 300), reaction=50, resend=resend))
        plane.submit(spec(deadline_s=100, lease_s=50))
        assert plane.memory.run(lambda: plane.ended("toy"), 100_000)
        plane.memory.run(limit=2_000)
        commits = [f for z in plane.zones for f in plane.facts(z) if isinstance(f, Committed)]
        counted, again = (sum(getattr(f.counts, n) for f in commits) for n in ("counted", "duplicate"))
        assert all(f.devices == 6 for z in plane.zones for f in plane.facts(z) if isinstance(f, Finalised))
        return plane.model("toy").tobytes(), counted, again

    once, twice = model(0.0), model(1.0)
    assert once[0] == twice[0]
    assert once[1:] == (2 * 6 * 2 * 6, 0)
    assert twice[1] == once[1]
    assert twice[2] > 0.8 * once[1]  # what came after the last round's end nobody judged


def test_what_an_edge_remembers_of_its_devices_times_does_not_grow():
    """However often they are woken: one that is always free wants to be woken next at the end of time."""
    plane = Plane(Memory(seed=3))
    plane.submit(spec(epochs=2, rounds=20, deadline_s=100, lease_s=50))
    assert plane.memory.run(lambda: plane.ended("toy"), 4_000_000)
    plane.memory.run(limit=200_000)
    assert len(plane.hosts["fleet-east"].processor.alarms) <= 3 * plane.devices


BY_TASK = ("jobs", "taken", "retry", "quality", "left", "sizes")


def test_a_device_keeps_nothing_of_tasks_that_are_over():
    plane = Plane(Memory(seed=3))
    for n in range(3):
        plane.submit(replace(spec(f"toy-{n}", demand=4, deadline_s=100, lease_s=50), upload=Upload("top-k+int8")))
    fleets = [plane.hosts[f"fleet-{z}"].processor for z in plane.zones]
    assert plane.memory.run(lambda: any(d.left and d.retry for f in fleets for d in f.devices), 100_000)
    assert plane.memory.run(lambda: all(plane.ended(f"toy-{n}") for n in range(3)), 400_000)
    plane.memory.run(limit=10_000)
    for fleet in fleets:
        assert {(d.id, what) for d in fleet.devices for what in BY_TASK if getattr(d, what)} == set()
        assert [(b.rounds, b.heard, b.objections) for b in fleet.boards.values()] == [({}, {}, {})]


def test_the_last_word_of_a_task_is_said_though_its_leader_dies_before_it_can():
    plane = Plane(Memory(seed=3))
    plane.submit(spec(epochs=1, rounds=1, deadline_s=100, lease_s=50))
    leader = plane.hosts["zone-east"]
    assert plane.memory.run(lambda: any(isinstance(f, Retired) for f in plane.facts("east")), 100_000)
    assert "toy" not in leader.processor.zone.over, "it knows already"
    leader.crash()
    leader.restart()
    plane.memory.run(limit=20_000)
    assert plane.hosts["fleet-east"].processor.rounds == {}


def test_a_device_of_two_zones_keeps_what_it_knows_of_a_task_until_it_is_over_in_both():
    e, _ = edge()
    fleet, (d,) = e.host.processor, e.devices
    fleet.boards["y"] = Board("y")
    e.announce()
    e.run()
    fleet.boards["y"].rounds["t"] = fleet.boards[Z].rounds["t"]
    e.announce(cause=6, open=False, over=True)
    e.run()
    assert ("t" in fleet.boards[Z].rounds, d.sizes) == (False, {"t": (10, 2)})
    del fleet.boards["y"].rounds["t"]
    e.announce(cause=7, open=False, over=True)
    e.run()
    assert d.sizes == {}


# ------------------------------------------------------------------ credits


def credit(e: Edge, rate: int) -> None:
    e.memory.append(send(topic(NS, Z, "credits"), Credits("s", Z, 0, rate, {}, rate, ""), key=Z))


def waiting_for_credit() -> Edge:
    """Two devices that are done, at an edge that may send nothing."""
    e, _ = admitted(2)
    credit(e, 0)
    e.run()
    assert [d.state for d in e.devices] == ["idle", "idle"]
    assert e.deltas() == []
    return e


def report(e: Edge) -> FleetReport:
    return [m for m in e.said("metrics", zone=GLOBAL) if isinstance(m, FleetReport)][-1]


def test_deltas_wait_at_the_edge_for_credit_and_go_when_there_is_some():
    e = waiting_for_credit()
    assert (report(e).blocks, report(e).left) == (0, 0)
    assert report(e).waiting > 4 * 12 * 2
    credit(e, 10**6)
    e.run()
    assert len(e.deltas()) == 4
    assert (report(e).blocks, report(e).waiting) == (4, 0)


def test_what_waits_in_a_zone_that_its_devices_visit_is_said_apart():
    e = waiting_for_credit()
    fleet, waits = e.host.processor, report(e).waiting
    fleet.zone, fleet.outboxes["home"], fleet.boards["home"] = "home", Outbox("fleet"), Board("home")
    e.run()
    said = report(e)
    assert (said.zone, said.waiting, said.elsewhere) == ("home", 0, {Z: waits})


def test_deltas_of_a_round_that_closed_meanwhile_are_left():
    e = waiting_for_credit()
    e.announce(1, cause=20, open=False)
    e.run()
    credit(e, 10**6)
    e.run()
    assert e.deltas() == []
    assert (report(e).blocks, report(e).waiting, report(e).left) == (0, 0, 4)


def test_deltas_of_an_earlier_round_go_where_they_may_still_count():
    e, _ = edge(2)
    e.announce(staleness=2)
    e.run()
    for i in range(2):
        e.answer(f"phone-{i}", slot=i)
    credit(e, 0)
    e.run()
    e.announce(3, cause=20, staleness=2)
    credit(e, 10**6)
    e.run()
    assert {b.round for b in e.deltas()} == {1}
    assert len(e.deltas()) == 4
