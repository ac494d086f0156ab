"""What is gone stops its task and no other, is said in the ledger, and is gone on without only when a person says so."""

import pytest

from processors.work import Work
from schemas.facts import Abandoned, Admitted, Closed, Committed, Finalised, Lost
from schemas.partitioner import shard_of
from schemas.topics import topic
from streams.ledger import identity
from streams.processor import Answer, Ends, Follow, Send
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


def test_a_log_that_lost_only_what_was_fetched_and_not_handed_over():
    """The reader says that the log does not hold what it would fetch next; all that was handed over is there."""
    r = Rig(demand=3, deadline_s=20.0)
    who = same_shard(3)
    r.admit(1, who)
    sent = [b for d in who for b in blocks(d, r.slot(1, d))]
    r.send(*sent[:4])
    r.until(lambda: sum(c.counts.counted for c in r.facts(Committed)) == 4)
    a, log = r.aggregators[0], (r.deltas.name, 0)
    del a.positions[log]
    r.memory._give(a, Answer(a.tags.pop(log), (0, 4), "wanted offset 5"))
    r.send(*sent[4:])
    assert r.vector(r.finalised(1).manifest).tobytes() == oracle(START, sent).tobytes()


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


def over_and_partials_gone(**rules) -> Rig:
    """A round is over and no other opens, as in a task that is paused; what its commits stored is older than partials are kept, and
    somebody else takes the shards over."""
    r = Rig(1, rounds=1, **rules)
    r.admit(1, DEVICES[:3])
    r.send(*(b for d in DEVICES[:3] for b in blocks(d, r.slot(1, d))))
    assert r.finalised(1).devices == 3
    for p in range(P):
        r.memory.cut(PARTIALS, p, r.memory.span(PARTIALS, p)[1])
    r.aggregators[0].crash()
    r.memory.run(limit=100)
    r.aggregators[0].restart()
    r.memory.run(limit=5_000)
    return r


def test_bitmaps_of_a_round_that_takes_nothing_any_more_are_no_loss():
    r = over_and_partials_gone()
    assert not r.facts(Lost)
    again = blocks(DEVICES[0], r.slot(1, DEVICES[0]))
    r.send(*again)
    r.until(lambda: sum(r.zone.tasks["t"].next) == 8)
    assert r.zone.tasks["t"].tally.counts.late == 2
    assert identity(r.zone.tasks["t"])


def test_bitmaps_of_a_round_whose_deltas_may_come_late_are_a_loss():
    """Nobody could say which of them were counted."""
    r = over_and_partials_gone(refill=1, staleness=1)
    assert stands(r)
    abandon(r)
    r.send(*blocks(DEVICES[0], r.slot(1, DEVICES[0])))
    r.until(lambda: sum(r.zone.tasks["t"].next) == 8)
    assert r.zone.tasks["t"].tally.counts.incomplete == 2


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


# ------------------------------------------------------------------ losses at odd moments


def test_a_copy_of_a_commit_to_offsets_that_are_used_again_does_nothing():
    r = Rig(deadline_s=40.0)
    who = same_shard(3)
    r.admit(1, who)
    sent = [b for d in who for b in blocks(d, r.slot(1, d))]
    ledger = topic(NS, Z, "ledger")
    r.send(sent[0], sent[2])  # first halves: no slot is done
    r.until(lambda: sum(c.counts.counted for c in r.facts(Committed)) == 2)
    copy = next(x for x in r.memory.records(ledger.name) if b"committed" in (x.value or b""))
    r.memory.lose(r.deltas.name, 0, 0)
    r.until(lambda: stands(r))
    abandon(r)
    r.memory.run(limit=100)
    r.memory.append(Send(ledger.name, copy.value or b"", copy.key, 0, None, copy.headers))
    r.memory.run(limit=50)
    r.send(*sent)
    final = r.finalised(1)
    # What was counted before the end was lost counts; what came again of it is a duplicate.
    assert r.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert (final.devices, r.round(1).counts.counted, r.round(1).counts.duplicate) == (3, 6, 2)


@pytest.mark.parametrize("seed", range(8))
def test_answers_from_before_a_loss_do_not_concern_the_next_attempt(seed):
    """Else an answer is taken for another's, and partials that are there are said to be gone."""
    r = Rig(2, deadline_s=40.0, seed=seed)
    who = [same_shard(1, s)[0] for s in range(3)]
    r.admit(1, who)
    for d in who:
        r.send(*blocks(d, r.slot(1, d)))
        r.memory.run(limit=400 if d != who[-1] else 0)
    r.until(lambda: "t" in r.leader.processor.leader.jobs)
    r.leader.freeze()
    t = r.zone.tasks["t"]
    fact = Lost(r.zone.shards[0].token, 0, "t", "x", ranges={0: (t.next[0], t.next[0] - 1)})
    _, at = r.put(topic(NS, Z, "ledger"), fact)
    r.put(topic(NS, Z, "ledger"), Abandoned("t", at, "ann"))
    r.leader.thaw()
    r.memory.run(limit=500)
    assert not [f for f in r.facts(Lost) if f.commits]
    assert r.finalised(1).devices == 3


def test_a_log_that_lost_what_a_closed_round_waits_for():
    r = Rig(1, deadline_s=3.0, minimum=1)
    who = same_shard(3)
    r.admit(1, who)
    sent = [b for d in who for b in blocks(d, r.slot(1, d))]
    r.aggregators[0].crash()
    r.send(*sent)
    r.until(lambda: bool(r.facts(Closed)))
    r.memory.lose(r.deltas.name, 0, 4)
    r.aggregators[0].restart()
    r.until(lambda: stands(r))
    assert "round 1 at 6: the log lost its end" in r.facts(Lost)[0].what
    abandon(r)
    assert r.vector(r.finalised(1).manifest).tobytes() == oracle(START, sent[:4]).tobytes()
    assert len(r.facts(Lost)) == 1


def test_all_partials_that_are_gone_are_said_at_once_and_again_until_heard():
    r = Rig(1, deadline_s=6.0, minimum=1)
    who = [same_shard(1, s)[0] for s in range(3)]
    r.admit(1, who)
    for d in who[:2]:
        r.send(*blocks(d, r.slot(1, d)))
        r.memory.run(limit=600)
    for log in r.memory.topics[PARTIALS]:
        for s in log:
            s.key = "gone"
    r.send(*blocks(who[2], r.slot(1, who[2])))
    dropped = []
    real = r.memory.network

    def drop_first(host, send):
        if b"lost" in send.value[:40] and not dropped:
            dropped.append(send)
            return []
        return real(host, send)

    r.memory.network = drop_first
    r.until(lambda: stands(r))
    assert dropped
    (lost,) = r.facts(Lost)
    assert lost.commits == tuple(c.offset for c in r.round(1).commits if c.fact.counts.counted)[:2]
    assert "more" in lost.what
    abandon(r)
    assert r.finalised(1).devices == 1


# ------------------------------------------------------------------ registrations are no loss


@pytest.mark.parametrize("how", ["cut", "end lost"])
def test_registrations_that_are_gone_are_skipped(how):
    r = Rig(1, demand=4, deadline_s=60.0)
    r.admit(1, DEVICES[:2])
    r.leader.crash()
    r.register(1, DEVICES[2:5])
    name = topic(NS, Z, "registrations").name
    for p in range(P):
        if how == "cut":
            r.memory.cut(name, p, r.memory.span(name, p)[1])
        else:
            r.memory.lose(name, p, 0)
    r.leader.restart()
    r.memory.run(limit=2_000)
    assert r.leader.alive, r.leader.stopped
    r.register(1, DEVICES[5:7])
    r.until(lambda: set(DEVICES[5:7]) <= set(r.round(1).devices))


def test_an_answer_from_before_a_round_was_closed_is_no_loss():
    """The aggregator hears late where the log ended; meanwhile more came and the round was closed beyond that."""
    r = Rig(1, deadline_s=40.0, minimum=1)
    who = same_shard(3)
    r.admit(1, who)
    sent = [b for d in who for b in blocks(d, r.slot(1, d))]
    r.send(*sent[:4])
    r.until(lambda: sum(c.counts.counted for c in r.facts(Committed)) == 4)
    aggregator, real = r.aggregators[0], r.memory._do

    def slow(host, effect):  # the answers were right when they were asked for
        if isinstance(effect, Ends) and host is aggregator and effect.topic == r.deltas.name:
            value = {p: 4 if p == 0 else 0 for p in range(P)}
            r.memory._for(host, 20_000, lambda: r.memory._give(host, Answer(effect.tag, value)))
        elif not (isinstance(effect, Follow) and host is aggregator and effect.topic == r.deltas.name):
            real(host, effect)

    r.memory._do = slow
    r.memory.run(limit=1_500)
    aggregator.paused.update((r.deltas.name, p) for p in range(P))  # and reads slowly
    r.send(*sent[4:])
    r.until(lambda: bool(r.facts(Closed)))
    r.memory.run(limit=25_000)
    assert not r.facts(Lost)
    aggregator.paused.clear()
    r.memory._do = real
    r.send(sent[0])
    assert r.finalised(1).devices == 3


def test_a_close_decided_before_a_loss_is_not_said_after_it():
    """The leader asked where the logs end, slept, and wakes when one has lost its end and a person gave that up."""
    r = Rig(1, deadline_s=60.0, minimum=1)
    who = same_shard(3)
    r.admit(1, who)
    r.send(*(b for d in who for b in blocks(d, r.slot(1, d))))
    r.until(lambda: any(a[0] == "ends" for a in r.leader.processor.requests.open.values()))
    r.leader.freeze()
    r.memory.run(limit=300)
    r.aggregators[0].crash()
    r.memory.lose(r.deltas.name, 0, 2)
    r.aggregators[0].restart()
    reader = r.aggregators[0]
    r.until(lambda: bool(reader.processor.zone.tasks.get("t") and reader.processor.zone.tasks["t"].loss))
    loss = reader.processor.zone.tasks["t"].loss
    r.put(topic(NS, Z, "ledger"), Abandoned("t", loss.at, "ann"))
    r.memory.run(limit=3_000)
    r.leader.thaw()
    r.finalised(1)
    assert [f.ends[0] for f in r.facts(Closed) if f.round == 1] == [2]
    r.memory.run(limit=20_000)
    assert len(r.facts(Lost)) == 1


# ------------------------------------------------------------------ held blocks and retention


@pytest.mark.parametrize("seed", range(10))
def test_held_blocks_that_are_gone_when_the_round_is_over_concern_nobody(seed):
    """Taken over around the deadline: the fold gives up what is held, and the shard goes on."""
    r = Rig(1, seed=seed, deadline_s=6.0, minimum=1, demand=2, over_commit=2.0, atomic=True)
    who, other = same_shard(3), same_shard(1, 1)[0]
    r.admit(1, [*who, other])
    r.send(*blocks(other, r.slot(1, other)), blocks(who[0], r.slot(1, who[0]))[0])
    r.until(lambda: r.zone.tasks["t"].held[0] != ())
    opened = r.round(1).opened
    assert opened
    r.aggregators[0].crash()
    r.memory.run(limit=opened.deadline - 3 - r.memory.now)
    r.memory.cut(r.deltas.name, 0, 1)
    r.aggregators[0].restart()
    r.memory.run(limit=3_000)
    if stands(r):  # the ledger heard of it before the round was over
        abandon(r)
    r.until(lambda: r.at(2, "open"))
    r.register(2, who)
    r.until(lambda: len(r.round(2).devices) == 3)
    r.send(*(b for d in who for b in blocks(d, r.slot(2, d), 2)))
    assert r.finalised(2).devices == 3


def lost_above_held() -> Rig:
    """Three devices' first blocks are held at offsets 0 to 2; nobody looks while the log loses the last."""
    r = Rig(1, deadline_s=60.0, minimum=1, demand=4, over_commit=9.0, atomic=True)
    who = same_shard(4)
    r.admit(1, who)
    r.send(*(blocks(d, r.slot(1, d))[0] for d in who[:3]))
    r.until(lambda: len(r.zone.tasks["t"].held[0]) == 3)
    r.aggregators[0].crash()
    r.memory.lose(r.deltas.name, 0, 2)
    r.aggregators[0].restart()
    return r


def test_a_log_that_lost_its_end_above_a_held_block():
    """All that was to be read again is there but for the end: what comes there is new, and not taken for what was."""
    r = lost_above_held()
    r.until(lambda: stands(r))
    (lost,) = r.facts(Lost)
    assert lost.ranges == {0: (3, 2)}
    assert "ends at 2, and 3 was to be read: the log lost its end" in lost.what
    rest(r)
    last = same_shard(4)[3]
    sent = blocks(last, r.slot(1, last))
    r.send(*sent)  # at offsets that were used before
    abandon(r)
    final = r.finalised(1)
    assert final.devices == 1
    assert r.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert identity(r.zone.tasks["t"], 1)


def test_control_a_log_taken_to_reach_where_it_did_swallows_what_is_new(monkeypatch):
    real = Work.resume

    def trusting(self, t, s, token):
        shard = real(self, t, s, token)
        shard.reaches = True
        return shard

    monkeypatch.setattr(Work, "resume", trusting)
    r = lost_above_held()
    r.memory.run(limit=20_000)
    assert not stands(r)
    with pytest.raises(AssertionError):
        test_a_log_that_lost_its_end_above_a_held_block()


def test_what_lies_between_held_blocks_that_are_read_again_is_wanted_by_nobody():
    who = same_shard(20)
    r = Rig(1, deadline_s=60.0, minimum=1, demand=3, over_commit=9.0, atomic=True)
    r.admit(1, who)
    one, two = (blocks(d, r.slot(1, d)) for d in who[:2])
    r.send(one[0], *(two * 10))
    r.until(lambda: r.zone.tasks["t"].next[0] == 21 and bool(r.zone.tasks["t"].held[0]))
    a = r.aggregators[0]
    a.crash()
    r.memory.run(limit=1_500)
    a.restart()

    def read_again() -> bool:
        work = a.processor.work.get("t")
        return bool(work and 0 in work.shards and not work.shards[0].recall)

    r.until(read_again)
    r.memory.cut(r.deltas.name, 0, a.processor.work["t"].shards[0].position + 3)
    r.memory.run(limit=3_000)
    assert not stands(r)
    r.send(one[1])
    r.until(lambda: r.slot(1, who[0]) in r.round(1).done)


@pytest.mark.parametrize("seed", range(12))
def test_registrations_read_from_an_end_that_is_gone_are_forgotten(seed):
    """Else the same answer is given for ever."""
    r = Rig(1, seed=seed, demand=4, over_commit=2.0, deadline_s=600.0)
    devices = same_shard(6)
    r.admit(1, devices[:3])
    selector = r.leader.processor.selector
    r.register(1, devices[3:4])
    r.memory.run(lambda: selector.offered is not None, 1_000)
    r.register(1, devices[4:5])
    r.memory.run(lambda: len(selector.waiting[0]) == 2, 1_000)
    r.memory.lose(topic(NS, Z, "registrations").name, 0, 1)
    r.memory.run(limit=200)
    before = len(r.facts(Admitted))
    r.memory.run(limit=1_000)
    assert len(r.facts(Admitted)) - before <= 2
    r.register(1, devices[3:6])
    r.until(lambda: set(devices) <= set(r.round(1).devices))
