"""Slots that owe some of a model's blocks: when they are done, what of them counts, what they cost, who may have one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from processors import judge, selector
from processors.configurator import least
from processors.order import all_there
from schemas import sets
from schemas.blocks import Layout, Tensor
from schemas.facts import Admitted, Closed, Committed
from schemas.messages import Admission, Refusal, Registration
from schemas.sets import bitmap
from schemas.task import Rounds, Submission, TaskSpec, Upload
from schemas.topics import GLOBAL, topic
from streams.ledger import Round, cost, identity, rounds
from tests.processors.rig import DEVICES, NS, SIZES, START, Rig, Z, blocks, changed, oracle
from tests.processors.test_auditor import good

HEADLESS, ALL = (0,), (0, 1)
"""The shared part alone; everything, said block by block."""
FIRST, SECOND, THIRD = DEVICES[:3]


def rig(**more: Any) -> Rig:
    return Rig(**{"partial": True, **more})


def deltas(r: Rig, owe: dict[str, tuple[int, ...]], n: int = 1) -> list[Any]:
    """Of the first three devices, the blocks that they owe, each with a weight of its own."""
    sent = [b for d in DEVICES[:3] for b in blocks(d, r.slot(n, d), n) if b.block in owe.get(d, ALL)]
    return [changed(b, weight=b.weight + 7 * b.block) for b in sent]


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("crash", [False, True])
def test_a_slot_is_done_with_the_blocks_that_it_owes(atomic: bool, crash: bool) -> None:
    r = rig(aggregators=2, atomic=atomic)
    owe = {FIRST: HEADLESS, SECOND: ALL}
    r.admit(1, DEVICES[:3], owe)
    sent = deltas(r, owe)
    assert len(sent) == 5
    r.send(*sent[::2])
    if crash:  # who takes over knows what is counted, and what each slot owes
        r.memory.run(limit=700)
        for a in r.aggregators:
            a.crash()
        r.memory.run(limit=50)
        r.aggregators[0].restart()
    r.send(*sent[1::2])
    final = r.finalised(1)
    assert r.facts(Closed)[0].why == "demand"
    assert (final.devices, final.samples) == (3, sum({b.device: b.samples for b in sent}.values()))
    assert r.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert identity(r.zone.tasks["t"], 1)
    assert good(r.memory, Z, "t", 1).devices == 3
    assert {m.device: m.blocks for m in r.messages("admissions")} == {
        FIRST: bitmap(HEADLESS, 2),
        SECOND: bitmap(ALL, 2),
        THIRD: b"",
    }


def test_what_nobody_trained_stays_bit_for_bit() -> None:
    r = rig()
    owe = dict.fromkeys(DEVICES[:3], HEADLESS)
    r.admit(1, DEVICES[:3], owe)
    r.send(*deltas(r, owe))
    final = r.finalised(1)
    assert r.vector(final.manifest)[SIZES[0] :].tobytes() == START[SIZES[0] :].tobytes()
    assert r.facts(Committed)[-1].weights[1] == 0
    assert good(r.memory, Z, "t", 1).ok


@pytest.mark.parametrize("atomic", [False, True])
def test_a_block_that_a_slot_does_not_owe_is_invalid(atomic: bool) -> None:
    r = rig(atomic=atomic)
    owe = {FIRST: HEADLESS}
    r.admit(1, DEVICES[:3], owe)
    sent, more = deltas(r, owe), blocks(FIRST, r.slot(1, FIRST))[1]
    r.send(more, *sent, more)
    final = r.finalised(1)
    assert r.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert r.counts(1) == {"counted": 5, "invalid": 2}
    slot = r.slot(1, FIRST)
    assert {x.reason for x in r.messages("dead-letters", GLOBAL)} == {f"slot {slot} of round 1 owes no block 1"}
    assert good(r.memory, Z, "t", 1).counts["invalid"] == 2


def test_a_delta_that_is_not_whole_by_its_own_set_is_given_up() -> None:
    r = rig(atomic=True)
    owe = {FIRST: ALL, SECOND: HEADLESS}
    r.admit(1, DEVICES[:3], owe)
    sent = deltas(r, owe)
    r.send(*sent[1:])  # the first block of the first device never comes
    final = r.finalised(1)
    assert r.facts(Closed)[0].why == "deadline"
    assert (r.round(1).counts.counted, r.round(1).counts.incomplete) == (3, 1)
    assert r.vector(final.manifest).tobytes() == oracle(START, sent[2:]).tobytes()


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (b"\x80\x00", "a set of the model's 2 blocks has 1 bytes, not 2"),
        (b"\xa0", "names blocks that the model does not have"),
        (b"\x00", "it is empty"),
        (b"\x40", "the shared part has 1 blocks, and only 0 of them are named: it goes whole"),
    ],
)
def test_a_set_that_cannot_be_is_refused_in_words(wish: bytes, why: str) -> None:
    r = rig()
    r.until(lambda: r.at(1, "open"))
    r.put(topic(NS, Z, "registrations"), Registration(FIRST, "t", 1, blocks=wish), FIRST)
    r.until(lambda: r.messages("admissions"))
    said = r.messages("admissions")[0]
    assert isinstance(said, Refusal)
    assert why in said.reason
    assert r.round(1).devices == ()


def test_a_task_that_takes_whole_models_refuses_a_part() -> None:
    r = rig(partial=False)
    r.until(lambda: r.at(1, "open"))
    r.register(1, [FIRST], {FIRST: HEADLESS})
    r.until(lambda: r.messages("admissions"))
    assert "its rounds are not partial" in r.messages("admissions")[0].reason


def test_who_asks_again_for_others_owes_those_of_the_first_time() -> None:
    r = rig()
    r.until(lambda: r.at(1, "open"))
    r.register(1, [FIRST, FIRST], {FIRST: HEADLESS})
    r.until(lambda: r.round(1).devices == (FIRST,))
    r.register(1, [FIRST], {FIRST: ALL})
    r.memory.run(limit=500)
    said = [m for m in r.messages("admissions") if isinstance(m, Admission)]
    assert len(said) >= 2
    assert {(m.slot, m.blocks) for m in said} == {(0, bitmap(HEADLESS, 2))}


def test_a_slot_costs_what_its_blocks_do() -> None:
    r = rig()
    r.admit(1, DEVICES[:3], {FIRST: HEADLESS, SECOND: ALL})
    o = r.round(1).opened
    assert o
    part, whole = 4 * SIZES[0] + Upload().bytes(SIZES[:1]), 4 * sum(SIZES) + Upload().bytes(SIZES)
    assert (cost(o, bitmap(HEADLESS, 2)), cost(o, bitmap(ALL, 2)), cost(o), o.cost) == (part, whole, whole, whole)
    assert r.zone.spent["default"].bytes == part + 2 * whole


@pytest.mark.parametrize(
    ("partial", "group", "blocks"), [(False, "", (3, 2, 3, 1)), (True, "x", (3, 2)), (True, "", (1,))]
)
def test_the_least_that_a_device_may_have(partial: bool, group: str, blocks: tuple[int, ...]) -> None:
    """What a tenant's day must have room for: with modules the shared part, without any the smallest block."""
    shape = Layout((Tensor("a", (5,)), Tensor("b", (4,), group)), (3, 2, 3, 1))
    s = Submission(TaskSpec("t", "m", "d", rounds=Rounds(partial=partial)), shape, Rig().model_zero())
    assert tuple(least(s)) == blocks


def test_sets_of_many_devices_fit_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selector, "SETS", 3)
    r = rig(demand=9, over_commit=1.0)
    r.until(lambda: r.at(1, "open"))
    r.register(1, DEVICES, dict.fromkeys(DEVICES, HEADLESS))
    r.until(lambda: len(r.round(1).devices) == 9)
    made = [len(f.slots) for f in r.facts(Admitted)]
    assert sum(made) == 9
    assert max(made) <= 4  # one of each partition, whatever it takes


def test_task_oriented_a_round_is_there_when_those_are_who_owe_least() -> None:
    r = rig(aggregators=0, demand=2, over_commit=2.0)
    owe = {FIRST: HEADLESS, SECOND: ALL, THIRD: HEADLESS}
    r.admit(1, DEVICES[:2], owe)

    class Landed:
        ends: dict[int, int] = {}

    class Work:
        landed = Landed()

    t = r.zone.tasks["t"]
    for landed, there in ((2, False), (3, True)):
        Landed.ends = {0: landed}
        assert all_there(Work(), t) is there  # type: ignore[arg-type]
    r.register(1, [THIRD], owe)
    r.until(lambda: len(r.round(1).devices) == 3)
    Landed.ends = {0: 2}
    assert all_there(Work(), r.zone.tasks["t"])  # type: ignore[arg-type]


# ------------------------------------------------------------------ controls


@contextmanager
def anything_counts() -> Iterator[None]:
    with patch.object(judge.sets, "has", lambda blocks, block: True):
        yield


@contextmanager
def all_is_owed() -> Iterator[None]:
    with patch.object(Round, "owed", lambda self, slot: len(self.opened.sizes)):
        yield


@contextmanager
def any_set_goes() -> Iterator[None]:
    with patch.object(selector, "objection", lambda masks, blocks: ""):
        yield


@contextmanager
def a_part_costs_as_the_whole() -> Iterator[None]:
    with patch.object(rounds, "cost", lambda o, blocks=sets.WHOLE: o.cost):
        yield


@pytest.mark.parametrize(
    ("control", "test"),
    [
        (anything_counts, lambda: test_a_block_that_a_slot_does_not_owe_is_invalid(False)),
        (all_is_owed, lambda: test_a_slot_is_done_with_the_blocks_that_it_owes(False, False)),
        (all_is_owed, lambda: test_a_slot_is_done_with_the_blocks_that_it_owes(True, False)),
        (any_set_goes, lambda: test_a_set_that_cannot_be_is_refused_in_words(b"\x40", "goes whole")),
        (a_part_costs_as_the_whole, test_a_slot_costs_what_its_blocks_do),
    ],
)
def test_control_goes_red_without(control: Any, test: Any) -> None:
    with control(), pytest.raises(AssertionError):
        test()
