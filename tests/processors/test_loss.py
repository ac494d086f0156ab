"""What is gone stops its task and no other, is said in the ledger, and is gone on without only when a person says so."""

import pytest

from schemas.facts import Abandoned, Committed, Finalised, Lost
from schemas.partitioner import shard_of
from schemas.topics import topic
from streams.ledger import identity
from tests.processors.rig import DEVICES, NS, START, P, Rig, Z, blocks, oracle

PARTIALS = topic(NS, Z, "partials").name


def abandon(r: Rig) -> None:
    loss = r.zone.tasks["t"].loss
    assert loss
    r.put(topic(NS, Z, "ledger"), Abandoned("t", loss.at, "ann", "cannot be had again"))


def stands(r: Rig) -> bool:
    return bool(r.zone.tasks["t"].loss)


def rest(r: Rig, limit: int = 5_000) -> None:
    """Time passes, and nothing happens to the task."""
    r.memory.run(limit=limit)
    assert stands(r)
    assert not r.facts(Finalised)
    assert all(h.alive for h in (r.leader, *r.aggregators))


def same_shard(count: int, shard: int = 0) -> list[str]:
    return [d for d in (f"p-{i}" for i in range(200)) if shard_of(d, P) == shard][:count]


@pytest.mark.parametrize("aggregators", [1, 2])
def test_retention_that_overtook_the_fold(aggregators):
    r = Rig(aggregators, deadline_s=40.0)
    who = same_shard(3)
    r.admit(1, who)
    for a in r.aggregators:
        a.crash()
    sent = [b for d in who for b in blocks(d, r.slot(1, d))]
    r.send(*sent)
    r.memory.cut(r.deltas.name, 0, 2)
    for a in r.aggregators:
        a.restart()
    r.until(lambda: stands(r))
    (lost,) = r.facts(Lost)
    assert lost.ranges == {0: (0, 2)}
    assert "retention was too short" in lost.what
    rest(r)
    abandon(r)
    final = r.finalised(1)
    assert final.devices == 2
    assert r.vector(final.manifest).tobytes() == oracle(START, sent[2:]).tobytes()
    assert r.round(1).tally.lost == 2
    assert identity(r.zone.tasks["t"], 1)


def test_a_log_cut_while_it_is_read():
    """What was read before is committed; what is gone is what comes after it."""
    r = Rig(deadline_s=40.0)
    who = same_shard(3)
    r.admit(1, who)
    sent = [b for d in who for b in blocks(d, r.slot(1, d))]
    r.send(*sent[:2])
    r.until(lambda: bool(r.facts(Committed)))
    r.aggregators[0].freeze()
    r.send(*sent[2:])
    r.memory.cut(r.deltas.name, 0, 4)
    r.memory.run(limit=100)
    r.aggregators[0].thaw()
    r.until(lambda: stands(r))
    assert r.facts(Lost)[0].ranges == {0: (2, 4)}
    abandon(r)
    assert r.vector(r.finalised(1).manifest).tobytes() == oracle(START, [*sent[:2], *sent[4:]]).tobytes()


def test_a_log_that_lost_its_end():
    r = Rig(deadline_s=20.0)
    who = same_shard(3)
    r.admit(1, who)
    sent = [b for d in who for b in blocks(d, r.slot(1, d))]
    r.send(*sent[:4])
    r.until(lambda: sum(c.counts.counted for c in r.facts(Committed)) == 4)
    r.aggregators[0].crash()
    r.memory.lose(r.deltas.name, 0, 1)
    r.aggregators[0].restart()
    r.until(lambda: stands(r))
    assert r.facts(Lost)[0].ranges == {0: (4, 1)}
    assert "lost its end" in r.facts(Lost)[0].what
    rest(r)
    abandon(r)
    r.send(*sent[4:])  # at offsets that were used before
    final = r.finalised(1)
    assert r.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert identity(r.zone.tasks["t"], 1)


@pytest.mark.parametrize("what", ["sum", "bitmap"])
def test_partials_that_are_gone(what):
    r = Rig(2, deadline_s=40.0, minimum=1)
    who = [same_shard(1, s)[0] for s in range(3)]
    r.admit(1, who)
    sent = [blocks(d, r.slot(1, d)) for d in who]
    r.send(*sent[0])
    r.until(lambda: bool(r.facts(Committed)))
    first = r.facts(Committed)[0]
    gone = [p for p in first.sums if p] if what == "sum" else [first.bitmap]
    for place in gone:
        r.memory.topics[PARTIALS][place.partition][place.offset].key = "somebody else's"
    if what == "bitmap":  # asked for by whoever takes the shard over
        for a in r.aggregators:
            a.crash()
        r.memory.run(limit=100)
        for a in r.aggregators:
            a.restart()
    else:
        r.send(*sent[1], *sent[2])
    r.until(lambda: stands(r))
    (lost,) = r.facts(Lost)
    assert lost.commits == (r.round(1).commits[0].offset,)
    rest(r)
    abandon(r)
    r.send(*sent[0], *sent[1], *sent[2])  # the first is not counted again: nobody could say that it never was
    final = r.finalised(1)
    assert r.vector(final.manifest).tobytes() == oracle(START, [*sent[1], *sent[2]]).tobytes()
    assert (final.devices, r.round(1).counts.incomplete) == (2, 2 if what == "bitmap" else 0)  # else round 1 was closed
    assert identity(r.zone.tasks["t"], 1)


def test_a_loss_outlives_every_process():
    r = Rig(2, deadline_s=40.0)
    who = same_shard(3)
    r.admit(1, who)
    for a in r.aggregators:
        a.crash()
    r.send(*(b for d in who for b in blocks(d, r.slot(1, d))))
    r.memory.cut(r.deltas.name, 0, 1)
    for a in r.aggregators:
        a.restart()
    r.until(lambda: stands(r))
    for host in (r.leader, *r.aggregators):
        host.crash()
    r.memory.run(limit=2_000)
    for host in (r.leader, *r.aggregators):
        host.restart()
    r.memory.run(limit=3_000)
    rest(r)
    assert len(r.facts(Lost)) == 1
    abandon(r)
    assert r.finalised(1).devices == 2


def test_registrations_are_refused_while_a_task_stands_still():
    r = Rig(deadline_s=40.0)
    who = same_shard(2)
    r.admit(1, who)
    r.aggregators[0].crash()
    r.send(*(b for d in who for b in blocks(d, r.slot(1, d))))
    r.memory.cut(r.deltas.name, 0, 1)
    r.aggregators[0].restart()
    r.until(lambda: stands(r))
    r.register(1, DEVICES[:1])
    r.memory.run(limit=500)
    assert [m.device for m in r.messages("admissions") if type(m).__name__ == "Refusal"] == DEVICES[:1]
