"""Devices that take a part of a model: what they fetch, train and send, and how long it takes them."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from device_sim.adapt import most_samples
from device_sim.capacity import Capacity
from device_sim.device import Device
from device_sim.edge import Gone, named, version
from device_sim.job import IDLE
from device_sim.pace import Phone, up_bytes
from device_sim.portion import Portion, blocks_of, owes, portion, sent_sizes
from learning.codecs import read_values
from schemas.blocks import codec, slices
from schemas.messages import Admission, Announcement, Ref
from schemas.sets import bitmap
from schemas.topics import topic
from streams.processor import send
from tests.device_sim.test_edge import ONE, SIZES, Log, keys, step
from tests.device_sim.test_fleet import Z, edge
from tests.plane import LAYOUT, NS, START, Done

PIECES = slices(SIZES)


def cut(log: Log, a: Announcement, *blocks: int, **more: Any) -> Portion:
    return portion(replace(a, partial=True), blocks, **more)


@pytest.fixture
def log() -> Log:
    return Log()


# ------------------------------------------------------------------ the round


def test_a_part_is_the_round_with_its_blocks_alone(log: Log) -> None:
    a = replace(log.round(log.write(ONE)), partial=True)
    p = portion(a, (2, 0, 2), sent=(2,))
    assert (p.blocks, p.sent, p.sizes, p.whole) == ((0, 2), (2,), (1000, 600), 3)
    assert (blocks_of(p), blocks_of(a), owes(p), owes(a)) == ((0, 2), (0, 1, 2), bitmap([2], 3), b"")
    fitted = replace(p, codec="int8")  # as `adapt` does
    assert (fitted.blocks, sent_sizes(fitted), up_bytes(fitted)) == ((0, 2), [600], codec("int8").size(600, 1.0))


@pytest.mark.parametrize(("blocks", "sent"), [((), None), ((0, 3), None), ((-1,), None), ((0,), ()), ((0,), (1,))])
def test_a_part_that_cannot_be_is_refused(log: Log, blocks: tuple[int, ...], sent: tuple[int, ...] | None) -> None:
    a = replace(log.round(log.write(ONE)), partial=True)
    with pytest.raises(ValueError, match="that cannot be"):
        portion(a, blocks, sent)
    for other in (replace(a, partial=False), portion(a, (0,))):
        with pytest.raises(ValueError, match="cannot be cut"):
            portion(other, (0,))


def test_plan_pace_and_memory_go_by_the_part(log: Log) -> None:
    a = replace(log.round(log.write(ONE)), partial=True)
    p = portion(a, (1, 2), sent=(1,))
    phone = Phone(Capacity(inference_ms=10.0, kbit_s=8))  # a byte takes a millisecond
    assert [phone.take(x, 0, 0) for x in (a, p)] == [4 * 2200, 4 * 1200]
    assert [phone.upload(x, 0) for x in (a, p)] == [4 * 2200, 4 * 600]
    assert phone.expect(p, 100) < phone.expect(a, 100)
    adaptable = [replace(x, adapt=replace(x.adapt, batch_least=1, sample_kb=1.0)) for x in (a, p)]
    whole, part = (most_samples(x, 1.0) for x in adaptable)
    assert part > whole


# ------------------------------------------------------------------ the edge


def test_only_its_blocks_are_fetched_and_each_once_for_all(log: Log) -> None:
    m = log.write(ONE)
    a = log.round(m)
    one, two = cut(log, a, 0, 1), cut(log, a, 1, 2)
    assert log.get(one).tobytes() == np.concatenate([ONE[PIECES[0]], ONE[PIECES[1]]]).tobytes()
    assert log.asked == keys(m, 0, 1)
    assert log.get(two).tobytes() == np.concatenate([ONE[PIECES[1]], ONE[PIECES[2]]]).tobytes()
    assert log.asked == keys(m, 0, 1, 2)
    assert log.get(a).tobytes() == ONE.tobytes()  # the whole has what they have
    assert log.get(one).tobytes() == ONE[:1600].tobytes()
    assert len(log.asked) == 3
    assert log.edge.held == ONE.nbytes
    assert len({named(x) for x in (a, one, two)}) == 3
    assert {version(x) for x in (a, one, two)} == {version(a)}


def test_parts_that_want_the_same_block_wait_for_one_fetch(log: Log) -> None:
    a = log.round(log.write(ONE))
    asks = [f for x in (cut(log, a, 0, 1), cut(log, a, 1, 2), a) for f in log.want(x)]
    assert log.carry(asks) == []
    assert len(log.asked) == 3


def test_of_the_next_version_a_part_is_fetched_as_far_as_it_changed(log: Log) -> None:
    first = log.write(ONE)
    log.get(cut(log, log.round(first), 0, 1))
    second = log.write(step(ONE, (1, 2)))
    log.get(cut(log, log.round(second), 0, 1))
    assert log.asked[2:] == keys(second, 1)


def test_a_block_that_is_gone_concerns_the_parts_that_have_it(log: Log) -> None:
    m = log.write(ONE)
    del log.values[m.blocks[2].key]
    a = log.round(m)
    log.get(cut(log, a, 0, 1))
    assert {g.version for g in log.carry(list(log.want(cut(log, a, 1, 2))))} == {version(a)}
    short = replace(cut(log, a, 0), base=replace(m, blocks=m.blocks[:2]))
    assert [type(x) for x in log.edge.want(short)] == [Gone]


# ------------------------------------------------------------------ the fleet


def parts(n: int, **more: Any) -> Any:
    """A fleet of one whose device takes the model's second block, and has a slot."""
    e, learner = edge(n)
    for d in e.devices:
        d.part = lambda device, a: portion(a, (1,))
    e.run()
    e.announce(partial=True, **more)
    e.run()
    return e, learner


def answer(e: Any, blocks: bytes) -> None:
    name = e.name("phone-0")
    m = Admission(name, "t", 1, 0, 10**9, Ref("ledger-z", 9), blocks)
    e.memory.append(send(topic(NS, Z, "admissions"), m, name))
    e.run(2_000)


def test_a_device_registers_for_its_blocks_trains_them_and_sends_no_others() -> None:
    e, learner = parts(1)
    assert [w.blocks for w in e.wishes()] == [bitmap([1], 2)]
    answer(e, bitmap([1], 2))
    (_, _, base), (b,) = learner.asked[0], e.deltas()
    assert base == START[LAYOUT.sizes[0] :].tobytes()
    assert (b.block, b.weight) == (1, b.samples)
    fleet = e.host.processor
    assert fleet.edge.handed == 4 * LAYOUT.sizes[1]
    assert 4 * LAYOUT.sizes[1] < fleet.edge.fetched < 4 * LAYOUT.sizes[1] + 100  # one record


def test_a_slot_for_other_blocks_is_left() -> None:
    e, learner = parts(1)
    answer(e, b"")
    assert (learner.asked, e.deltas()) == ([], [])
    assert e.devices[0].state == IDLE


def test_a_device_may_leave_a_round_until_it_knows_its_part() -> None:
    e, _ = edge(1)
    d: Device = e.devices[0]
    d.part = lambda device, a: None
    e.run()
    e.announce(partial=True)
    e.run()
    assert e.wishes() == []
    d.part = lambda device, a: portion(a, (0,))
    d.next = e.memory.now
    e.host.processor.alarms.set(d)
    e.run()
    assert [w.blocks for w in e.wishes()] == [bitmap([0], 2)]


def test_blocks_weigh_what_the_run_says() -> None:
    e, learner = parts(1)
    learner.run = lambda a, device, base: Done(np.full(5, 0.5, np.float32), 3, 0.0, {1: 40})
    answer(e, bitmap([1], 2))
    (b,) = e.deltas()
    assert (b.weight, b.samples) == (40, 3)
    got = read_values(codec(b.codec), b.data, 5).q * 2.0 ** (b.exponent - 24)
    np.testing.assert_allclose(got, 40 * 0.5)


def test_a_run_that_gives_no_weight_to_what_it_owes_is_said() -> None:
    e, learner = parts(1)
    learner.run = lambda a, device, base: Done(np.zeros(5, np.float32), 3, 0.0, {0: 40})
    answer(e, bitmap([1], 2))
    assert e.deltas() == []
    assert "blocks 1 are to be sent" in e.host.processor.objections["t"]


def test_what_top_k_leaves_out_of_a_block_waits_for_the_block() -> None:
    e, learner = parts(1, codec="top-k+int8", keep=0.2)
    learner.run = lambda a, device, base: Done(np.arange(1, 1 + len(base), dtype=np.float32), 1, 0.0)
    answer(e, bitmap([1], 2))
    left = e.devices[0].left["t"]
    assert left.keys() == {1}
    np.testing.assert_allclose(left[1][:4], [1, 2, 3, 4], rtol=1e-3)
