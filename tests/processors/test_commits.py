"""When an aggregator commits, and how much memory that takes: sums go out piece by piece, a large one before the next is begun."""

import numpy as np
import pytest

from processors import aggregator, claims, patience
from processors.accumulator import Accumulator
from processors.aggregator import Aggregator
from processors.claims import Claims
from schemas.blocks import DeltaBlock, Manifest, SumBlock
from schemas.facts import Claimed, Committed, Opened
from schemas.messages import Ref
from schemas.partitioner import shard_of
from streams.ledger import Holder
from tests.processors.rig import DEVICES, NS, START, P, Rig, Z, blocks, oracle

SMALL = (4, 3, 5)


def opened(**changes) -> Opened:
    given = {
        "token": 1, "task": "t", "round": 1, "epoch": 1, "source": Ref("g", 0), "base": Manifest("m", 0, ()), "demand": 2,
        "places": 2, "minimum": 1, "deadline": 10**9, "grace": 0, "lease": 10**6, "staleness": 0, "sizes": SMALL,
        "unit": -24, "largest": 2**40, "heaviest": 1000,
    }  # fmt: skip
    return Opened(**(given | changes))


def filled(blocks=(0, 2)) -> Accumulator:
    acc = Accumulator(1, 0)
    for i in blocks:
        data = np.full(SMALL[i], i + 1, "<i4").data.cast("B")
        acc.count(DeltaBlock("t", 1, 0, "phone", i, "int32", 0, 3, 3, 0, data), opened())
    return acc


def test_pieces_are_made_as_they_go_and_the_sum_is_let_go_when_all_lie() -> None:
    acc = filled()
    acc.seal("t/1/l/1", first=6, partitions=8)
    assert acc.unstored == 3
    first = list(acc.hand_out("t", 1))
    assert [place.key for place, _ in first] == ["t/1/l/1/bits"]
    rest = list(acc.hand_out("t", 9))
    assert [place.key for place, _ in rest] == ["t/1/l/1/0", "t/1/l/1/2"]  # block 1 has nothing
    assert len({place.partition for place, _ in first + rest}) == 3  # side by side
    for _, message in rest:
        assert isinstance(message, SumBlock)
        assert np.frombuffer(message.data, "<i8").tolist() == [message.block + 1] * SMALL[message.block]
    for n, (place, _) in enumerate(first + rest):
        assert acc.total is not None
        assert not acc.stored(place.key + "x", (0, 0))
        assert acc.stored(place.key, (place.partition, n))
    assert acc.total is None
    fact = acc.committed("t")
    assert fact.bitmap
    assert [p and p.offset for p in (fact.bitmap, *fact.sums)] == [0, 1, None, 2]
    assert fact.weights == (3, 0, 3)


def test_nothing_counted_is_nothing_to_store() -> None:
    acc = Accumulator(1, 0)
    acc.seal("t/1/l/1", 0, 8)
    assert acc.unstored == 0
    assert list(acc.hand_out("t", 9)) == []


@pytest.mark.parametrize(("window", "heavy"), [(1, 0), (16, 0), (1, 2**25)])
def test_limits_on_memory_change_no_bit(monkeypatch: pytest.MonkeyPatch, window: int, heavy: int) -> None:
    """Deltas come while the sum before them is written; with `HEAVY` at 0 there is never a second one beside it."""
    monkeypatch.setattr(aggregator, "WINDOW", window)
    monkeypatch.setattr(aggregator, "HEAVY", heavy)
    monkeypatch.setattr(patience, "WORTH", 10**9)
    rig = Rig(1, demand=9, minimum=1)
    rig.admit(1, DEVICES)
    rig.memory.network = lambda host, send: [40 if send.topic.endswith(".partials") else rig.memory.delay()]
    sent = [b for d in DEVICES for b in blocks(d, rig.slot(1, d))]
    most = 0
    for b in sent:
        rig.send(b)
        for _ in range(25):
            rig.memory.run(limit=1)
            most = max(most, sums(rig))
    assert rig.vector(rig.finalised(1).manifest).tobytes() == oracle(START, sent).tobytes()
    assert rig.counts(1) == {"counted": 18}
    assert len(rig.facts(Committed)) >= 2
    assert most == (2 if heavy else 1)


def sums(rig: Rig) -> int:
    """How many sums the aggregator holds in memory."""
    worker = rig.aggregators[0].processor
    assert isinstance(worker, Aggregator)
    return sum(acc.total is not None for work in worker.work.values() for acc in work.accumulators())


@pytest.mark.parametrize("worth", [1, 10**9])
def test_a_commit_is_put_off_as_its_sum_is_dear(monkeypatch: pytest.MonkeyPatch, worth: int) -> None:
    """12 values are 96 bytes: at a byte for a ms, 96 ms, which the commit interval is longer than; at 1/1000, LONGEST."""
    monkeypatch.setattr(patience, "WORTH", worth / 1000)
    rig = Rig(1, demand=9, minimum=1, deadline_s=60.0, lease_s=90.0)
    rig.admit(1, DEVICES)
    began = rig.memory.now
    rig.send(*blocks(DEVICES[0], rig.slot(1, DEVICES[0])))
    rig.until(lambda: bool(rig.facts(Committed)))
    waited = rig.memory.now - began
    assert waited >= patience.LONGEST if worth == 1 else waited < 1_000


@pytest.mark.parametrize("many", [False, True])
def test_a_commit_that_does_not_pay_waits_for_more(monkeypatch: pytest.MonkeyPatch, many: bool) -> None:
    """A sum of 96 bytes at 1/10 byte for a ms: about a second, if four times its bytes went into it, which eight deltas of 48 are."""
    monkeypatch.setattr(patience, "WORTH", 0.1)
    rig = Rig(1, demand=9, minimum=1, deadline_s=60.0)
    rig.admit(1, DEVICES)
    began = rig.memory.now
    for d in DEVICES[: 8 if many else 7]:
        rig.send(*blocks(d, rig.slot(1, d)))
    rig.until(lambda: bool(rig.facts(Committed)))
    waited = rig.memory.now - began
    assert waited < 2_000 if many else 5 * 960 < waited < 7 * 960


def test_devices_that_delivered_do_not_lapse_while_their_commit_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WORTH", 0.001)
    rig = Rig(1, demand=4, over_commit=1.0, minimum=1, deadline_s=60.0, lease_s=20.0)
    rig.admit(1, DEVICES[:4])
    for d in DEVICES[:3]:
        rig.send(*blocks(d, rig.slot(1, d)))
    rig.memory.run(limit=22_000)
    assert sorted(rig.round(1).lapsed) == [rig.slot(1, DEVICES[3])]


def test_a_round_that_takes_no_more_devices_waits_for_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that came have delivered, and are fewer than it wanted."""
    monkeypatch.setattr(patience, "WORTH", 0.001)
    rig = Rig(1, demand=3, minimum=1, fill_s=2.0, deadline_s=300.0, lease_s=120.0)
    rig.admit(1, DEVICES[:2])
    began = rig.memory.now
    for d in DEVICES[:2]:
        rig.send(*blocks(d, rig.slot(1, d)))
    rig.finalised(1)
    assert rig.memory.now - began < 4_000


def test_two_workers_commit_as_soon_as_the_demand_is_there_for_all_they_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """More devices are at work than the round needs: who has its share commits, then who has what is missing."""
    monkeypatch.setattr(patience, "WORTH", 0.001)  # else they wait for more, for half a minute
    rig = Rig(2, demand=4, over_commit=2.0, minimum=1, deadline_s=60.0)
    rig.admit(1, DEVICES[:8])
    rig.until(lambda: {h.holder for h in rig.zone.shards} == {"agg-0", "agg-1"})
    at = {n: [d for d in DEVICES[:8] if rig.zone.shards[shard_of(d, P)].holder == f"agg-{n}"] for n in (0, 1)}
    began = rig.memory.now
    for d in (*at[0][:2], *at[1][:2]):  # neither has four
        rig.send(*blocks(d, rig.slot(1, d)))
    rig.finalised(1)
    assert rig.memory.now - began < 3_000


@pytest.mark.parametrize("kind", [{}, {"refill": 1, "staleness": 2}])
def test_unequal_workers_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch, kind: dict[str, int]) -> None:
    """One has three of the four deltas: of what is missing after its first commit, either has its share."""
    monkeypatch.setattr(patience, "WORTH", 0.001)  # else they wait for more, for half a minute
    rig = Rig(2, demand=4, over_commit=2.0, minimum=1, deadline_s=60.0, **kind)
    rig.admit(1, DEVICES[:8])
    rig.until(lambda: {h.holder for h in rig.zone.shards} == {"agg-0", "agg-1"})
    at = {n: [d for d in DEVICES[:8] if rig.zone.shards[shard_of(d, P)].holder == f"agg-{n}"] for n in (0, 1)}
    began = rig.memory.now
    for d in (*at[0][:3], *at[1][:1]):
        rig.send(*blocks(d, rig.slot(1, d)))
        rig.memory.run(limit=50)
    assert rig.finalised(1).devices == 4
    assert rig.memory.now - began < 3_000


# ------------------------------------------------------------------ hand-over


def joined(monkeypatch: pytest.MonkeyPatch, hand_over: int) -> tuple[Rig, int]:
    """Two workers, of which one joined while deltas came; and how many blocks were read more often than once."""
    monkeypatch.setattr(aggregator, "HAND_OVER", hand_over)
    monkeypatch.setattr(patience, "WORTH", 0.001)  # commits are dear
    rig = Rig(1, demand=9, minimum=1, deadline_s=60.0)
    rig.admit(1, DEVICES)
    sent = [b for d in DEVICES for b in blocks(d, rig.slot(1, d))]
    for b in sent[:9]:
        rig.send(b)
        rig.memory.run(limit=20)
    rig.aggregators.append(rig.memory.host(lambda life: Aggregator(NS, Z, "agg-1", life, 200, 500)))
    for b in sent[9:]:
        rig.send(b)
        rig.memory.run(limit=20)
    final = rig.finalised(1)
    assert rig.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert {h.holder for h in rig.zone.shards} == {"agg-0", "agg-1"}
    workers = [host.processor for host in rig.aggregators]
    read = sum(work.blocks for w in workers if isinstance(w, Aggregator) for work in w.work.values())
    return rig, read - len(sent)


def test_nothing_is_read_twice_when_a_worker_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, again = joined(monkeypatch, aggregator.HAND_OVER)
    assert again == 0
    given_back = [f for f in rig.facts(Claimed) if not f.holder]
    assert [len(f.seats) for f in given_back] == [2]  # its share, at once, and no other


def test_without_patience_what_was_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joined(monkeypatch, 0)[1] > 0


def test_claims_wait_for_a_living_holder_only() -> None:
    ours, patience = Claims("a", "2", 2_000), 2_000
    ours.want(frozenset({0, 1, 2, 3}))
    seats = {0: Holder(), 1: Holder("a", "1", 5), 2: Holder("b", "1", 6), 3: Holder("b", "1", 6)}

    def taken(now: int) -> set[int]:
        claim = ours.make(seats, now)
        return set(claim.seats) if claim else set()

    assert taken(0) == {0, 1}  # nobody's, and its own of an earlier life
    seats |= {0: Holder("a", "2", 8), 1: Holder("a", "2", 8)}
    ours.alive([3], 1_500)
    assert taken(patience - 1) == set()
    assert taken(patience) == {2}
    seats[2] = Holder("a", "2", 9)
    assert taken(3_499) == set()
    assert taken(3_500) == {3}


def test_a_holder_that_lives_for_ever_is_not_waited_for_for_ever() -> None:
    ours = Claims("a", "1", 2_000)
    ours.want(frozenset({0}))
    for now in range(0, claims.LONGEST_PAUSE, 500):
        assert ours.make({0: Holder("b", "1", 6)}, now) is None
        ours.alive([0], now)
    assert ours.make({0: Holder("b", "1", 6)}, claims.LONGEST_PAUSE)


def test_giving_back_is_said_again_until_it_is_so() -> None:
    ours = Claims("a", "1")
    seats = {0: Holder("a", "1", 5), 1: Holder("a", "1", 5), 2: Holder("b", "1", 6)}
    ours.want(frozenset({1}))
    assert ours.give_back(seats, lambda s: False, 0) is None  # something is to be committed
    said = Claimed("", "1", {0: 5})
    assert ours.give_back(seats, lambda s: True, 100) == said
    assert ours.give_back(seats, lambda s: True, 200) is None
    assert ours.give_back(seats, lambda s: True, 100 + claims.AGAIN) == said
    seats[0] = Holder("", "1", 9)
    assert ours.give_back(seats, lambda s: True, 9_000) is None


def test_what_lag_tools_are_told_is_what_accepted_commits_cover() -> None:
    r = Rig(aggregators=2)
    who = DEVICES[:3]
    r.admit(1, who)
    for a in r.aggregators:
        a.freeze()
    sent = r.send(*[b for d in who for b in blocks(d, r.slot(1, d))])
    r.memory.run(limit=2_000)

    def lag() -> int:
        marks = r.memory.marks.get(f"{NS}.{Z}.lag", {})
        return sum(r.memory.span(r.deltas.name, s)[1] - marks.get((r.deltas.name, s), 0) for s in range(P))

    assert lag() == len(sent), "nobody reads"
    for a in r.aggregators:
        a.thaw()
    r.finalised(1)
    r.until(lambda: lag() == 0)
    assert {at for marks in r.memory.marks.values() for at in marks} == {(r.deltas.name, s) for s in range(P)}
