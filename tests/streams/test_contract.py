"""What `streams/processor.py` promises, in both worlds."""

from collections.abc import Iterator
from typing import Any

import pytest

from schemas.blocks import Place, SumBlock
from schemas.facts import LEADERSHIP, Checkpoint, Claimed, Founded, Rules
from schemas.partitioner import shard_of
from schemas.wire import checksum, encode
from streams.ledger import Zone, snapshot
from streams.processor import (
    Answer,
    CreateTopics,
    Cut,
    Ends,
    Fetch,
    Follow,
    Membership,
    Pause,
    Record,
    Resume,
    Send,
    Starts,
    Stop,
    Tick,
    Unfollow,
    send,
)
from streams.queries import Cluster
from streams.reading import Reading, pieces
from tests.streams.worlds import SESSION, KafkaWorld, MemoryWorld, Probe, make_topics, named


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    world = MemoryWorld() if request.param == "memory" else KafkaWorld(request.getfixturevalue("broker"))
    yield world
    world.end()


def numbers(topic: str, upto: int, start: int = 0, partition: int = 0) -> list[Send]:
    return [Send(topic, b"%d" % i, partition=partition) for i in range(start, upto)]


def values(probe: Probe) -> list[int]:
    return [int(r.value or b"") for r in probe.records]


# ------------------------------------------------------------------ appending and reading


def test_order_within_a_partition(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 2))
    reader = Probe(first=(Follow(t.name, 0, 0), Follow(t.name, 1, 0)))
    world.host(reader)
    sends = [s for i in range(500) for s in (Send(t.name, b"%d" % i, partition=i % 2),)]
    world.host(Probe(first=tuple(sends)))
    world.run_until(lambda: len(reader.records) >= 500)
    for p in (0, 1):
        assert reader.offsets(p) == list(range(250))
        assert [int(r.value or b"") for r in reader.records if r.partition == p] == list(range(p, 500, 2))


def test_keys_decide_partitions_as_murmur2_does(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 8))
    keys = [f"device-{i}" for i in range(60)] + ["ü-€", "a", "ab", "abc"]
    headers = (("content-type", b"x"), ("cause", b"\xff"))
    reader = Probe(first=tuple(Follow(t.name, p, 0) for p in range(8)))
    world.host(reader)
    world.host(Probe(first=tuple(Send(t.name, k.encode(), key=k, headers=headers) for k in keys)))
    world.run_until(lambda: len(reader.records) >= len(keys))
    assert {r.key: r.partition for r in reader.records} == {k: shard_of(k, 8) for k in keys}
    assert all(r.value == (r.key or "").encode() and r.headers == headers and r.timestamp >= 0 for r in reader.records)


def test_a_tagged_send_is_answered_with_its_true_place(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 4))
    reader = Probe(first=tuple(Follow(t.name, p, 0) for p in range(4)))
    world.host(reader)
    sender = Probe(first=tuple(Send(t.name, b"%d" % i, key=f"k{i}", tag=i) for i in range(40)))
    world.host(sender)
    world.run_until(lambda: len(reader.records) >= 40 and all(sender.answer(i) for i in range(40)))
    places = {int(r.value or b""): (r.partition, r.offset) for r in reader.records}
    assert {i: sender.answer(i).value for i in range(40)} == places
    assert not any(sender.answer(i).error for i in range(40))


@pytest.mark.parametrize("n", [1, 20])  # one by one, and together in a batch
def test_a_record_without_a_value_is_a_tombstone(world: Any, n: int) -> None:
    t = named(world, "announcements")
    make_topics(world, (t, 1))
    reader = Probe(first=(Follow(t.name, 0, 0),))
    world.host(reader)
    keys = [f"k{i}" for i in range(n)]
    sender = Probe(first=tuple(Send(t.name, v, k, 0, k) for v in (b"kept", None) for k in keys))
    world.host(sender)
    world.run_until(lambda: len(reader.records) >= 2 * n and all(sender.answer(k) for k in keys))
    assert [(r.key, r.value, r.tombstone) for r in reader.records] == [
        *((k, b"kept", False) for k in keys),
        *((k, None, True) for k in keys),
    ]
    assert not any(sender.answer(k).error for k in keys)


def test_large_blocks_come_whole_and_in_order(world: Any) -> None:
    t = named(world, "partials")
    make_topics(world, (t, 1))
    blocks = [encode(SumBlock(task="t", round=0, block=i, data=memoryview(bytes([i]) * 512 * 1024))) for i in range(12)]
    reader = Probe(first=(Follow(t.name, 0, 0),))
    world.host(reader)
    world.host(Probe(first=tuple(Send(t.name, b, key=f"b{i}", partition=0) for i, b in enumerate(blocks))))
    world.run_until(lambda: len(reader.records) >= 12)
    assert [checksum(r.value or b"") for r in reader.records] == [checksum(b) for b in blocks]


def test_resume_from_an_offset_and_seek_back(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 1))
    world.host(Probe(first=tuple(numbers(t.name, 300))))
    all_there = Probe(first=(Follow(t.name, 0, 0),))
    world.host(all_there)
    world.run_until(lambda: len(all_there.offsets()) == 300)  # an offset past the end would be a loss

    def back(event: Any) -> list[Follow]:
        """At record 250, once, back to 100: whatever was read ahead is stale then."""
        again = getattr(event, "offset", None) == 250 and reader.offsets().count(250) == 1
        return [Follow(t.name, 0, 100)] if again else []

    reader = Probe(first=(Follow(t.name, 0, 200),), react=back)
    world.host(reader)
    world.run_until(lambda: bool(reader.offsets()) and reader.offsets()[-1] == 299)
    assert reader.offsets() == [*range(200, 251), *range(100, 300)]


def test_an_offset_past_the_end_stops(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 1))
    world.host(Probe(first=tuple(numbers(t.name, 3))))
    there = Probe(first=(Follow(t.name, 0, 0),))
    world.host(there)
    world.run_until(lambda: len(there.offsets()) == 3)
    lost = world.host(Probe(first=(Follow(t.name, 0, 7),)))
    world.run_until(lambda: world.stopped(lost) is not None)
    stop = world.stopped(lost)
    assert not stop.ok
    assert "records are lost" in stop.reason
    assert t.name in stop.reason


def test_seek_ahead_and_unfollow(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 2))
    world.host(Probe(first=(*numbers(t.name, 100), *numbers(t.name, 100, partition=1))))

    def react(event: Any) -> list[Any]:
        match getattr(event, "partition", None), getattr(event, "offset", None):
            case 0, 10:
                return [Follow(t.name, 0, 50)]
            case 1, 20:
                return [Unfollow(t.name, 1)]
        return []

    reader = Probe(first=(Follow(t.name, 0, 0), Follow(t.name, 1, 0)), react=react)
    world.host(reader)
    world.run_until(lambda: 99 in reader.offsets(0) and 20 in reader.offsets(1))
    reader.do(Follow(t.name, 1, 90))
    world.run_until(lambda: 99 in reader.offsets(1))
    assert reader.offsets(0) == [*range(11), *range(50, 100)]
    assert reader.offsets(1) == [*range(21), *range(90, 100)]


def test_pause_and_resume_lose_nothing(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 2))
    reader = Probe(
        first=(Follow(t.name, 0, 0), Follow(t.name, 1, 0)),
        react=lambda e: [Pause(t.name, 0)] if getattr(e, "partition", 1) == 0 and e.offset in (7, 30) else [],
    )
    world.host(reader)
    sender = Probe(first=(*numbers(t.name, 100), *numbers(t.name, 100, partition=1)))
    world.host(sender)
    for stop in (7, 30):
        world.run_until(lambda stop=stop: stop in reader.offsets(0))
        seen = len(reader.offsets(1))
        sender.do(*numbers(t.name, 110, 100, partition=1))  # the other goes on meanwhile
        world.run_until(lambda seen=seen: len(reader.offsets(1)) >= seen + 10)
        assert reader.offsets(0)[-1] == stop
        reader.do(Resume(t.name, 0))
    world.run_until(lambda: len(reader.offsets(0)) == 100 and len(reader.offsets(1)) == 120)
    assert reader.offsets(0) == list(range(100))
    assert reader.offsets(1) == list(range(120))


def test_following_a_topic_that_comes_later(world: Any) -> None:
    t = named(world, "deltas", task="late")
    other = named(world, "receipts")
    make_topics(world, (other, 1))
    reader = Probe(first=(Follow(t.name, 3, 0), Follow(other.name, 0, 0)))
    world.host(reader)
    sender = Probe(first=tuple(numbers(other.name, 3)))
    world.host(sender)
    world.run_until(lambda: len(reader.records) == 3)
    maker = Probe(first=(CreateTopics("made", ((t, 8),)),))
    world.host(maker)
    world.run_until(lambda: maker.answer("made") is not None)
    sender.do(Send(t.name, b"7", partition=3))
    world.run_until(lambda: len(reader.records) == 4)
    assert (reader.records[3].topic, reader.records[3].partition, reader.records[3].offset) == (t.name, 3, 0)


def test_ticks_come_while_records_flow(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 1))

    def again(event: Any) -> list[Send]:
        """One record leads to the next, so there is always one more."""
        return [Send(t.name, b"x", partition=0)] if not isinstance(event, Tick) else []

    probe = Probe(first=(Follow(t.name, 0, 0), *numbers(t.name, 20)), react=again, tick=50)
    world.host(probe)
    world.run_until(lambda: sum(isinstance(x, Tick) for x in probe.inputs) >= 10)
    at = [now for x, now in zip(probe.inputs, probe.nows, strict=False) if isinstance(x, Tick)]
    assert len(probe.records) > 20
    assert at[9] - at[0] <= 9 * 50 + 500


# ------------------------------------------------------------------ questions


def test_ends_asked_while_reading(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 3))
    reader = Probe(first=tuple(Follow(t.name, p, 0) for p in range(3)))
    world.host(reader)
    sender = Probe(first=(*numbers(t.name, 40), *numbers(t.name, 7, partition=2)))
    world.host(sender)
    world.run_until(lambda: len(reader.records) == 47)
    reader.do(Ends("now", t.name))
    world.run_until(lambda: reader.answer("now") is not None)
    assert reader.answer("now").value == {0: 40, 1: 0, 2: 7}
    sender.do(Send(t.name, b"1", partition=1, tag="sent"))
    world.run_until(lambda: sender.answer("sent") is not None)
    reader.do(Ends("then", t.name))
    world.run_until(lambda: reader.answer("then") is not None)
    assert reader.answer("then").value == {0: 40, 1: 1, 2: 7}


def test_fetch_by_hint_by_key_and_not_at_all(world: Any) -> None:
    t = named(world, "models")
    make_topics(world, (t, 2))
    data = {(p, i): bytes([p, i]) * 20_000 for p in (0, 1) for i in range(10)}
    sender = Probe(first=tuple(Send(t.name, v, key=f"{p}-{i}", partition=p, tag=(p, i)) for (p, i), v in data.items()))
    world.host(sender)
    world.run_until(lambda: all(sender.answer(k) for k in data))
    places = [
        *(Place(partition=0, offset=sender.answer((0, i)).value[1], key=f"0-{i}", checksum=0) for i in (2, 3, 4, 8)),
        Place(partition=1, offset=3, key="1-7", checksum=0),  # another's offset
        Place(partition=1, offset=1000, key="1-5", checksum=0),  # beyond the end
        Place(partition=1, offset=2, key="nobody", checksum=0),
    ]
    sender.do(Fetch("some", t.name, tuple(places)), Fetch("none", t.name, ()))
    world.run_until(lambda: sender.answer("some") is not None and sender.answer("none") is not None)
    want = {"0-2": (0, 2), "0-3": (0, 3), "0-4": (0, 4), "0-8": (0, 8), "1-7": (1, 7), "1-5": (1, 5)}
    assert sender.answer("some").value == {k: data[v] for k, v in want.items()}
    assert sender.answer("none").value == {}


def test_making_topics_twice_is_fine(world: Any) -> None:
    t, u = named(world, "receipts"), named(world, "models")
    maker = Probe(first=(CreateTopics(1, ((t, 2),)), CreateTopics(2, ((t, 2), (u, 3)))))
    world.host(maker)
    world.run_until(lambda: bool(maker.answer(1) and maker.answer(2)))
    maker.do(Ends("t", t.name), Ends("u", u.name))
    world.run_until(lambda: bool(maker.answer("t") and maker.answer("u")))
    assert maker.answer(1).error == maker.answer(2).error == ""
    assert set(maker.answer("t").value) == {0, 1}
    assert set(maker.answer("u").value) == {0, 1, 2}


# ------------------------------------------------------------------ groups


def members(world: Any, n: int) -> list[Probe]:
    t = named(world, "shards")
    return [Probe(name=f"m{i}", membership=Membership(f"{world.namespace}.group", t.name)) for i in range(n)]


def share(probes: list[Probe], *sizes: int) -> bool:
    """Do they have all of 8 shards, each one owner, in parts of these sizes?"""
    seats = [p.seats or frozenset() for p in probes]
    return sorted(map(len, seats)) == sorted(sizes) and frozenset().union(*seats) == frozenset(range(8))


def test_members_share_shards_and_only_what_must_moves(world: Any) -> None:
    make_topics(world, (named(world, "shards"), 8))
    a, b, c = members(world, 3)
    world.host(a)
    world.run_until(lambda: share([a], 8))
    world.host(b)
    world.run_until(lambda: share([a, b], 4, 4))
    before = [a.seats, b.seats]
    world.host(c)
    world.run_until(lambda: share([a, b, c], 3, 3, 2))
    assert a.seats is not None
    assert b.seats is not None
    assert before[0] is not None
    assert before[1] is not None
    assert a.seats <= before[0]
    assert b.seats <= before[1]


def test_a_member_that_leaves_and_one_that_dies(world: Any) -> None:
    make_topics(world, (named(world, "shards"), 8))
    a, b, c = members(world, 3)
    handles = [world.host(p) for p in (a, b, c)]
    world.run_until(lambda: share([a, b, c], 3, 3, 2))
    world.close(handles[2])
    world.run_until(lambda: share([a, b], 4, 4), SESSION * 0.75 / 1000)  # it said so: no session has to run out
    had = a.seats or frozenset()
    world.crash(handles[1])
    world.run_until(lambda: share([a], 8))
    assert had < (a.seats or frozenset())


def test_one_leader_at_a_time(world: Any) -> None:
    t = named(world, "ledger")
    make_topics(world, (t, 1))
    a, b = (Probe(name=n, membership=Membership(f"{world.namespace}.lead", t.name)) for n in "ab")
    first = world.host(a)
    world.run_until(lambda: a.seats == {0})
    world.host(b)
    world.run_until(lambda: b.seats is not None)
    leaders = [p for p in (a, b) if p.seats]
    assert leaders == [a]
    world.crash(first)
    world.run_until(lambda: b.seats == {0})


# ------------------------------------------------------------------ the end


def test_stop_ends_it_and_what_was_sent_before_lands(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 1))
    handle = world.host(Probe(first=(*numbers(t.name, 5), Stop("done", ok=True), *numbers(t.name, 9))))
    reader = Probe(first=(Follow(t.name, 0, 0), Ends("end", t.name)))
    world.host(reader)
    world.run_until(lambda: world.stopped(handle) is not None and len(reader.records) >= 5)
    reader.do(Ends("end", t.name))
    assert world.stopped(handle) == Stop("done", ok=True)
    assert values(reader) == [0, 1, 2, 3, 4]


def test_where_logs_begin(world: Any) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 3))
    probe = Probe(first=(Starts("starts", t.name),))
    world.host(probe)
    world.run_until(lambda: probe.answer("starts") is not None)
    assert probe.answer("starts").value == {0: 0, 1: 0, 2: 0}


# ------------------------------------------------------------------ logs that are cut


def filled(world: Any, n: int = 20) -> Any:
    """A topic whose first partition has that many records."""
    t = named(world, "receipts")
    make_topics(world, (t, 2))
    sender = Probe(first=(*numbers(t.name, n - 1), Send(t.name, b"%d" % (n - 1), partition=0, tag="last")))
    handle = world.host(sender)
    world.run_until(lambda: sender.answer("last") is not None)
    world.close(handle)
    return t


def cut(world: Any, name: str, offset: int) -> None:
    """Cut a log, and see that it is cut."""
    probe = Probe(first=(Cut(name, 0, offset), Starts(0, name)))
    asked = 0

    def there() -> bool:
        nonlocal asked
        if (answer := probe.answer(asked)) is None:
            return False
        if answer.value[0] >= offset:
            return True
        asked += 1  # it has no answer of its own: ask again where the log begins
        probe.do(Starts(asked, name))
        return False

    handle = world.host(probe)
    world.run_until(there)
    world.close(handle)


def test_a_cut_log_begins_higher_and_keeps_its_offsets(world: Any) -> None:
    t = filled(world)
    cut(world, t.name, 8)
    probe = Probe(first=(Starts("starts", t.name), Ends("ends", t.name), Follow(t.name, 0, 8)))
    world.host(probe)
    world.run_until(lambda: bool(probe.answer("starts") and probe.answer("ends")) and len(probe.records) == 12)
    assert probe.answer("starts").value == {0: 8, 1: 0}
    assert probe.answer("ends").value == {0: 20, 1: 0}
    assert [(r.offset, r.value) for r in probe.records] == [(i, b"%d" % i) for i in range(8, 20)]
    probe.do(Send(t.name, b"20", partition=0))
    world.run_until(lambda: 20 in probe.offsets())


def test_cutting_again_lower_or_past_the_end_does_nothing(world: Any) -> None:
    t = filled(world)
    cut(world, t.name, 8)
    probe = Probe(first=(Cut(t.name, 0, 8), Cut(t.name, 0, 3), Cut(t.name, 0, 21), Cut(t.name, 1, 5)))
    handle = world.host(probe)
    reader = Probe(first=(Follow(t.name, 0, 8),))
    world.host(reader)
    world.run_until(lambda: len(reader.records) == 12)
    seen = len(probe.inputs)
    world.run_until(lambda: len(probe.inputs) > seen + 25)  # half a second
    probe.do(Starts("starts", t.name), Ends("ends", t.name))
    world.run_until(lambda: bool(probe.answer("starts") and probe.answer("ends")))
    assert probe.answer("starts").value == {0: 8, 1: 0}
    assert probe.answer("ends").value == {0: 20, 1: 0}
    assert world.stopped(handle) is None


def test_a_log_cut_to_its_end_is_empty_and_goes_on(world: Any) -> None:
    t = filled(world)
    cut(world, t.name, 20)
    probe = Probe(first=(Starts("starts", t.name), Ends("ends", t.name), Follow(t.name, 0, 20)))
    world.host(probe)
    world.run_until(lambda: bool(probe.answer("starts") and probe.answer("ends")))
    assert (probe.answer("starts").value[0], probe.answer("ends").value[0]) == (20, 20)
    probe.do(Send(t.name, b"20", partition=0))
    world.run_until(lambda: probe.offsets() == [20])


@pytest.mark.parametrize(("offset", "start"), [(3, 8), (0, 8), (25, 0), (25, 8)])
def test_an_offset_that_is_not_there_stops_or_is_answered_to_its_tag(world: Any, offset: int, start: int) -> None:
    t = filled(world)
    if start:
        cut(world, t.name, start)
    untagged = world.host(Probe(name="untagged", first=(Follow(t.name, 0, offset),)))
    probe = Probe(first=(Follow(t.name, 0, offset, "from there"), Follow(t.name, 1, 0, "other")))
    handle = world.host(probe)
    world.run_until(lambda: probe.answer("from there") is not None and world.stopped(untagged) is not None)
    stop = world.stopped(untagged)
    assert not stop.ok
    assert "records are lost" in stop.reason
    answer = probe.answer("from there")
    assert answer.value == (start, 20)
    assert t.name in answer.error
    probe.do(*numbers(t.name, 30, 20), Send(t.name, b"7", partition=1))  # of the one it is told nothing more
    world.run_until(lambda: bool(probe.offsets(1)))
    assert probe.offsets(0) == []
    probe.do(Follow(t.name, 0, start, "again"))
    world.run_until(lambda: 29 in probe.offsets(0))
    assert probe.offsets(0) == list(range(start, 30))
    assert [probe.answer(x) for x in ("again", "other")] == [None, None]
    assert world.stopped(handle) is None


def test_a_log_cut_while_it_is_read(world: Any) -> None:
    """Who is behind the cut is told, whatever the client has read ahead; who is not notices nothing."""
    t = filled(world, 100)
    behind = Probe(
        first=(Follow(t.name, 0, 0, "behind"),),
        react=lambda e: [Pause(t.name, 0)] if getattr(e, "offset", 0) == 10 else [],
    )
    ahead = Probe(first=(Follow(t.name, 0, 0, "ahead"),))
    world.host(behind)
    world.host(ahead)
    world.run_until(lambda: 10 in behind.offsets() and 99 in ahead.offsets())
    cut(world, t.name, 60)
    assert behind.answer("behind") is None  # paused: it reads nothing
    behind.do(Resume(t.name, 0))
    world.run_until(lambda: behind.answer("behind") is not None)
    assert behind.answer("behind").value == (60, 100)
    assert behind.offsets() == list(range(11))
    ahead.do(*numbers(t.name, 110, 100), Follow(t.name, 0, 99, "on"))
    world.run_until(lambda: 109 in ahead.offsets())
    assert ahead.offsets() == [*range(100), *range(99, 110)]
    assert (ahead.answer("ahead"), ahead.answer("on")) == (None, None)


def test_follow_of_a_topic_that_comes_later_with_a_tag(world: Any) -> None:
    t, other = named(world, "deltas", task="late"), named(world, "receipts")
    make_topics(world, (other, 1))
    reader = Probe(first=(Follow(t.name, 0, 0, "late"), *numbers(other.name, 1)))
    world.host(reader)
    make_topics(world, (t, 1))
    reader.do(Send(t.name, b"7", partition=0))
    world.run_until(lambda: len(reader.records) == 1)
    assert reader.answer("late") is None


def test_a_ledger_is_read_from_its_checkpoint_once_it_is_cut(world: Any) -> None:
    """One reader before the cut, who goes on; one after it, who knows the same."""
    ledger, there = named(world, "ledger"), named(world, "checkpoints")
    make_topics(world, (ledger, 1), (there, 1))

    def reader() -> tuple[Probe, Reading]:
        reading = Reading(world.namespace, "z", Zone())

        def react(event: Any) -> Any:
            if isinstance(event, Record):
                yield from reading.record(event)
            elif isinstance(event, Answer):
                yield from reading.answer(event) or ()

        probe = Probe(first=tuple(reading.start()), react=react)
        world.host(probe)
        return probe, reading

    facts = [Founded("l", "z", 3, every=8), Claimed("a", "life", {LEADERSHIP: 0, 0: 0}), *[Rules(0)] * 8]
    writer = Probe(first=tuple(send(ledger, f, partition=0) for f in facts))
    world.host(writer)
    _, early = reader()
    world.run_until(lambda: early.state.position == 10)
    data = snapshot(early.ledger.marks[8])
    (piece,) = pieces(data, "l", 8)
    writer.do(send(there, piece, "key", 0, "stored"))
    world.run_until(lambda: writer.answer("stored") is not None)
    places = (Place(*writer.answer("stored").value, "key", checksum(piece.data)),)
    writer.do(send(ledger, Checkpoint(1, 8, checksum(data), places), partition=0), *[send(ledger, Rules(0))] * 9)
    world.run_until(lambda: early.state.position == 20)
    assert [m.offset for m in early.state.checkpoints] == [8]
    cut(world, ledger.name, 8)
    _, late = reader()
    world.run_until(lambda: late.caught_up)
    assert (late.origin, early.origin, late.state) == (8, 0, early.state)
    writer.do(send(ledger, Claimed("b", "life", {0: 1}), partition=0))
    world.run_until(lambda: late.state.position == early.state.position == 21)
    assert snapshot(late.state) == snapshot(early.state)
    assert late.ledger.marks[16] == early.ledger.marks[16]


def test_what_is_spare_goes_with_its_topic_and_nobody_stops_for_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster.known, "__defaults__", (1.0,))
    t, gone = named(world, "receipts"), named(world, "deltas", task="over").name
    make_topics(world, (t, 1))
    probe = Probe(first=(Send(gone, b"x", "d", spare=True), Send(t.name, b"1", partition=0), Follow(t.name, 0, 0)))
    handle = world.host(probe)
    world.run_until(lambda: [r.value for r in probe.records] == [b"1"])
    probe.do(Send(gone, b"y", "d", spare=True), Send(gone, b"z", "d", tag="told"))
    world.run_until(lambda: probe.answer("told") is not None)
    assert f"topic {gone} does not exist" in probe.answer("told").error
    assert world.stopped(handle) is None
    probe.do(Send(gone, b"x", "d"))
    world.run_until(lambda: world.stopped(handle) is not None)
    assert f"topic {gone} does not exist" in world.stopped(handle).reason
