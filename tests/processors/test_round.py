"""One zone's rounds, without devices: the test writes registrations and blocks, an aggregator and a zone leader do the rest.

The globe is a few facts the test writes. What comes out is compared with plain numpy, bit for bit.
"""

from collections import Counter

import numpy as np
import pytest
from zstandard import compress

from schemas.facts import (
    LEADERSHIP,
    Claimed,
    Committed,
    EpochClosed,
    Finalised,
    Merged,
    TaskEnded,
)
from schemas.messages import Admission, DeadLetter, Receipt, Refusal, Registration
from schemas.partitioner import shard_of
from schemas.topics import GLOBAL, topic
from schemas.wire import encode
from streams.processor import Send
from tests.processors.rig import DEVICES, NS, START, P, Rig, Z, blocks, changed, oracle

# ------------------------------------------------------------------ rounds that give a model


@pytest.mark.parametrize("aggregators", [1, 2, 3])
def test_rounds_are_bit_for_bit_fedavg(aggregators):
    rig = Rig(aggregators, rounds=3)
    model = START
    for n in (1, 2, 3):
        who = DEVICES[n : n + 3]
        rig.admit(n, who)
        sent = [b for d in who for b in blocks(d, rig.slot(n, d), n)]
        rig.send(*sent)
        final = rig.finalised(n)
        model = oracle(model, sent)
        assert rig.vector(final.manifest).tobytes() == model.tobytes()
        assert (final.devices, final.samples, final.loss) == (3, sum(b.weight for b in sent if not b.block), 21)
        assert rig.counts(n) == {"counted": 6}
    rig.memory.run(limit=10_000)
    assert rig.at(3, "finalised")  # the epoch asked for three
    assert [f.round for f in rig.facts(Finalised)] == [1, 2, 3]


def test_the_order_of_blocks_changes_no_bit():
    def model(order: int) -> bytes:
        rig = Rig(2, seed=order)
        rig.admit(1, DEVICES[:3])
        sent = [b for i, d in enumerate(DEVICES[:3]) for b in blocks(d, rig.slot(1, d))]
        assert {rig.slot(1, d) for d in DEVICES[:3]} == {0, 1, 2}
        np.random.default_rng(order).shuffle(sent)  # type: ignore[arg-type]
        for b in sent:
            rig.send(b)
            rig.memory.run(limit=150 * order)
        return rig.vector(rig.finalised(1).manifest).tobytes()

    assert len({model(i) for i in range(4)}) == 1


def test_a_device_that_sends_half_counts_for_that_half():
    rig = Rig()
    rig.admit(1, DEVICES[:3])
    sent = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))][:-1]  # the last loses its second block
    rig.send(*sent)
    final = rig.finalised(1)
    assert rig.facts(type(rig.round(1).closed))[0].why == "deadline"
    assert final.devices == 2
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()


def test_a_block_nobody_sends_keeps_its_values():
    rig = Rig(minimum=1, deadline_s=2.0)
    rig.admit(1, DEVICES[:2])
    whole, half = (blocks(d, rig.slot(1, d)) for d in DEVICES[:2])
    rig.send(half[0])
    rig.memory.run(limit=1000)
    rig.send(whole[0], whole[1])
    assert rig.vector(rig.finalised(1).manifest).tobytes() == oracle(START, [half[0], *whole]).tobytes()
    rig.admit(2, DEVICES[2:5])
    base = rig.vector(rig.finalised(1).manifest)
    rig.send(*(blocks(d, rig.slot(2, d), 2)[0] for d in DEVICES[2:5]))
    assert rig.finalised(2).manifest is None  # nobody is done: fewer than the minimum
    assert rig.vector(rig.zone.tasks["t"].manifest).tobytes() == base.tobytes()  # type: ignore[arg-type]


# ------------------------------------------------------------------ outcomes


def test_a_resent_delta_counts_once():
    rig = Rig()
    rig.admit(1, DEVICES[:3])
    sent = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    rig.send(*sent[:3], *sent[:3], *sent)  # within one accumulator and
    final = rig.finalised(1)
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    total = rig.counts(1)
    rig.admit(2, DEVICES[3:6])
    rig.send(*sent)  # known from the bitmaps of the round before
    rig.send(*(b for d in DEVICES[3:6] for b in blocks(d, rig.slot(2, d), 2)))
    rig.finalised(2)
    total = {k: total.get(k, 0) + rig.counts(2).get(k, 0) for k in ("counted", "duplicate", "late", "invalid")}
    assert total == {"counted": 12, "duplicate": 12, "late": 0, "invalid": 0}


def test_a_duplicate_across_commits_and_owners_is_known():
    rig = Rig(2)
    rig.admit(1, DEVICES[:3])
    sent = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    rig.send(*sent[:5])
    rig.until(lambda: sum(c.counts.counted for c in rig.facts(Committed)) == 5)
    for host in rig.aggregators:  # all that remembers it dies; their shards' next owners know it from the partials
        host.crash()
        host.restart()
    rig.send(*sent)
    final = rig.finalised(1)
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert rig.counts(1) == {"counted": 6, "duplicate": 5}


def test_what_comes_after_the_close_is_late():
    rig = Rig(deadline_s=3.0)
    rig.admit(1, DEVICES[:3])
    sent = {d: blocks(d, rig.slot(1, d)) for d in DEVICES[:3]}
    rig.send(*sent[DEVICES[0]], *sent[DEVICES[1]])
    first = rig.finalised(1)
    rig.admit(2, DEVICES[3:6])
    rig.send(*sent[DEVICES[2]], *sent[DEVICES[0]])  # too late; and a copy of what was counted
    rig.send(*(b for d in DEVICES[3:6] for b in blocks(d, rig.slot(2, d), 2)))
    rig.finalised(2)
    assert rig.vector(first.manifest).tobytes() == oracle(START, sent[DEVICES[0]] + sent[DEVICES[1]]).tobytes()
    assert rig.counts(2) == {"counted": 6, "late": 2, "duplicate": 2}
    rig.admit(3, DEVICES[6:9])
    rig.send(*sent[DEVICES[0]])  # its bitmaps are forgotten: late unseen
    rig.send(*(b for d in DEVICES[6:9] for b in blocks(d, rig.slot(3, d), 3)))
    rig.finalised(3)
    assert rig.counts(3) == {"counted": 6, "late": 2}
    assert told(rig)["late"] == 4


def told(rig: Rig) -> Counter[str]:
    """Of how many blocks the receipts say what."""
    return sum((Counter({r.outcome: len(r.blocks)}) for r in rig.messages("receipts")), Counter())


def data_of(values: list[int], form: str = "<i4") -> memoryview:
    return memoryview(np.array(values, form).tobytes())


INVALID = {
    "another task's": ({"task": "u"}, "task u"),
    "another's slot": ({"slot": 1}, "is not this device's"),
    "a slot nobody has": ({"slot": 7}, "has no slot 7"),
    "a round to come": ({"round": 4}, "round 4 has no slot"),
    "a round of fantasy": ({"round": 2**63}, "has no slot"),
    "a block too many": ({"block": 2}, "the model has 2 blocks"),
    "a strange codec": ({"codec": "float32"}, "codec float32"),
    "no weight": ({"weight": 0}, "weight 0"),
    "too heavy": ({"weight": 1001}, "weight 1001"),
    "too many samples": ({"samples": 1001}, "weight"),
    "an absurd loss": ({"loss": 10**18}, "absurd"),
    "too short": ({"data": data_of([1] * 6)}, "7 values of 4 bytes"),
    "too long": ({"data": data_of([1] * 8)}, "7 values of 4 bytes"),
    "not of whole values": ({"data": memoryview(b"x" * 27)}, "7 values of 4 bytes"),
    "too short for its codec": ({"codec": "int8", "data": data_of([1] * 6, "<i1")}, "7 values of 1 bytes"),
    "positions beyond": ({"codec": "top-k+int8", "data": memoryview(b"\7\0\1")}, "position 7 is not in a block of 7"),
    "a zstd bomb": ({"codec": "int8+zstd", "data": memoryview(compress(b"\0" * 10**7))}, "holds 1 to 7 bytes"),
    "not zstd": ({"codec": "int32+zstd"}, "not one zstd frame"),
    "too large a short value": (
        {"codec": "int8", "exponent": 38, "data": data_of([4] + [5] * 6, "<i1")},
        "larger than",
    ),
    "too large an exponent": ({"exponent": 30}, "larger than"),
    "an exponent beyond 64 bits": ({"exponent": 63, "data": data_of([0] * 7)}, "larger than"),
    "too large a value": ({"exponent": 10, "data": data_of([2**31 - 1] * 7)}, "larger than"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_blocks_are_counted_and_dead_lettered(case):
    change, reason = INVALID[case]
    rig = Rig()
    rig.admit(1, DEVICES[:3])
    good = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    first = next(b for b in good if b.slot == 0 and b.block == 0)
    bad = changed(first, **change)
    place = rig.send(bad)[0]
    rig.send(*good)  # its good twin counts all the same
    final = rig.finalised(1)
    assert rig.counts(1) == {"counted": 6, "invalid": 1}
    assert rig.vector(final.manifest).tobytes() == oracle(START, good).tobytes()
    (letter,) = rig.messages("dead-letters", GLOBAL)
    assert (letter.topic, letter.partition, letter.offset) == (rig.deltas.name, *place)
    assert reason in letter.reason
    assert letter.value == encode(bad)
    assert told(rig) == {"counted": 6, "invalid": 1}


def test_blocks_outside_the_shard_of_their_device_are_invalid():
    rig = Rig()
    rig.admit(1, DEVICES[:3])
    good = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    b = good[0]
    wrong = (shard_of(b.device, P) + 1) % P
    rig.put(rig.deltas, b, b.device, wrong)  # the key is right
    rig.put(rig.deltas, b, "somebody", shard_of(b.device, P))  # the shard is right
    rig.put(rig.deltas, b, None, shard_of(b.device, P))
    rig.send(*good)
    final = rig.finalised(1)
    assert rig.counts(1) == {"counted": 6, "invalid": 3}
    assert rig.vector(final.manifest).tobytes() == oracle(START, good).tobytes()
    assert {x.reason for x in rig.messages("dead-letters", GLOBAL)} == {"not in the shard of its device"}


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"\xc1", ()),
        (b"", ()),
        (None, ()),
        (encode(Registration("x", "t", 1)), ()),
        (encode(blocks("x", 0)[0]), (("schema-version", b"2"),)),
        (encode(blocks("x", 0)[0]), (("schema-version", b"\xff"),)),
        (encode(blocks("x", 0)[0]), (("schema-version", None),)),  # Kafka's headers may lack a value
        (b"\x91" * 5000, ()),
    ],
    ids=["bytes", "empty", "tombstone", "another type", "major 2", "no version", "null header", "deep"],
)
def test_undecodable_records_are_counted_and_dead_lettered(value, headers):
    rig = Rig()
    rig.admit(1, DEVICES[:3])
    for p in range(P):
        rig.memory.append(Send(rig.deltas.name, value, "x", p, headers=headers))
    good = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    rig.send(*good)
    final = rig.finalised(1)
    assert rig.vector(final.manifest).tobytes() == oracle(START, good).tobytes()
    rig.until(lambda: rig.zone.tasks["t"].at[0] == 2 and sum(rig.zone.tasks["t"].next) == 6 + P)
    letters = rig.messages("dead-letters", GLOBAL)
    assert len(letters) == P
    assert all(isinstance(x, DeadLetter) and x.reason and x.value == value for x in letters)
    total = Counter(rig.counts(1)) + Counter(rig.counts(2))
    assert total == {"counted": 6, "invalid": P}


def test_receipts_name_the_source_and_follow_the_commit():
    rig = Rig()
    rig.admit(1, DEVICES[:3])
    good = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    places = rig.send(*good, *good[:2])
    rig.finalised(1)
    rig.memory.run(limit=1000)
    receipts = rig.messages("receipts")
    got = [(r.device, b, r.outcome, o) for r in receipts for b, o in zip(r.blocks, r.offsets, strict=True)]
    want = [(b.device, b.block, "counted", o) for b, (_, o) in zip(good, places, strict=False)]
    want += [(b.device, b.block, "duplicate", o) for b, (_, o) in zip(good, places[6:], strict=False)]
    assert sorted(got) == sorted(want)
    assert all(isinstance(r, Receipt) for r in receipts)
    assert len(receipts) < len(got)  # one tells of all that a commit says of a delta


# ------------------------------------------------------------------ closing


def test_k_of_n_at_the_deadline():
    rig = Rig(minimum=2, deadline_s=4.0)
    rig.admit(1, DEVICES[:3])
    sent = [b for d in DEVICES[:2] for b in blocks(d, rig.slot(1, d))]  # the third is dead
    began = rig.memory.now
    rig.send(*sent)
    final = rig.finalised(1)
    assert rig.memory.now - began > 3000
    assert rig.round(1).closed.why == "deadline"  # type: ignore[union-attr]
    assert final.devices == 2
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()


def test_demand_met_closes_at_once_or_after_the_grace():
    for grace in (0.0, 2.0):
        rig = Rig(deadline_s=50.0, grace_s=grace)
        rig.admit(1, DEVICES[:3])
        rig.send(*(b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))))
        rig.until(lambda rig=rig: rig.round(1).met_at is not None)
        met = rig.round(1).met_at or 0
        rig.until(lambda rig=rig: rig.round(1).closed is not None)
        assert 1000 * grace <= rig.memory.now - met < 1000 * grace + 200
        assert rig.round(1).closed.why == "demand"  # type: ignore[union-attr]


def test_fewer_than_the_minimum_give_no_model_and_the_next_round_opens():
    rig = Rig(minimum=2, deadline_s=2.0)
    rig.admit(1, DEVICES[:3])
    rig.send(*blocks(DEVICES[0], rig.slot(1, DEVICES[0])))
    final = rig.finalised(1)
    assert (final.manifest, final.devices) == (None, 1)
    rig.admit(2, DEVICES[:3])
    assert rig.round(2).opened.base == rig.round(1).opened.base  # type: ignore[union-attr]
    sent = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(2, d), 2)]
    rig.send(*sent)
    assert rig.vector(rig.finalised(2).manifest).tobytes() == oracle(START, sent).tobytes()
    rig.until(lambda: rig.zone.tasks["t"].merged_rounds == 1)


def test_nobody_at_all():
    rig = Rig(deadline_s=1.0)
    rig.until(lambda: rig.at(3, "open"))
    assert [f.manifest for f in rig.facts(Finalised)] == [None, None]
    assert rig.facts(Committed) == []


def test_what_is_in_the_log_when_the_round_closes_counts_however_slow_its_reader():
    rig = Rig(deadline_s=3.0)
    rig.admit(1, DEVICES[:3])
    (slow,) = rig.aggregators
    slow.freeze()
    sent = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    rig.send(*sent[:4])
    rig.until(lambda: rig.at(1, "closed"))
    rig.send(*sent[4:])  # these are not in the log yet
    rig.memory.run(limit=20_000)
    assert rig.at(1, "closed")  # nobody else has the shards
    slow.thaw()
    final = rig.finalised(1)
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent[:4]).tobytes()
    assert rig.counts(1) == {"counted": 4}
    rig.until(lambda: sum(rig.zone.tasks["t"].next) == 6)
    assert rig.counts(2) == {"late": 2}


def test_a_frozen_owner_is_replaced_and_its_word_is_void_after():
    rig = Rig(2, deadline_s=20.0)
    rig.admit(1, DEVICES[:3])
    slow, _ = rig.aggregators
    sent = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    rig.send(*sent)
    rig.memory.run(limit=5)
    slow.freeze()
    final = rig.finalised(1)
    slow.thaw()
    rig.memory.run(limit=5_000)
    assert slow.stopped is None
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert rig.counts(1) == {"counted": 6}


# ------------------------------------------------------------------ admissions


def test_places_are_given_once_and_again_after_a_lease():
    rig = Rig(demand=2, minimum=1, deadline_s=60.0, lease_s=3.0)
    rig.admit(1, DEVICES[:2])
    rig.register(1, [DEVICES[0], DEVICES[2]])  # one that asks again, one too many
    rig.memory.run(limit=1000)
    answers = rig.messages("admissions")
    refusal = next(x for x in answers if isinstance(x, Refusal))
    assert (refusal.device, refusal.reason) == (DEVICES[2], "the round is full")
    slots = [(x.device, x.slot) for x in answers if isinstance(x, Admission)]
    assert sorted(set(slots)) == sorted((d, rig.slot(1, d)) for d in DEVICES[:2])
    assert len(slots) == 3  # the same slot again
    rig.send(*blocks(DEVICES[0], rig.slot(1, DEVICES[0])))
    rig.memory.run(limit=4000)
    assert rig.round(1).lapsed == {rig.slot(1, DEVICES[1])}  # who is done keeps its place
    rig.admit(1, [DEVICES[2]])
    assert rig.slot(1, DEVICES[2]) == 2
    sent = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    rig.send(*sent[2:4])  # late, but its round lasts
    final = rig.finalised(1)
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent[:4]).tobytes()


def test_a_registration_for_no_open_round_is_refused_in_words():
    rig = Rig()
    rig.until(lambda: rig.at(1, "open"))
    rig.register(5, ["x"])
    rig.put(topic(NS, Z, "registrations"), Registration("y", "nothing", 1), "y")
    rig.put(topic(NS, Z, "registrations"), Registration("z", "t", 1), "not-z")
    rig.until(lambda: len(rig.messages("admissions")) == 2)
    assert all("not open" in x.reason and x.retry_ms for x in rig.messages("admissions"))
    assert [x.reason for x in rig.messages("dead-letters", GLOBAL)] == ["the key is not the device's (z)"]
    assert rig.round(1).devices == ()


# ------------------------------------------------------------------ leadership


def test_answers_to_an_earlier_leadership_do_not_disturb_a_later_one():
    """It loses the lead while its model is being written, and has it back before the acknowledgements come."""
    rig = Rig()
    models = topic(NS, Z, "models").name
    rig.memory.network = lambda host, s: [900 if s.topic == models else rig.memory.delay()]
    rig.admit(1, DEVICES[:3])
    sent = [b for d in DEVICES[:3] for b in blocks(d, rig.slot(1, d))]
    rig.send(*sent)
    rig.until(lambda: any(a[0] == "block" for a in rig.leader.processor.requests.open.values()))  # type: ignore[attr-defined]
    rig.put(topic(NS, Z, "ledger"), Claimed("another", "1", {LEADERSHIP: rig.zone.leader.token}))
    final = rig.finalised(1)
    assert rig.leader.stopped is None
    assert rig.zone.leader.holder == "zone"
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()


def test_of_a_task_that_ends_while_it_is_finalised_the_leader_keeps_nothing():
    r = Rig()
    r.admit(1, DEVICES[:3])
    r.send(*(b for d in DEVICES[:3] for b in blocks(d, r.slot(1, d))))
    leader = r.leader.processor.leader
    r.until(lambda: bool(leader.jobs))
    ledger = topic(NS, GLOBAL, "ledger")
    for fact in (EpochClosed(1, "t", 1, "stop", {Z: 0}), Merged(1, "t", 1, None, 0, 0.0), TaskEnded(1, "t", "stopped")):
        r.put(ledger, fact)
    r.until(lambda: "t" in r.zone.over)
    assert not r.facts(Finalised), "else this shows nothing"
    assert (leader.jobs, leader.closing) == ({}, {})
