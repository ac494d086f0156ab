"""What a device asks the cloud for, what of its modules it uses, and when it asks again."""

import math

import pytest

from device_sim.board import Board
from device_sim.capacity import Capacity
from device_sim.device import Device
from device_sim.job import Look, Wish
from device_sim.pace import Phone, Steady
from device_sim.portion import Portion
from device_sim.submodels import AGAIN, PATIENCE, Own, Watch, limits, used, worth_sending
from learning.modular.derivation import Limits
from schemas.blocks import Manifest, Place
from schemas.messages import Announcement, Ref
from schemas.modules import UNLIMITED, Modules, Submodel
from schemas.task import Training
from tests.modular import STRUCTURE, Known

SHARES = ((512, 256, 128, 128), (64, 32, 864, 64))
WHOLE = ((0, 1, 2, 3), (0, 1, 2, 3))
FREE = Limits(UNLIMITED, UNLIMITED, UNLIMITED)


def own(**how) -> Own:
    return Own(Known(), Modules(**how))


def settled(**how) -> Own:
    """One that has all modules."""
    o = own(**how)
    assert o.wants(0)
    assert o.seen("d", "t", SHARES, FREE, 8, 0)
    assert o.answered(Submodel("d", "t", 1, 0, 0, WHOLE), 1)
    return o


def test_limits_are_what_a_device_knows_of_itself():
    how = Modules(transfer_s=2.0, sample_ms=30.0, memory=0.25)
    assert limits(how, STRUCTURE, {}, Steady(100)) == FREE
    abilities, phone = {"memory": 400.0, "bandwidth": 8.0}, Phone(Capacity(20.0, 1_000.0))
    training = STRUCTURE.cost(STRUCTURE.whole).training_macs  # which this phone does in 60 ms
    assert limits(how, STRUCTURE, abilities, phone) == Limits(2_000_000, 100_000_000, training // 2)
    assert limits(how, STRUCTURE, abilities, phone, 0.5) == Limits(2_000_000, 50_000_000, training // 4)
    assert limits(how, STRUCTURE, {}, phone).bytes == 2 * 125_000  # its link as measured
    assert limits(Modules(), STRUCTURE, abilities, phone)[::2] == (UNLIMITED, UNLIMITED)


def test_what_it_drops_is_the_least_important_and_comes_back():
    room = Limits(UNLIMITED, 4 * (3 * 60 + 8 * 30), UNLIMITED)  # the shared part and four modules
    assert used(STRUCTURE, SHARES, WHOLE, FREE, 8) == WHOLE
    assert used(STRUCTURE, SHARES, WHOLE, room, 8) == ((0, 1, 2, 3), (2, 3))
    few = ((1, 2, 3), (0, 1, 3))
    assert used(STRUCTURE, SHARES, few, room, 8) == few  # no more than it was given, though it had room
    assert used(STRUCTURE, SHARES, few, room._replace(memory=4 * (3 * 40 + 8 * 20)), 8) == ((1, 3), (0, 3))
    assert used(STRUCTURE, SHARES, few, Limits(100, 100, 100), 8) is None


def test_it_asks_once_and_again_when_nobody_answers():
    o = own()
    assert o.wants(0)
    question = o.seen("d", "t", SHARES, Limits(1, 2, 3), 8, 0)
    assert question
    assert (question.asked, question.importance) == (1, SHARES)
    assert (question.bytes, question.memory, question.macs, question.batch) == (1, 2, 3, 8)
    assert not o.wants(PATIENCE - 1)
    assert o.wants(PATIENCE)
    again = o.seen("d", "t", SHARES, FREE, 8, PATIENCE)
    assert again
    assert again.asked == 2
    assert not o.answered(Submodel("d", "t", 3, 0, 0, WHOLE), PATIENCE + 1)  # it did not ask that yet
    assert o.candidates == ()
    assert o.answered(Submodel("d", "t", 1, 0, 0, WHOLE), PATIENCE + 2)  # to the first question: a slow cloud
    assert o.candidates == WHOLE
    assert not o.answered(Submodel("d", "t", 2, 0, 0, ((0, 3), (0, 3))), PATIENCE + 3)  # it waits for none any more
    assert o.candidates == WHOLE
    assert not o.wants(10**9)


def test_a_refusal_or_a_choice_that_cannot_be_is_asked_again_later():
    for answer in (Submodel("d", "t", 1, 0, 0, (), "too little memory"), Submodel("d", "t", 1, 0, 0, ((0,), (9,)))):
        o = own()
        assert o.wants(0)
        o.seen("d", "t", SHARES, FREE, 8, 0)
        o.answered(answer, 10)
        assert o.why
        assert not o.candidates
        assert not o.wants(10 + AGAIN - 1)
        assert o.wants(10 + AGAIN)


def test_the_selector_is_fetched_and_not_sent():
    assert own().blocks(((0, 3), (1, 2, 3))) == ((0, 1, 2, 6, 7), (0, 2, 6, 7))


def test_a_watch_sees_a_loss_that_stays_up():
    w = Watch(2, 0.25)
    assert [w.hear(x) for x in (1.0, 0.8, 0.8, 0.9, 2.0)] == [None, False, False, False, True]
    assert [w.hear(x) for x in (0.8, 0.7, 0.9)] == [None, False, False]  # judged by what came since
    assert [w.hear(x) for x in (math.nan, math.inf, 0.9)] == [None, None, False]
    assert Watch(1, 0.0).hear(10.0**9) is None


def test_it_adapts_by_itself_before_it_asks():
    o = settled(window=1, drift=0.25)
    o.trained(1.0)
    assert not o.wants(10)
    o.trained(2.0)  # drift
    assert o.wants(10)
    other = tuple(tuple(reversed(layer)) for layer in SHARES)
    assert o.seen("d", "t", other, FREE, 8, 10) is None  # it says nothing to anybody
    assert o.shares == other
    assert not o.wants(10)
    o.trained(1.9)  # it did not help
    assert o.wants(20)
    question = o.seen("d", "t", other, FREE, 8, 20)
    assert question
    assert question.asked == 2
    assert o.candidates == WHOLE  # meanwhile it goes on with what it has
    assert o.answered(Submodel("d", "t", 2, 0, 0, ((0, 3), (1, 3))), 30)
    assert o.candidates == ((0, 3), (1, 3))
    o.trained(1.9)  # with another model what was best before does not count
    assert not o.wants(40)


def test_what_helped_is_forgotten():
    o = settled(window=1, drift=0.25)
    for before, local in ((1.0, None), (2.0, True), (1.1, None), (2.0, True)):
        o.trained(before)
        assert o.wants(10) == bool(local)
        if local:
            assert o.seen("d", "t", SHARES, FREE, 8, 10) is None


@pytest.mark.parametrize(
    ("gain", "before", "after", "sends"),
    [(None, 1.0, 9.0, True), (0.1, 1.0, 0.9, True), (0.1, 1.0, 0.95, False), (0.1, math.nan, 1.0, True)],
)
def test_the_upload_condition(gain, before, after, sends):
    assert worth_sending(Modules(gain=gain), before, after) == sends


# ------------------------------------------------------------------ on a device


def test_a_busy_device_drops_modules_and_takes_them_up_again_and_asks_nobody():
    sizes = Known.layout.sizes
    places = tuple(Place(0, i, f"k{i}", 0) for i in range(len(sizes)))
    a = Announcement(
        task="t", tenant="default", round=1, open=True, cause=Ref("led", 5), model="m", model_args={}, data="d",
        data_args={}, training=Training(batch=8), sizes=sizes, unit=-24, largest=1.0, base=Manifest("x", 0, places),
        deadline=10**9, partial=True, modules=Modules(memory=1.0),
    )  # fmt: skip
    load = {1_000: 0.0, 11_000: 0.3, 21_000: 0.0}
    whole = STRUCTURE.cost(STRUCTURE.whole).memory(8)
    d = Device("d", 0, abilities={"memory": whole / 1e6 + 1e-9}, zone="east", busy=lambda now: load.get(now, 0.0))
    d.own["t"], d.sizes["t"] = settled(), (20, 2)
    board = Board("east", {"t": a}, {"t": 0}, {"t": ""})
    list(d.wake(0, {"east": board}))  # it comes
    owed = []
    for now in load:
        d.jobs.clear()
        acts = list(d.wake(now, {"east": board}))
        assert not [x for x in acts if isinstance(x, Look)]
        (wish,) = [x for x in acts if isinstance(x, Wish)]
        assert isinstance(wish.job.work, Portion)
        owed.append(wish.job.work.sent)
    assert owed[0] == owed[2] == (0, 2, 3, 4, 5, 6, 7)
    assert set(owed[1]) < set(owed[0])
    assert 0 in owed[1]
    assert d.own["t"].asked == 1


def test_a_device_that_waits_for_a_sub_model_is_asking():
    d = Device("d", 0, zone="east", awake=True)
    assert d.state == "idle"
    d.own["t"] = own()
    assert d.own["t"].wants(0)
    assert d.state == "asking"
