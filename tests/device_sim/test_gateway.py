"""A gateway's state machine: who hears what, under which names things are said, when they are done, and what it refuses."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from device_sim import gateway
from device_sim.box import ASKS_EVERY, QUIET
from device_sim.gateway import MOST_ASKED, MOST_WAITING, MOST_WORDS, PATIENCE, Gateway
from device_sim.link import ME, MOST_BYTES, Ask, Asked, Poll, Reply, Say, Status
from device_sim.pseudonym import pseudonym
from schemas.blocks import DeltaBlock
from schemas.messages import CheckIn, Credits, FleetReport, Receipt, Registration
from schemas.modules import Modules, Profile, Submodel
from schemas.sharing import PLAN, SharingPlan
from schemas.topics import GLOBAL, read, task_topics, topic, zone_topics
from schemas.wire import Message, encode
from streams.memory import Host, Memory
from streams.processor import Effect, Input, Membership, Send, Tick, send
from tests.device_sim.test_fleet import Edge, P, Z
from tests.plane import NS, START

SALT = b"salt"
CHOICE = ((0, 2), (1, 2))
MODULAR = {"partial": True, "modules": Modules()}
PROFILE = Profile(ME, "t", 1, ((512, 256, 256), (64, 900, 60)), batch=10)


class Link:
    """The gateway with the questions of its devices."""

    membership: Membership | None = None

    def __init__(self, gateway: Gateway):
        self.gateway, self.name, self.tick = gateway, gateway.name, gateway.tick
        self.asks: deque[tuple[int, str, Asked]] = deque()
        self.replies: dict[int, Reply] = {}

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.gateway.start(now)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Tick):
            while self.asks:
                yield from self.gateway.ask(*self.asks.popleft(), now)
        yield from self.gateway.handle(event, now)
        for reply in self.gateway.take():
            assert reply.number not in self.replies, "answered twice"
            self.replies[reply.number] = reply


class World(Edge):
    """A gateway alone: the test speaks for the plane and for the devices."""

    def __init__(self, **more: Any) -> None:
        self.memory = Memory()
        for t in [*zone_topics(NS, GLOBAL), *zone_topics(NS, Z), *task_topics(NS, Z, "t")]:
            self.memory.create(t.name, t.partitions(P))
        self.manifest = self.model()
        self.asked = 0
        self.link: Link
        self.host: Host = self.memory.host(lambda life: self._made(life, more))

    def _made(self, life: str, more: Any) -> Link:
        self.link = Link(Gateway(NS, Z, "gateway", life, SALT, **more))
        return self.link

    def ask(self, asked: Asked, device: str = "a") -> int:
        self.asked += 1
        self.link.asks.append((self.asked, device, asked))
        return self.asked

    def say(self, m: Message, device: str = "a") -> int:
        return self.ask(Say(encode(m)), device)

    def got(self, number: int, ms: int = 60) -> Reply:
        self.run(ms)
        return self.link.replies[number]

    def refused(self, number: int, status: Status, words: str) -> None:
        reply = self.got(number)
        assert reply.status is status
        assert words in reply.words

    def poll(self, after: str = "", wait: int = 0, device: str = "a") -> tuple[str, list[Message]]:
        """What a device finds: its new cursor, and the messages."""
        return self.letters(self.ask(Poll(after, self.memory.now + wait), device))

    def letters(self, number: int) -> tuple[str, list[Message]]:
        reply = self.got(number)
        assert reply.status is Status.DONE
        found = msgspec.msgpack.decode(reply.body)
        return found["cursor"], [read(f"{NS}.{Z}.{x['topic']}", encode(x["message"])) for x in found["messages"]]

    def delta(self, block: int = 0, device: str = "a", n: int = 1, size: int = 8) -> DeltaBlock:
        return DeltaBlock("t", n, 0, ME, block, "int32", 0, 1, 1, 0, memoryview(bytes(size)))


@pytest.fixture
def world() -> World:
    w = World()
    w.announce()
    w.run(200)
    return w


# ------------------------------------------------------------------ what devices hear


def test_what_is_announced_goes_to_all_once_and_after_a_restart_again(world):
    cursor, (a,) = world.poll()
    assert (a.task, a.round) == ("t", 1)
    assert world.poll(cursor)[1] == []
    assert world.poll(device="b")[1] == [a]
    world.announce(cause=5)  # said again, as selectors do
    assert world.poll(cursor)[1] == []
    plan = SharingPlan(Z, world.memory.now, "fifo")
    world.memory.append(send(topic(NS, Z, "announcements"), plan, PLAN, 0))
    world.announce(2, cause=7)
    world.run(50)
    later, new = world.poll(cursor)
    assert [getattr(m, "round", "plan") for m in new] == ["plan", 2]
    assert [getattr(m, "round", "plan") for m in world.poll()[1]] == ["plan", 2]  # the last word on each
    world.host.crash()
    world.host.restart()
    assert not world.link.gateway.ready
    assert [r.status for r in asked_too_early(world.link.gateway)] == [Status.LATER]
    world.run(200)
    assert [getattr(m, "round", "plan") for m in world.poll(later)[1]] == ["plan", 2]  # the cursor is of another life


def test_a_tombstone_is_nothing_that_devices_hear_of(world):
    """It may be the last record there is: with it all that is announced is read."""
    cursor, (a,) = world.poll()
    world.memory.append(Send(topic(NS, Z, "announcements").name, None, "t", 0))
    world.run(50)
    assert world.poll(cursor)[1] == []
    assert world.poll()[1] == [a]
    world.host.crash()
    world.host.restart()
    world.run(200)
    assert world.poll()[1] == [a]
    assert world.memory.records(topic(NS, GLOBAL, "dead-letters").name) == []


def asked_too_early(gateway: Gateway) -> list[Reply]:
    assert list(gateway.ask(999, "a", Poll("", 0), 0)) == []
    return gateway.take()


def test_who_hear_the_same_are_told_the_same_and_who_hear_more_are_told_more(world):
    """Letters without mail are made once for all who ask at one time: nobody may get another's."""
    world.say(Registration(ME, "t", 1), "c")
    world.memory.append(send(topic(NS, Z, "announcements"), SharingPlan(Z, world.memory.now, "fifo"), PLAN, 0))
    world.run(50)
    cursor, (_, plan) = world.poll(device="b")
    world.announce(2, cause=7)
    world.answer("c", by=pseudonym("c", Z, "acme", SALT))
    world.run(50)
    asked = {d: world.ask(Poll(after, 0), d) for d, after in (("a", ""), ("b", cursor), ("c", ""), ("d", ""))}
    got = {d: world.letters(n) for d, n in asked.items()}
    assert got["a"] == got["d"]
    assert got["a"][1] == [plan, *got["b"][1]]
    assert [m.round for m in got["b"][1]] == [2]
    assert [type(m).__name__ for m in got["c"][1]] == ["SharingPlan", "Announcement", "Admission"]


def test_a_question_for_messages_waits_and_a_newer_one_takes_its_place(world):
    cursor, _ = world.poll()
    first = world.ask(Poll(cursor, world.memory.now + 1_000))
    world.run(100)
    assert first not in world.link.replies
    second = world.ask(Poll(cursor, world.memory.now + 1_000))
    world.run(100)
    assert world.letters(first)[1] == []
    assert second not in world.link.replies
    world.announce(2, cause=7)
    assert [m.round for m in world.letters(second)[1]] == [2]
    third = world.ask(Poll("nonsense", world.memory.now + 100))
    assert [m.round for m in world.letters(third)[1]] == [2]
    fourth = world.ask(Poll(world.poll()[0], world.memory.now + 500))
    world.run(400)
    assert fourth not in world.link.replies
    world.run(100)
    assert world.letters(fourth)[1] == []


def test_answers_go_to_the_device_that_asked_and_to_no_other(world):
    for device in ("a", "b"):
        assert world.got(world.say(Registration(ME, "t", 1), device)).status is Status.DONE
    a, b = (pseudonym(x, Z, "acme", SALT) for x in ("a", "b"))
    assert [m.device for m in world.wishes()] == [a, b]
    cursors = {x: world.poll(device=x)[0] for x in ("a", "b")}
    world.answer("a", by=a, slot=3)
    world.run(50)
    world.memory.append(send(topic(NS, Z, "submodels"), Submodel(a, "t", 1, 0, 0, CHOICE), a))
    world.run(50)
    world.memory.append(send(topic(NS, Z, "receipts"), Receipt(a, "t", 1, 3, "counted", (0,), (7,)), a))
    world.run(50)
    cursor, (admission, submodel, receipt) = world.poll(cursors["a"])
    assert (admission.device, admission.slot) == (ME, 3)
    assert submodel == Submodel(ME, "t", 1, 0, 0, CHOICE)
    assert receipt == Receipt(ME, "t", 1, 3, "counted", (0,), (7,))
    assert world.poll(cursors["b"], device="b")[1] == []
    assert len(world.poll(cursors["a"])[1]) == 3  # it did not say that it has them
    assert world.poll(cursor)[1] == []
    assert world.poll(cursors["a"])[1] == []


# ------------------------------------------------------------------ what they say


def test_kafka_sees_a_name_of_its_own_for_each_owner_and_never_who_it_is(world):
    device = "imei-356938035643809"
    for m in (CheckIn(device, {"cpu": 2.0}), Registration(device, "t", 1), replace(world.delta(), device=device)):
        assert world.got(world.say(m, device)).status is Status.DONE
    (here,), (wish,), (block,) = world.said("checkins"), world.wishes(), world.deltas()
    assert here == CheckIn(pseudonym(device, Z, "", SALT), {"cpu": 2.0})
    assert wish.device == block.device == pseudonym(device, Z, "acme", SALT) != here.device
    for logs in world.memory.topics.values():
        assert not any(b"imei" in (r.value or b"") + (r.key or "").encode() for log in logs for r in log)


def test_a_device_asks_for_its_modules_under_its_name_of_the_task_and_not_too_often(world):
    world.announce(2, cause=8, **MODULAR)
    world.run(50)
    assert world.got(world.say(PROFILE)).status is Status.DONE
    (asked,) = world.said("profiles")
    name = pseudonym("a", Z, "acme", SALT)
    assert asked == replace(PROFILE, device=name)
    world.run(1_000)
    assert [r for r in world.said("metrics", zone=GLOBAL) if isinstance(r, FleetReport)][-1].states["asking"] == 1
    world.refused(world.say(replace(PROFILE, asked=2)), Status.BUSY, "just now: wait for the answer")
    assert world.got(world.say(PROFILE, "b")).status is Status.DONE  # who asks too often holds up nobody
    world.memory.append(send(topic(NS, Z, "submodels"), Submodel(name, "t", 1, 0, 0, CHOICE), name))
    world.run(ASKS_EVERY)
    assert world.link.gateway.boxes["a"].state(world.memory.now) == "idle"
    assert world.got(world.say(replace(PROFILE, asked=2))).status is Status.DONE
    assert [m.asked for m in world.said("profiles")] == [1, 1, 2]


def test_a_delta_is_done_when_it_is_in_the_log_and_not_before(world):
    world.memory.network = lambda host, sent: [500]
    number = world.say(world.delta())
    world.run(400)
    assert number not in world.link.replies
    again = world.say(world.delta())  # it lost patience
    assert world.got(number, 300).status is world.got(again).status is Status.DONE
    assert len(world.deltas()) == 1
    assert world.got(world.say(world.delta()), 700).status is Status.DONE  # that it was there is the ledger's affair
    assert len(world.deltas()) == 2


def test_what_a_dead_gateway_had_not_said_is_done_is_said_again(world):
    world.memory.network = lambda host, sent: []
    number = world.say(world.delta())
    world.run(200)
    assert number not in world.link.replies
    world.host.crash()
    world.memory.network = lambda host, sent: [1]
    world.host.restart()
    world.run(200)
    assert world.got(world.say(world.delta())).status is Status.DONE
    assert len(world.deltas()) == 1


def test_credits_hold_a_delta_back_and_so_its_answer(world):
    credits = Credits("s", Z, world.memory.now, 0, {}, 0, "none")
    world.memory.append(send(topic(NS, Z, "credits"), credits, Z))
    world.run(50)
    number = world.say(world.delta())
    world.run(2_000)
    assert number not in world.link.replies
    assert world.link.gateway.outbox.waiting > 0
    world.run(6_000)  # nobody repeats them
    assert world.got(number).status is Status.DONE


def test_a_question_that_takes_too_long_is_to_be_asked_again(world):
    world.memory.network = lambda host, sent: [PATIENCE + 5_000]
    number = world.say(world.delta())
    world.run(PATIENCE + 100)
    assert world.link.replies[number].status is Status.LATER
    assert "ask again, the same" in world.link.replies[number].words
    world.run(6_000)
    assert world.link.gateway.boxes["a"].asked == world.link.gateway.boxes["a"].waiting == 0


# ------------------------------------------------------------------ models


def test_a_block_is_read_from_the_log_once_for_all_devices(world):
    numbers = [world.ask(Ask("t", 1, i), d) for d in ("a", "b") for i in (0, 1)]
    got = [bytes(world.got(n).body) for n in numbers]
    assert got[:2] == got[2:]
    assert b"".join(got[:2]) == START.tobytes()
    fetched = world.link.gateway.edge.fetched
    assert fetched < 2 * START.nbytes + 400
    assert bytes(world.got(world.ask(Ask("t", 1, 1), "c")).body) == got[1]
    assert world.link.gateway.edge.fetched == fetched


def test_of_a_model_whose_parts_are_trained_only_what_is_asked_for_is_read(world):
    world.announce(2, cause=8, partial=True)
    world.run(50)
    assert bytes(world.got(world.ask(Ask("t", 2, 1))).body) == START[7:].tobytes()
    assert world.link.gateway.edge.fetched < START[7:].nbytes + 200
    assert world.link.gateway.edge.handed == START[7:].nbytes


def test_what_is_nowhere_is_gone(world):
    bad = replace(world.manifest, blocks=tuple(replace_key(p) for p in world.manifest.blocks))
    world.manifest = bad
    for n, partial in ((2, False), (3, True)):
        world.announce(n, cause=4 * n, partial=partial)
        world.run(50)
        world.refused(world.ask(Ask("t", n, 0)), Status.GONE, "block 0")
    world.refused(world.ask(Ask("t", 1, 0)), Status.UNKNOWN, "round 1 of t is not open")
    world.refused(world.ask(Ask("t", 3, 9)), Status.BAD, "blocks 0 to 1")


def replace_key(place: Any) -> Any:
    return type(place)(place.partition, place.offset, f"{place.key}/no", place.checksum)


# ------------------------------------------------------------------ what it refuses


def test_a_profile_for_larger_batches_than_the_task_s_is_refused(world):
    """Who derives keeps what it knows by size of batch: no device is to choose among many."""
    world.announce(2, cause=8, **MODULAR)
    world.run(50)
    world.refused(world.say(replace(PROFILE, batch=11)), Status.BAD, "batches of 10 at most, not 11")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", Status.BAD, "empty"),
        (b"\xff\x00 garbage", Status.BAD, "no message that devices send"),
        (b"x" * (MOST_BYTES + 1), Status.BAD, "too many"),
        (encode(FleetReport("me", Z, 0, {}, 0, 0)), Status.BAD, "Invalid value 'fleet-report'"),
        (encode(CheckIn(ME, {f"n{i}": 1.0 for i in range(2_000)})), Status.LARGE, str(MOST_WORDS)),
        (encode(Registration(ME, "moon", 1)), Status.UNKNOWN, "no task moon is announced in zone z"),
        (encode(replace(PROFILE, task="moon")), Status.UNKNOWN, "no task moon is announced in zone z"),
        (encode(PROFILE), Status.BAD, "task t is not modular"),
        (encode(replace(PROFILE, importance=((2_000,),))), Status.BAD, "<= 1024"),
        (encode(replace(PROFILE, importance=((1_000,) * 9_000,))), Status.LARGE, str(MOST_WORDS)),
        (encode({"type": "registration", "device": ME, "task": "t", "round": -1}), Status.BAD, "round"),
        (encode(DeltaBlock("t", 7, 0, ME, 0, "int32", 0, 1, 1, 0, memoryview(b""))), Status.LATE, "leave it"),
        (encode(DeltaBlock("t", 1, 0, ME, 5, "int32", 0, 1, 1, 0, memoryview(b""))), Status.BAD, "no block 5"),
    ],
)
def test_garbage_is_refused_in_words_and_nobody_else_feels_it(world, body, status, words):
    bad = world.ask(Say(body), "bad")
    good = world.say(world.delta(), "good")
    world.refused(bad, status, words)
    assert world.got(good).status is Status.DONE
    assert len(world.deltas()) == 1
    assert world.said("dead-letters", zone=GLOBAL) == []


def test_one_device_asks_only_so_much_at_once_and_the_others_go_on(world):
    world.memory.network = lambda host, sent: [2_000]
    numbers = [world.say(CheckIn(ME), "greedy") for _ in range(MOST_ASKED + 1)]
    other = world.say(CheckIn(ME), "other")
    world.refused(numbers[-1], Status.BUSY, "one after the other")
    assert all(world.got(n, 2_100).status is Status.DONE for n in [*numbers[:-1], other])
    world.link.gateway.boxes["greedy"].waiting = MOST_WAITING
    world.refused(world.say(world.delta(), "greedy"), Status.BUSY, "wait to be in the log")


def test_all_together_have_only_so_much_waiting_and_the_last_of_it_is_for_who_has_nothing_there(world, monkeypatch):
    monkeypatch.setattr(gateway, "MOST_HELD", 400)
    world.memory.network = lambda host, sent: [2_000]
    first = world.say(world.delta(0, "a", size=150), "a")
    world.refused(world.say(world.delta(1, "a", size=100), "a"), Status.LATER, "150 bytes of all devices wait")
    second = world.say(world.delta(0, "b", size=150), "b")
    world.refused(world.say(world.delta(0, "c", size=150), "c"), Status.LATER, "300 bytes of all devices wait")
    assert all(world.got(n, 2_100).status is Status.DONE for n in (first, second))
    assert world.got(world.say(world.delta(0, "c", size=150), "c"), 2_100).status is Status.DONE
    assert world.link.gateway._held == 0


def test_a_log_that_takes_nothing_costs_no_device_its_delta(world):
    """As when an operator forgot an ACL: it is to be sent again, not thrown away as if it were wrong."""
    for m, what in ((world.delta(), "deltas.t"), (CheckIn(ME), "checkins")):
        logs = world.memory.topics.pop(f"{NS}.{Z}.{what}")
        world.refused(world.say(m), Status.LATER, "not in the log: ")
        world.memory.topics[f"{NS}.{Z}.{what}"] = logs
        assert world.got(world.say(m)).status is Status.DONE


def test_a_round_that_is_over_before_its_delta_could_go_is_late(world):
    world.memory.append(send(topic(NS, Z, "credits"), Credits("s", Z, world.memory.now, 0, {}, 0, "none"), Z))
    world.run(50)
    number = world.say(world.delta())
    world.run(100)
    world.announce(1, cause=6, open=False)
    world.run(7_000)
    assert world.link.replies[number].status is Status.LATE
    assert world.deltas() == []


def test_silent_devices_sleep_and_are_forgotten(world, monkeypatch):
    monkeypatch.setattr(gateway, "FORGET", QUIET + 5_000)
    world.got(world.say(Registration(ME, "t", 1)))

    def states() -> dict[str, int]:
        return [m for m in world.said("metrics", zone=GLOBAL) if isinstance(m, FleetReport)][-1].states

    world.run(1_100)
    assert states()["registered"] == 1
    world.answer("a", by=pseudonym("a", Z, "acme", SALT))
    world.run(1_100)
    assert states()["training"] == 1
    world.run(QUIET)
    assert states()["asleep"] == 1
    world.memory.run(limit=6_000)
    assert sum(states().values()) == 0
    assert world.link.gateway.boxes == world.link.gateway._devices == {}


def test_garbage_in_the_log_is_a_dead_letter(world):
    world.memory.append(Send(topic(NS, Z, "admissions").name, b"\xff", "x"))
    world.run(100)
    assert len(world.said("dead-letters", zone=GLOBAL)) == 1
