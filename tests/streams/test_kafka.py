"""What only Kafka has: brokers that go away, logs that are cut, appends that are refused."""

import asyncio
import gc
import gzip
import os
import signal
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import has_snappy
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

import streams.appends
from schemas.blocks import Place
from schemas.topics import DAY, TABLE, Topic
from streams.appends import Append
from streams.batches import _Batches, _Records
from streams.broker import LocalBroker
from streams.kafka import BrokerGone, Kafka, _Host, wall_clock
from streams.processor import (
    CreateTopics,
    Ends,
    Fetch,
    Follow,
    Mark,
    Membership,
    Pause,
    Record,
    Resume,
    Send,
    Starts,
    Stop,
    Tick,
)
from streams.queries import Cluster
from tests.streams.worlds import KafkaWorld, Probe, make_topics, named

pytestmark = pytest.mark.kafka


@pytest.fixture
def world(broker: str) -> Iterator[KafkaWorld]:
    world = KafkaWorld(broker)
    yield world
    world.end()


@pytest.mark.timeout(600)
def test_all_goes_on_after_the_broker_was_away(tmp_path: Path) -> None:
    """Stopped in good order once, killed once; appends, reading, questions and membership resume by themselves."""
    with LocalBroker(tmp_path) as broker:
        world = KafkaWorld(broker.bootstrap)
        t, shards = named(world, "receipts"), named(world, "shards")
        make_topics(world, (t, 2), (shards, 8))
        sent = []

        def send(event: object) -> list[Send]:
            if isinstance(event, Tick):
                sent.append(len(sent))
                return [Send(t.name, b"%d" % sent[-1], partition=sent[-1] % 2, tag=sent[-1] if sent[-1] % 3 else None)]
            return []

        sender = Probe(name="sender", react=send, tick=5)
        reader = Probe(name="reader", first=(Follow(t.name, 0, 0), Follow(t.name, 1, 0)))
        reader.membership = Membership(f"{world.namespace}.g", shards.name)
        handles = [*world.host_together(sender, reader)]
        world.run_until(lambda: len(reader.records) > 50 and reader.seats == frozenset(range(8)))
        for sign in (signal.SIGTERM, signal.SIGKILL):
            assert broker.pid
            os.kill(broker.pid, sign)
            broker.stop()
            before = len(sent)
            world.run_until(lambda before=before: len(sent) > before + 50)  # nobody answers now
            reader.do(Ends(sign, t.name))
            broker.start()
            world.run_until(lambda sign=sign: reader.answer(sign) is not None)
            after = len(sent)
            world.run_until(lambda after=after: len(reader.records) >= after)
        late = Probe(name="late", membership=reader.membership)
        world.host(late)
        world.run_until(lambda: (len(late.seats or ()), len(reader.seats or ())) == (4, 4))
        sender.react = lambda event: ()
        world.run_until(lambda: {int(r.value or b"") for r in reader.records} == set(sent))
        for p in (0, 1):
            assert reader.offsets(p) == list(range(len(reader.offsets(p))))
        tagged = [n for n in sent if n % 3]
        world.run_until(lambda: all(sender.answer(n) for n in tagged))
        places = {(r.partition, r.offset): int(r.value or b"") for r in reader.records}
        assert [places[sender.answer(n).value] for n in tagged] == tagged
        assert not any(world.stopped(h) for h in handles)
        world.end()


@pytest.mark.parametrize("wanted", [2, 99])
def test_a_log_that_lacks_what_is_wanted_is_loss(world: KafkaWorld, wanted: int) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 1))
    sender = Probe(first=tuple(Send(t.name, b"%d" % i, partition=0, tag=i) for i in range(10)))
    world.host(sender)
    world.run_until(lambda: all(sender.answer(i) for i in range(10)))

    async def cut() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=world.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(t.name, 0): RecordsToDelete(before_offset=5)})
        await admin.close()

    asyncio.run(cut())
    reader = Probe(first=(Follow(t.name, 0, wanted),))
    handle = world.host(reader)
    world.run_until(lambda: world.stopped(handle) is not None)
    stop = world.stopped(handle)
    assert stop
    assert not stop.ok
    assert stop.reason == f"{t.name}-0: wanted offset {wanted}, the log holds 5 to 10: records are lost"
    assert reader.records == []
    asker = Probe(first=(Starts("starts", t.name), Ends("ends", t.name)))
    world.host(asker)
    world.run_until(lambda: bool(asker.answer("starts") and asker.answer("ends")))
    assert asker.answer("starts").value == {0: 5}
    assert asker.answer("ends").value == {0: 10}


# ------------------------------------------------------------------ what strangers write

Written = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]
HEADERS_AT = 61  # where the records of a batch begin
GZIP, SNAPPY = 1, 2


def batch(*records: Written, codec: int = 0, deltas: tuple[int, ...] = ()) -> bytes:
    """A batch as somebody may write it by hand: a header key of `??` becomes one that is not UTF-8."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**20)
    for i, (key, value, headers) in enumerate(records):
        builder.append(deltas[i] if deltas else i, 1000 + i, key, value, headers)
    made = bytes(builder.build()).replace(b"??", b"\xff\xfe")
    head, body = bytearray(made[:HEADERS_AT]), made[HEADERS_AT:]
    if codec == GZIP:
        body = gzip.compress(body)
    elif codec == SNAPPY:  # one literal is a snappy block, too
        assert 60 < len(body) <= 256
        n = len(body)
        block = bytes([n & 127 | 128, n >> 7] if n > 127 else [n]) + bytes([60 << 2, n - 1]) + body
        body = b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(block)) + block
    struct.pack_into(">i", head, 8, HEADERS_AT - 12 + len(body))
    struct.pack_into(">hi", head, 21, codec, len(records) - 1)
    struct.pack_into(">I", head, 17, calc_crc32c(bytes(head[21:]) + body))
    return bytes(head) + body


UNKNOWN, NOT_LEADER = 3, 6
"""The broker's words for a partition that it does not know, or does not lead."""


def write(world: KafkaWorld, t: Topic, *batches: bytes) -> None:
    async def go() -> None:
        client = AIOKafkaClient(bootstrap_servers=world.bootstrap)
        await client.bootstrap()
        await client.set_topics([t.name])
        node = client.cluster.leader_for_partition(TopicPartition(t.name, 0))
        for b in batches:
            for _ in range(50):
                answer = await client.send(node, ProduceRequest(None, -1, 5000, [(t.name, [(0, b)])]))
                if answer.topics[0][1][0][1] not in (
                    UNKNOWN,
                    NOT_LEADER,
                ):  # a topic just made may not have its leader yet
                    break
                await asyncio.sleep(0.1)
            assert answer.topics[0][1][0][1] == 0, answer
        await client.close()

    asyncio.run(go())


def transact(world: KafkaWorld, t: Topic, steps: Iterable[tuple[str, int]]) -> None:
    """Transactions of so many records, each then committed or aborted; or records outside of any (plain)."""

    async def go() -> None:
        plain = AIOKafkaProducer(bootstrap_servers=world.bootstrap)
        bound = AIOKafkaProducer(bootstrap_servers=world.bootstrap, transactional_id=f"{t.name}.stranger")
        await plain.start()
        await bound.start()
        for end, n in steps:
            producer = plain if end == "plain" else bound
            if producer is bound:
                await bound.begin_transaction()
            for i in range(n):
                await producer.send_and_wait(t.name, f"{end} {i}".encode(), b"k", partition=0)
            if producer is bound:
                await (bound.commit_transaction() if end == "commit" else bound.abort_transaction())
        await plain.stop()
        await bound.stop()

    asyncio.run(go())


def make_lax(world: KafkaWorld, t: Topic) -> None:
    """Make a topic that keeps the codec that a batch came with."""

    async def go() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=world.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(t.name, 1, 1, topic_configs=t.config() | {"compression.type": "producer"})])
        await admin.close()

    asyncio.run(go())


def end_of(world: KafkaWorld, t: Topic) -> int:
    asker = Probe(name="asker", first=(Ends("ends", t.name),))
    handle = world.host(asker)
    world.run_until(lambda: asker.answer("ends") is not None)
    world.close(handle)
    return asker.answer("ends").value[0]


FINE: Written = (b"k", b"fine", [("schema-version", b"1.0")])


@pytest.mark.parametrize("what", ["receipts", "announcements"])  # dense, and compacted
@pytest.mark.parametrize("end", ["commit", "abort"])
def test_a_transactions_markers_come_as_empty_records(world: KafkaWorld, end: str, what: str) -> None:
    """In the middle of the log and at its end, from its beginning and from the marker on; no offset is lost."""
    t = named(world, what)
    make_topics(world, (t, 1))
    transact(world, t, [("plain", 1), (end, 1), (end, 1)])  # markers at 2 and at 4
    assert end_of(world, t) == 5
    whole, late = Probe(first=(Follow(t.name, 0, 0),)), Probe(first=(Follow(t.name, 0, 4),))
    world.host_together(whole, late)
    world.run_until(lambda: (whole.offsets(), late.offsets()) == ([0, 1, 2, 3, 4], [4]))
    for r in (whole.records[2], whole.records[4], late.records[0]):
        assert r == Record(t.name, 0, r.offset, None, None, r.timestamp, ())
        assert r.timestamp > 10**12
    assert [whole.records[i].value for i in (0, 1, 3)] == [b"plain 0", f"{end} 0".encode(), f"{end} 0".encode()]
    write(world, t, batch(FINE))
    world.run_until(lambda: (whole.offsets(), late.offsets()) == ([0, 1, 2, 3, 4, 5], [4, 5]))
    assert whole.records[5].value == b"fine"


def test_markers_stand_in_the_way_of_nothing(world: KafkaWorld) -> None:
    """Many in a row, more than one call hands over; a pause on one; a fetch past them."""
    t = named(world, "receipts")
    make_topics(world, (t, 1))
    transact(world, t, [("commit", 1), ("abort", 2)] * 20 + [("plain", 1), ("commit", 1)])
    end = end_of(world, t)
    assert end == 20 * 5 + 3
    probe = Probe(first=(Follow(t.name, 0, 0),))

    def react(event: object) -> list[Pause | Resume]:
        if isinstance(event, Record) and event.value is None:
            probe.do(Resume(t.name, 0))
            return [Pause(t.name, 0)]
        return []

    probe.react = react
    world.host(probe)
    world.run_until(lambda: len(probe.records) == end)
    assert probe.offsets() == list(range(end))
    assert sum(r.value is None for r in probe.records) == 41


@pytest.mark.parametrize("codec", [0, GZIP])
def test_what_is_no_text_is_read_all_the_same(world: KafkaWorld, codec: int) -> None:
    """Header keys and keys that are not UTF-8, header values and record values that are null."""
    t = named(world, "receipts")
    make_lax(world, t)
    odd = batch(FINE, (b"k", b"odd", [("??", b"x"), ("cause", None)]), (b"\xff", None, []), FINE, codec=codec)
    write(world, t, batch(FINE), odd, batch(FINE))
    probe, late = Probe(first=(Follow(t.name, 0, 0),)), Probe(first=(Follow(t.name, 0, 3),))
    asker = Probe(first=(Fetch("far", t.name, (Place(0, 0, "�", 0), Place(0, 5, "k", 0))),))
    world.host_together(probe, late, asker)
    world.run_until(lambda: (len(probe.records), len(late.records)) == (6, 3))
    assert (probe.offsets(), late.offsets()) == ([*range(6)], [3, 4, 5])
    assert probe.records[2].headers == (("��", b"x"), ("cause", b""))
    assert [r.value for r in probe.records] == [b"fine", b"fine", b"odd", None, b"fine", b"fine"]
    assert [r.key for r in probe.records] == ["k", "k", "k", "�", "k", "k"]
    assert probe.records[1].headers == (("schema-version", b"1.0"),)
    assert all(r.timestamp > 10**12 for r in probe.records)  # the broker's, not the 1 s that the batch says
    world.run_until(lambda: asker.answer("far") is not None)
    assert asker.answer("far").value == {"k": b"fine"}


def test_offsets_that_a_stranger_made_up_are_none(world: KafkaWorld) -> None:
    """Brokers look at how many records a batch has, not at the offset that each bears."""
    t = named(world, "receipts")
    make_topics(world, (t, 1))
    write(world, t, batch(FINE), batch(FINE, FINE, FINE, deltas=(1, 700, 0)), batch(FINE))
    probe = Probe(first=(Follow(t.name, 0, 0),))
    world.host(probe)
    world.run_until(lambda: probe.offsets() == [0, 1, 2, 3, 4])
    assert [r.value for r in probe.records] == [b"fine", None, b"fine", None, b"fine"]


@pytest.mark.parametrize(("what", "whole"), [("receipts", list(range(7))), ("announcements", [5, 6])])
def test_a_batch_that_makes_no_sense_comes_as_empty_records(what: str, whole: list[int]) -> None:
    """No broker lets one pass that we know of; what superseded records leave behind in compacted topics is no loss."""
    fine = bytearray(batch(FINE, FINE))
    struct.pack_into(">q", fine, 0, 5)
    broken = fine.copy()
    struct.pack_into(">h", broken, 21, GZIP)
    struct.pack_into(">I", broken, 17, calc_crc32c(bytes(broken[21:])))
    for data, values in ((fine, [b"fine"] * 2), (broken, [None] * 2)):
        read = _Records(TopicPartition(f"test.z.{what}", 0), _Batches(bytes(data)), None, 0)
        got = [r for r in read if isinstance(r, Record)]
        assert [r.offset for r in got] == whole
        assert [r.value for r in got][-2:] == values
        assert read.next_fetch_offset == 7


@pytest.mark.skipif(has_snappy(), reason="snappy can be read here")
def test_a_codec_that_is_missing_stops_with_words(world: KafkaWorld) -> None:
    """What comes before it is handed over; what is asked for elsewhere in the log is found."""
    t = named(world, "receipts")
    make_lax(world, t)
    write(world, t, batch(FINE, FINE), batch((b"k", b"x" * 100, []), FINE, codec=SNAPPY), batch((b"a", b"after", [])))
    probe = Probe(first=(Follow(t.name, 0, 0),))
    handle = world.host(probe)
    world.run_until(lambda: world.stopped(handle) is not None)
    stop = world.stopped(handle)
    assert stop
    assert not stop.ok
    assert stop.reason.startswith(
        f"{t.name}-0: the batch at offset 2 cannot be read here: Libraries for snappy compression codec not found. "
        "Install it (`pip install cramjam`)"
    )
    assert "compression.type=uncompressed" in stop.reason
    assert probe.offsets() == [0, 1]
    here, hidden = Place(0, 0, "a", 0), Place(0, 2, "none", 0)
    after = Probe(first=(Follow(t.name, 0, 4), Fetch("here", t.name, (here,)), Fetch("hidden", t.name, (hidden,))))
    handle = world.host(after)
    world.run_until(lambda: bool(after.answer("here") and after.answer("hidden") and after.offsets() == [4]))
    assert after.answer("here").value == {"a": b"after"}
    assert after.answer("hidden").error == stop.reason
    assert world.stopped(handle) is None


def test_many_fetches_at_once_share_few_connections(world: KafkaWorld) -> None:
    t = named(world, "models")
    make_topics(world, (t, 2))
    sends = tuple(Send(t.name, b"%d" % i, key=f"k{i}", partition=i % 2, tag=i) for i in range(60))
    sender = Probe(first=sends)
    world.host(sender)
    world.run_until(lambda: all(sender.answer(i) for i in range(60)))
    places = [Place(*sender.answer(i).value, f"k{i}", 0) for i in range(60)]
    gone, wrong = Place(0, 3, "gone", 0), [Place(p.partition, 1, p.key, 0) for p in places]

    async def go() -> None:
        async with Kafka(world.bootstrap) as kafka:
            cluster = kafka.cluster(t.name)
            made, new = [], cluster._consumer
            cluster._consumer = lambda: made.append(new()) or made[-1]  # type: ignore[method-assign, func-returns-value]
            for ps in (places, wrong):
                got = await asyncio.gather(*(cluster.fetch(t.name, [p, gone][: 1 + i % 2]) for i, p in enumerate(ps)))
                assert got == [{f"k{i}": b"%d" % i} for i in range(60)]
            assert await cluster.fetch(t.name, [*places, gone]) == {f"k{i}": b"%d" % i for i in range(60)}
            assert len(made) <= 5  # one of them for offsets

    asyncio.run(go())


def test_what_cannot_land_is_answered_or_stops(world: KafkaWorld) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 2))
    large, nowhere = b"x" * (3 * 2**20), Send(t.name, b"x", partition=5, tag="nowhere")
    refused = b"y" * (2**20 + 1000)  # passes the client, not the broker
    probe = Probe(
        first=(
            Send(t.name, b"1", partition=0),
            Send(t.name, large, partition=0, tag="large"),
            Send(t.name, refused, partition=0, tag="refused"),
            nowhere,
            Send(t.name, b"2", partition=0, tag="fine"),
            Follow(t.name, 0, 0),
        )
    )
    handle = world.host(probe)
    world.run_until(lambda: all(probe.answer(x) for x in ("large", "refused", "nowhere", "fine")))
    assert "3145" in probe.answer("large").error
    assert probe.answer("refused").error
    assert probe.answer("nowhere").error == f"topic {t.name} has 2 partitions, no partition 5"
    assert probe.answer("fine").error == ""
    world.run_until(lambda: [r.value for r in probe.records][-1:] == [b"2"])
    probe.do(Send(t.name, large, partition=0))
    world.run_until(lambda: world.stopped(handle) is not None)
    stop = world.stopped(handle)
    assert stop
    assert stop.reason.startswith(f"cannot append: {t.name}")


def test_a_topic_that_is_deleted_takes_along_what_is_spare_and_nothing_else(
    world: KafkaWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the hands of one who writes to it, and to others; and its lane ends when nothing goes there any more."""
    monkeypatch.setattr(Cluster.known, "__defaults__", (1.0,))
    gone, kept = named(world, "deltas", task="over"), named(world, "deltas", task="t")
    make_topics(world, (gone, 2), (kept, 2))
    probe = Probe(first=(Follow(kept.name, 0, 0),))
    handle = world.host(probe)
    probe.do(*(Send(x.name, b"1", partition=p, tag=(x.task, p)) for x in (gone, kept) for p in (0, 1)))
    world.run_until(lambda: all(probe.answer((x.task, p)) for x in (gone, kept) for p in (0, 1)))

    async def remove() -> set[str]:
        async with Kafka(world.bootstrap) as kafka:
            for _ in range(2):  # one that is not there is no error
                await kafka.cluster(gone.name).remove(gone.name)
            return await kafka.topics()

    there = asyncio.run(remove())
    assert kept.name in there
    assert gone.name not in there
    monkeypatch.setattr(streams.appends, "IDLE", 0.5)
    probe.do(*(Send(x.name, b"%d" % i, partition=0, spare=True) for i in range(2, 12) for x in (gone, kept)))
    world.run_until(lambda: len(probe.records) == 11, 60)
    world.run_until(lambda: "10 records are dropped" in caplog.text, 60)
    assert f"topic {gone.name} does not exist" in caplog.text
    assert world.stopped(handle) is None

    def lanes() -> list[str]:
        names = (t.get_name() for t in asyncio.all_tasks(handle.life.loop))
        return [n for n in names if n.startswith("appends to")]

    world.run_until(lambda: not lanes(), 10)
    probe.do(Send(kept.name, b"last", partition=0))
    world.run_until(lambda: probe.records[-1].value == b"last")


def test_small_ones_that_go_together_land_in_order_each_at_its_place(world: KafkaWorld) -> None:
    """Records of all sizes, some of which cannot land: each has an answer of its own."""
    t = named(world, "receipts")
    make_topics(world, (t, 3))
    probe = Probe(first=tuple(Follow(t.name, p, 0) for p in range(3)))
    world.host(probe)
    sizes = {n: 20_000 if n % 500 == 7 else 2_000_000 if n == 1_234 else 20 for n in range(3_000)}
    bad = {n for n in sizes if n % 700 == 9}
    probe.do(
        *(Send(t.name, b"%d " % n + bytes(s), partition=7 if n in bad else n % 3, tag=n) for n, s in sizes.items())
    )
    world.run_until(lambda: all(probe.answer(n) for n in sizes))
    world.run_until(lambda: len(probe.records) == len(sizes) - len(bad) - 1)
    where = {int(r.value.split()[0]): (r.partition, r.offset) for r in probe.records}
    for n in sizes:
        answer = probe.answer(n)
        if n in bad:
            assert "no partition 7" in answer.error
        elif n == 1_234:
            assert answer.error
        else:
            assert (answer.value, answer.error) == (where[n], "")
    for p in range(3):
        assert [n for n, at in sorted(where.items(), key=lambda x: x[1]) if at[0] == p] == sorted(
            n for n in where if n % 3 == p
        )


def test_what_is_acknowledged_is_let_go_at_once(world: KafkaWorld) -> None:
    """Without waiting for the collector of circles: a sum's pieces would stay beside the sum."""
    t = named(world, "partials")
    make_topics(world, (t, 1))
    probe = Probe()
    world.host(probe)
    gc.collect()
    gc.disable()
    try:
        for n in range(9):
            probe.do(Send(t.name, bytes(1000), partition=0, tag=n))
        world.run_until(lambda: all(probe.answer(n) for n in range(9)))
        held = lambda: sum(type(a) is Append and a.send.topic == t.name for a in gc.get_objects())  # noqa: E731
        world.run_until(lambda: held() <= 1, 5)  # the lane has the last one until the next comes
    finally:
        gc.enable()


def test_making_a_topic_with_another_number_of_partitions_is_an_error(world: KafkaWorld) -> None:
    t = named(world, "receipts")
    make_topics(world, (t, 2))
    probe = Probe(first=(CreateTopics("more", ((t, 4),)),))
    world.host(probe)
    world.run_until(lambda: probe.answer("more") is not None)
    assert probe.answer("more").error == f"topic {t.name} exists with 2 partitions, 4 were asked for"


def test_a_bug_in_a_processor_stops_it_and_nobody_else(world: KafkaWorld) -> None:
    t = named(world, "models")
    make_topics(world, (t, 1))

    def fall(event: object) -> list[Send]:
        raise ZeroDivisionError("oh")

    bad, good = Probe(name="bad", react=fall), Probe(name="good", first=(Fetch("f", t.name, ()),))
    handles = world.host_together(bad, good)
    world.run_until(lambda: world.stopped(handles[0]) is not None and len(good.inputs) > 5)
    stop = world.stopped(handles[0])
    assert stop
    assert stop.reason == "bug in bad: ZeroDivisionError('oh') at Tick()"
    assert world.stopped(handles[1]) is None


def test_who_is_nudged_has_a_tick_at_once(broker: str) -> None:
    async def main() -> list[object]:
        async with Kafka(broker, "nudged") as kafka:
            probe = Probe(tick=60_000, react=lambda event: [Stop("nudged", ok=True)])
            hosted = asyncio.create_task(kafka.host(probe))
            await asyncio.sleep(0.1)
            kafka.nudge()
            await asyncio.wait_for(hosted, 10)
            return probe.inputs

    assert asyncio.run(main()) == [Tick()]


def test_members_in_one_runtime_stay_sticky(world: KafkaWorld) -> None:
    """aiokafka's assignor keeps its state on the class: two members in one process would share it."""
    t = named(world, "shards")
    make_topics(world, (t, 8))
    m = Membership(f"{world.namespace}.g", t.name)
    a, b = Probe(name="a", membership=m), Probe(name="b", membership=m)
    world.host_together(a, b)
    world.run_until(lambda: (len(a.seats or ()), len(b.seats or ())) == (4, 4))
    before = {p.name: p.seats for p in (a, b)}
    c = Probe(name="c", membership=m)
    world.host(c)
    world.run_until(lambda: sorted(len(p.seats or ()) for p in (a, b, c)) == [2, 3, 3])
    assert (a.seats or frozenset()) <= (before["a"] or frozenset())
    assert (b.seats or frozenset()) <= (before["b"] or frozenset())


def in_group(broker: str, group: str) -> tuple[str, set[str]]:
    """Its state, and its members by the names they gave."""

    async def ask() -> tuple[str, set[str]]:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker)
        await admin.start()
        try:
            (answer,) = await admin.describe_consumer_groups([group])
        finally:
            await admin.close()
        _, _, state, _, _, members, *_ = answer.groups[0]
        return state, {client.rpartition("-")[2] for _, client, *_ in members}

    return asyncio.run(ask())


def test_who_ends_while_the_group_waits_for_another_has_left(broker: str) -> None:
    """A join is answered when everybody has joined, so beside a dead member it takes a session. Whoever ends meanwhile must not be
    waited for too: as a newcomer, or as one that has been in the group and joins again."""
    world = KafkaWorld(broker, session=60_000)
    try:
        t = named(world, "shards")
        make_topics(world, (t, 8))
        m = Membership(f"{world.namespace}.g", t.name)
        a, dead, b = (Probe(name=name, membership=m) for name in ("a", "dead", "b"))
        hosted = {p.name: world.host(p) for p in (a, dead)}
        world.run_until(lambda: (len(a.seats or ()), len(dead.seats or ())) == (4, 4))
        world.crash(hosted["dead"])
        hosted["b"] = world.host(b)
        world.run_until(lambda: in_group(broker, m.group) == ("PreparingRebalance", {"a", "dead", "b"}))
        time.sleep(3.5)  # at its next heartbeat, at most 3 s from now, a joins again
        world.close(hosted["a"])
        world.close(hosted["b"])
        assert in_group(broker, m.group) == ("PreparingRebalance", {"dead"})
        assert b.seats is None
    finally:
        world.end()


def test_a_mark_is_what_tools_show_of_a_group(world: KafkaWorld) -> None:
    t, group = named(world, "receipts"), f"{world.namespace}.lag"
    make_topics(world, (t, 2))
    marker = Probe(first=(Mark(group, {(t.name, 0): 3, (t.name, 1): 1}), Mark(group, {("nowhere", 0): 1})))
    handle = world.host(marker)

    async def offsets(wanted: dict[int, int]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=world.bootstrap)
        await admin.start()
        try:
            async with asyncio.timeout(10):
                found = None
                while found != wanted:
                    await asyncio.sleep(0.05)
                    with suppress(GroupCoordinatorNotAvailableError):  # it is being made
                        said = await admin.list_consumer_group_offsets(group)
                        found = {tp.partition: at.offset for tp, at in said.items()}
        finally:
            await admin.close()

    asyncio.run(offsets({0: 3, 1: 1}))
    marker.do(Mark(group, {(t.name, 1): 7}))
    asyncio.run(offsets({0: 3, 1: 7}))
    assert world.stopped(handle) is None


def test_the_names_of_all_topics(world: KafkaWorld) -> None:
    names = {named(world, what).name for what in ("receipts", "models")}
    make_topics(world, (named(world, "receipts"), 1), (named(world, "models"), 1))

    async def ask() -> set[str]:
        async with Kafka(world.bootstrap) as kafka:
            return await kafka.topics()

    assert {n for n in asyncio.run(ask()) if n.startswith(world.namespace)} == names


def test_no_broker_there() -> None:
    async def start() -> None:
        await Kafka("127.0.0.1:1").start()

    with pytest.raises(BrokerGone, match=r"no Kafka broker answers at 127\.0\.0\.1:1 .*olearning broker start"):
        asyncio.run(start())


@pytest.mark.parametrize("turns", range(5))
def test_a_cancellation_is_not_lost(broker: str, turns: int) -> None:
    """It comes just as the loop is woken, so many turns later: asyncio.wait_for of Python 3.11 swallows one of these."""

    async def main() -> bool:
        async with Kafka(broker, "cancelled") as kafka:
            host = _Host(kafka, Probe(tick=60_000))
            task = asyncio.create_task(host.run())
            await asyncio.sleep(0.5)
            host._awake.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=8)
            task.cancel()
            return bool(done)

    assert asyncio.run(main())


@pytest.mark.parametrize("off", [-8 * DAY, 2 * 3_600_000])
def test_a_process_whose_clock_is_wrong_is_heard_all_the_same(broker: str, off: int) -> None:
    """By its own clock what it sends would be old enough to be deleted, or so new that a broker takes it not."""
    world = KafkaWorld(broker)
    topics = {
        kind.what: named(world, kind.what, "z", "t" if kind.per_task else "") for kind in TABLE if "zone" in kind.scopes
    }
    make_topics(world, *((t, t.partitions(1)) for t in topics.values()))

    async def say() -> list[str]:
        landed: list[str] = []
        all_there = asyncio.Event()

        def over(append: Append, place: object, why: str) -> None:
            landed.append(append.send.topic)
            if len(landed) == len(topics):
                all_there.set()

        async with Kafka(broker, clock=lambda: wall_clock() + off) as kafka:
            for t in topics.values():
                kafka.appends(t.name).put(Append(Send(t.name, b"x", "key", 0), over))
            with suppress(TimeoutError):
                async with asyncio.timeout(15):
                    await all_there.wait()
        return landed

    assert sorted(asyncio.run(say())) == sorted(t.name for t in topics.values())
    reader = Probe(first=tuple(Follow(t.name, 0, 0) for t in topics.values()))
    world.host(reader)
    world.run_until(lambda: len(reader.records) == len(topics))
    now = wall_clock()
    assert [r.topic for r in reader.records if abs(now - r.timestamp) > 60_000] == []
    world.end()


def test_the_first_record_since_a_time_is_by_the_brokers_clock(broker: str) -> None:
    """Of a log that says when what it holds came; where nothing is so young, its end."""
    world = KafkaWorld(broker)
    name = named(world, "receipts", "z", "")
    make_topics(world, (name, 2))
    probe, reader = Probe(), Probe(first=(Follow(name.name, 0, 0),))
    world.host_together(probe, reader)

    def put(*values: bytes) -> None:
        there = len(reader.records) + len(values)
        probe.do(*(Send(name.name, v, "key", 0) for v in values))
        world.run_until(lambda: len(reader.records) == there)

    put(b"a", b"b")
    time.sleep(0.05)
    between = wall_clock()
    time.sleep(0.05)
    put(b"c")

    async def ask(*times: int) -> list[dict[int, tuple[int, int]]]:
        async with Kafka(broker) as kafka:
            return [await kafka.cluster(name.name).since(name.name, t) for t in times]

    assert asyncio.run(ask(0, between, wall_clock() + 1000)) == [{0: (first, 3), 1: (0, 0)} for first in (0, 2, 3)]
    world.end()
