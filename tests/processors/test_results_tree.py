"""How results come in, against what Propius' leaf and root servers get wrong: copies that count, answers before the data is safe, sums
that a flush loses, that steady traffic puts off, or that a newer round overwrites."""

from typing import Any

import numpy as np

from schemas.blocks import Place
from schemas.facts import Closed, Committed, Finalised
from schemas.topics import topic
from streams.ledger import identity
from streams.memory import Host
from streams.processor import Send
from tests.processors.rig import DEVICES, NS, START, Rig, Z, blocks, oracle
from tests.processors.test_async import ASYNC, step

PARTIALS = topic(NS, Z, "partials").name


def slow(r: Rig, ms: int) -> None:
    """Sums take so long until they are stored."""

    def network(host: Host, send: Send) -> list[int]:
        return [ms if send.topic == PARTIALS else r.memory.delay()]

    r.memory.network = network


def test_one_device_that_sends_four_times_does_not_meet_a_demand_of_four():
    """As Propius' own measurement does it: its count knows no clients."""
    r = Rig(demand=4, minimum=1, deadline_s=3.0)
    r.admit(1, DEVICES[:4])
    mine = blocks(DEVICES[0], r.slot(1, DEVICES[0]))
    r.send(*(4 * mine))
    r.memory.run(limit=1_500)
    assert r.at(1, "open")
    final = r.finalised(1)
    assert final.devices == 1
    assert r.vector(final.manifest).tobytes() == oracle(START, mine).tobytes()
    assert r.counts(1) == {"counted": 2, "duplicate": 6}


def test_nobody_is_told_that_a_delta_counts_before_its_sum_is_stored_and_the_ledger_says_so():
    r = Rig()
    slow(r, 800)
    r.admit(1, DEVICES[:3])
    r.send(*(b for d in DEVICES[:3] for b in blocks(d, r.slot(1, d))))
    told: list[Any] = []
    while not told:
        assert r.memory.now < 60_000
        r.memory.run(limit=5)
        told = r.messages("receipts")
        stored = {x.key for p in range(4) for x in r.memory.records(PARTIALS, p)}
        commits = r.facts(Committed)
        assert all({p.key for p in c.sums if isinstance(p, Place)} <= stored for c in commits)
        if not stored:
            assert not commits
        if not commits:
            assert told == []
    r.finalised(1)


def test_deltas_that_keep_coming_do_not_put_off_a_sum():
    """A commit comes some time after the first block, whatever comes after: Propius waits until nothing came for a while."""
    r = Rig(demand=9, over_commit=1.0, minimum=1, deadline_s=20.0)
    r.admit(1, DEVICES[:8])
    began = r.memory.now
    while not r.facts(Committed):
        assert r.memory.now - began < 2_000
        for d in DEVICES[:8]:
            r.send(*blocks(d, r.slot(1, d)))  # again and again
        r.memory.run(limit=20)


def test_a_newer_round_overwrites_no_sum_that_is_not_stored_yet():
    """The next round's deltas are read while the last sum of the one before is on its way: each model has its own."""
    r = Rig(**ASYNC)
    slow(r, 3_000)
    r.admit(1, DEVICES[:6])
    sent = {d: blocks(d, r.slot(1, d), 1) for d in DEVICES[:6]}
    r.send(*(b for d in DEVICES[:2] for b in sent[d]))
    r.memory.run(limit=1_000)
    r.send(*sent[DEVICES[2]])  # it lies below where the round will end
    r.until(lambda: bool(r.facts(Closed)))
    r.send(*(b for d in DEVICES[3:5] for b in sent[d]))  # and these above
    r.memory.run(limit=500)
    (aggregator,) = r.aggregators
    read = {s: at for (name, s), at in aggregator.positions.items() if name == r.deltas.name}
    assert read == {s: r.memory.span(r.deltas.name, s)[1] for s in range(4)}
    assert sum(c.counts.counted for c in r.facts(Committed)) == 4  # the third device's sum is not stored yet
    model = START
    for n, who in ((1, DEVICES[:3]), (2, DEVICES[3:5])):
        final: Finalised = r.finalised(n)
        model = step(model, [(b, n - 1) for d in who for b in sent[d]])
        assert r.vector(final.manifest).tobytes() == model.tobytes()
        assert identity(r.zone.tasks["t"], n)


def test_a_sum_that_is_slow_to_store_holds_up_no_reading():
    """Propius holds one lock for all jobs while a leaf calls the root."""
    r = Rig(demand=9, over_commit=1.0, minimum=1, deadline_s=60.0)
    slow(r, 10_000)
    r.admit(1, DEVICES[:9])
    first = [b for d in DEVICES[:4] for b in blocks(d, r.slot(1, d))]
    r.send(*first)
    r.memory.run(limit=1_000)  # its sum is on its way for nine seconds more
    r.send(*(b for d in DEVICES[4:8] for b in blocks(d, r.slot(1, d))))
    r.memory.run(limit=200)
    assert r.facts(Committed) == []
    (aggregator,) = r.aggregators
    read = {s: at for (name, s), at in aggregator.positions.items() if name == r.deltas.name}
    assert read == {s: r.memory.span(r.deltas.name, s)[1] for s in range(4)}
    r.send(*blocks(DEVICES[8], r.slot(1, DEVICES[8])))
    final = r.finalised(1)
    assert final.devices == 9
    everything = [b for d in DEVICES[:9] for b in blocks(d, r.slot(1, d))]
    assert np.array_equal(r.vector(final.manifest), oracle(START, everything))
