"""Asynchronous rounds: deltas of older versions count with a weight that falls with their age (FedBuff)."""

import math

import numpy as np
import pytest

from learning.aggregation import add, mean, staleness_factor
from processors import selector
from processors.judge import judge
from processors.zone_leader import FRACTION
from schemas.blocks import slices
from schemas.facts import Closed, Committed
from streams.ledger import identity
from tests.processors.rig import DEVICES, SIZES, START, UNIT, Rig, blocks

ASYNC = {"demand": 2, "over_commit": 3.0, "minimum": 1, "refill": 1, "staleness": 2, "deadline_s": 60.0}


def step(base: np.ndarray, counted: list) -> np.ndarray:
    """base + Σ f·w·δ / (2^10 · Σ w), f = floor(2^10 / sqrt(1 + s)): plain numpy. `counted`: (block, staleness)."""
    new = base.copy()
    for i, piece in enumerate(slices(SIZES)):
        here = [(b, math.isqrt(2**20 // (1 + s))) for b, s in counted if b.block == i]
        if here:
            total = sum(np.frombuffer(b.data, "<i4").astype(np.int64) * 2**b.exponent * f for b, f in here)
            new[piece] = base[piece].astype(np.float64) + total * 2.0 ** (UNIT - 10) / sum(b.weight for b, _ in here)
    return new


def test_fedbuff_s_own_example():
    """baselines.md §7: deltas 0.5, -0.2, 0.1 with staleness 0, 1, 3 give 0.136193, divided by their number."""
    total = np.zeros(1, np.int64)
    for value, s in ((0.5, 0), (-0.2, 1), (0.1, 3)):
        q = np.array([round(value * 2**24)], np.int32)
        add(total, q, 0, staleness_factor(s, FRACTION))
    assert mean(total, 3, -24 - FRACTION)[0] == pytest.approx(0.136193, abs=2e-5)


def test_the_weight_is_near_one_over_the_root():
    for s in range(21):
        assert staleness_factor(s, FRACTION) / 2**FRACTION == pytest.approx(1 / math.sqrt(1 + s), rel=5e-3)
    assert staleness_factor(0, FRACTION) == 2**FRACTION
    assert staleness_factor(10**9, FRACTION) == 1


@pytest.mark.parametrize("aggregators", [1, 3])
def test_a_stale_delta_counts_in_the_round_it_falls_into(aggregators):
    r = Rig(aggregators, **ASYNC)
    r.admit(1, DEVICES[:6])
    sent = {d: blocks(d, r.slot(1, d), 1) for d in DEVICES[:6]}
    model, at = START, 0
    for n in (1, 2, 3):
        mine = DEVICES[at : at + 2]
        at += 2
        r.until(lambda n=n: r.at(n, "open"))
        r.send(*(b for d in mine for b in sent[d]))
        final = r.finalised(n)
        model = step(model, [(b, n - 1) for d in mine for b in sent[d]])
        assert r.vector(final.manifest).tobytes() == model.tobytes()
        assert final.devices == 2
        assert identity(r.zone.tasks["t"], n)
    assert sum(d.round < f.round for f in r.facts(Committed) for d in f.done) == 4


def test_what_is_older_than_the_task_allows_is_late():
    r = Rig(**ASYNC)
    r.admit(1, DEVICES[:3])
    old = blocks(DEVICES[0], r.slot(1, DEVICES[0]), 1)
    for n in (1, 2, 3):
        who = DEVICES[3 + 2 * (n - 1) : 5 + 2 * (n - 1)]
        r.admit(n, who)
        r.send(*(b for d in who for b in blocks(d, r.slot(n, d), n)))
        r.finalised(n)
    r.until(lambda: r.at(4, "open"))
    r.send(*old)
    r.until(lambda: r.round(4).counts.late == 2)


def test_what_comes_between_two_rounds_falls_into_the_next():
    r = Rig(**ASYNC)
    r.admit(1, DEVICES[:4])
    sent = {d: blocks(d, r.slot(1, d), 1) for d in DEVICES[:4]}
    r.send(*(b for d in DEVICES[:2] for b in sent[d]))
    r.until(lambda: bool(r.facts(Closed)))
    r.leader.crash()
    r.send(*(b for d in DEVICES[2:4] for b in sent[d]))
    r.memory.run(limit=3_000)
    assert r.zone.tasks["t"].round == 1  # as the dead leader saw it: nobody opened round 2
    r.leader.restart()
    first = r.vector(r.finalised(1).manifest)
    stale = r.vector(r.finalised(2).manifest)
    assert stale.tobytes() == step(first, [(b, 1) for d in DEVICES[2:4] for b in sent[d]]).tobytes()


def test_a_copy_of_a_stale_delta_is_a_duplicate_in_a_later_round():
    r = Rig(**ASYNC)
    r.admit(1, DEVICES[:4])
    a, b = (blocks(d, r.slot(1, d), 1) for d in DEVICES[:2])
    r.send(*a, *b)
    r.finalised(1)
    r.until(lambda: r.at(2, "open"))
    r.send(*a)
    r.until(lambda: r.round(2).counts.duplicate == 2)


def test_places_are_given_anew_when_enough_are_free():
    r = Rig(**{**ASYNC, "demand": 4, "over_commit": 1.0, "refill": 2})
    r.admit(1, DEVICES[:4])
    r.register(1, DEVICES[4:6])
    r.memory.run(limit=500)
    assert len(r.round(1).devices) == 4
    r.send(*blocks(DEVICES[0], r.slot(1, DEVICES[0]), 1))
    r.until(lambda: bool(r.round(1).done))
    r.register(1, DEVICES[4:6])
    r.memory.run(limit=500)
    assert len(r.round(1).devices) == 4  # one is free, two are wanted
    r.send(*blocks(DEVICES[1], r.slot(1, DEVICES[1]), 1))
    r.until(lambda: len(r.round(1).done) == 2)
    r.register(1, DEVICES[4:7])
    r.until(lambda: len(r.round(1).devices) == 6)
    r.register(1, DEVICES[7:9])
    r.memory.run(limit=500)
    assert len(r.round(1).devices) == 6


def test_blocks_that_come_in_the_grace_are_not_a_commit_each():
    r = Rig(1, **{**ASYNC, "over_commit": 10.0, "grace_s": 5.0})
    who = [f"d{i}" for i in range(20)]
    r.admit(1, who)
    for d in who:
        r.send(*blocks(d, r.slot(1, d), 1))
        r.memory.run(limit=50)
    r.finalised(1)
    assert len([c for c in r.facts(Committed) if c.round == 1]) <= 10


def test_control_staleness_ignored_goes_red(monkeypatch):
    from processors import accumulator

    monkeypatch.setattr(accumulator, "staleness_factor", lambda s, fraction: 2**fraction)
    with pytest.raises(AssertionError):
        test_a_stale_delta_counts_in_the_round_it_falls_into(1)


def test_control_bitmaps_of_older_rounds_forgotten_goes_red(monkeypatch):
    from processors import aggregator

    def blind(task, t, s, key, b, before, fresh):
        class Nothing:
            known = staticmethod(lambda round, slot, block: round == t.at[s] and before.known(round, slot, block))
            given_up = before.given_up

        return judge(task, t, s, key, b, Nothing(), fresh)  # type: ignore[arg-type]

    monkeypatch.setattr(aggregator, "judge", blind)
    with pytest.raises(AssertionError):
        test_a_copy_of_a_stale_delta_is_a_duplicate_in_a_later_round()


def test_the_places_that_are_free_are_counted_once_for_all_who_wait(monkeypatch):
    """To count them takes a look at every slot: many who ask at once must not each take one."""
    counted, decided = [], []
    count, decide = selector.places_taken, selector.Selector._decide
    monkeypatch.setattr(selector, "places_taken", lambda t: counted.append(1) or count(t))
    monkeypatch.setattr(selector.Selector, "_decide", lambda self, now: decided.append(1) or decide(self, now))
    r = Rig(0, **{**ASYNC, "demand": 3})
    r.until(lambda: r.at(1, "open"))
    r.memory.run(limit=1_000)
    before = len(decided)
    for _ in range(20):
        r.register(1, DEVICES)
    r.until(lambda: len(r.round(1).devices) == 9)
    r.memory.run(limit=1_000)
    assert 0 < len(counted) <= len(decided) - before
