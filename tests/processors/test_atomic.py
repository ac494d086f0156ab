"""Deltas that count whole or not at all: what is held, who takes it over, and what is given up."""

import numpy as np
import pytest

from processors import zone_leader
from processors.work import Shard, Work
from schemas.facts import Closed, Committed, Held
from schemas.partitioner import shard_of
from streams.ledger import identity
from tests.processors.rig import DEVICES, NS, START, P, Rig, Z, blocks, changed, oracle


def rig(**more) -> Rig:
    return Rig(**{"atomic": True, **more})


def outcomes(r: Rig) -> list[str]:
    return [m.outcome for m in r.messages("receipts") for _ in m.blocks]


def whole(r: Rig, n: int) -> bool:
    return identity(r.zone.tasks["t"], n)


@pytest.mark.parametrize("aggregators", [1, 2])
@pytest.mark.parametrize("pause", [0, 700])
def test_a_delta_counts_when_its_last_block_is_there(aggregators, pause):
    """In one commit or, with a pause, over several."""
    r = rig(aggregators=aggregators)
    r.admit(1, DEVICES[:3])
    sent = [blocks(d, r.slot(1, d)) for d in DEVICES[:3]]
    r.send(*(b[0] for b in sent))
    r.memory.run(limit=pause)
    if pause:
        assert sum(map(len, r.zone.tasks["t"].held)) == 3
        assert r.round(1).counts.total() == 0
        assert whole(r, 1)
    r.send(*(b[1] for b in sent))
    final = r.finalised(1)
    assert r.vector(final.manifest).tobytes() == oracle(START, [x for b in sent for x in b]).tobytes()
    assert final.devices == 3
    assert whole(r, 1)
    assert sorted(outcomes(r)) == ["counted"] * 6


def test_half_a_delta_counts_for_nothing():
    """The round without atomic deltas, with the same blocks, is `test_round.test_a_device_that_sends_half_counts_for_that_half`."""
    r = rig()
    r.admit(1, DEVICES[:3])
    sent = [b for d in DEVICES[:3] for b in blocks(d, r.slot(1, d))]
    r.send(*sent[:-1])
    final = r.finalised(1)
    assert r.facts(Closed)[0].why == "deadline"
    assert r.vector(final.manifest).tobytes() == oracle(START, sent[:4]).tobytes()
    assert r.round(1).counts.incomplete == 1
    assert r.round(1).voided == {r.round(1).devices.index(sent[-1].device)}
    assert whole(r, 1)


def test_a_held_block_sent_again_is_a_duplicate():
    r = rig()
    r.admit(1, DEVICES[:3])
    sent = [b for d in DEVICES[:3] for b in blocks(d, r.slot(1, d))]
    r.send(sent[0], sent[0])
    r.memory.run(limit=700)
    r.send(sent[0], *sent[1:])
    final = r.finalised(1)
    assert r.vector(final.manifest).tobytes() == oracle(START, sent).tobytes()
    assert r.round(1).counts.duplicate == 2
    assert whole(r, 1)


@pytest.mark.parametrize("noise", [0, 5])
def test_who_takes_over_reads_held_blocks_again(noise):
    """The one who held them is gone; they lie below the fold's next offset, perhaps among others that do not concern."""
    r = rig(aggregators=1)
    r.admit(1, DEVICES[:3])
    sent = [blocks(d, r.slot(1, d)) for d in DEVICES[:3]]
    for b in sent:
        r.send(*[changed(b[0], codec="lead")] * noise, b[0], *[b[0]] * noise)
    r.memory.run(limit=1_000)
    before = r.facts(Committed)
    assert sum(len(x) for c in before for x in c.held.values()) == 3
    r.aggregators[0].crash()
    r.memory.run(limit=50)
    r.aggregators[0].restart()
    r.memory.run(limit=2_000)
    r.send(*(b[1] for b in sent))
    final = r.finalised(1)
    assert r.vector(final.manifest).tobytes() == oracle(START, [x for b in sent for x in b]).tobytes()
    assert whole(r, 1)


def test_over_the_limit_the_oldest_is_given_up(monkeypatch):
    monkeypatch.setattr(zone_leader, "HOLD", 50)  # a delta has 28 + 20 bytes
    same = [d for d in (f"p-{i}" for i in range(99)) if shard_of(d, P) == 0][:3]
    r = rig(demand=2, over_commit=2.0, minimum=1)
    r.admit(1, same)
    old, new, third = (blocks(d, r.slot(1, d)) for d in same)
    r.send(old[0], new[0])  # 56 bytes: the older one goes
    r.memory.run(limit=700)
    assert r.round(1).voided == {r.slot(1, same[0])}
    r.send(old[1], old[0], new[1], *third)
    final = r.finalised(1)
    assert r.vector(final.manifest).tobytes() == oracle(START, [*new, *third]).tobytes()
    assert r.round(1).counts.incomplete == 3
    assert final.devices == 2
    assert whole(r, 1)


def test_a_slot_given_up_in_a_commit_under_way_stays_so(monkeypatch):
    """Blocks of it that come before that commit is accepted are incomplete too: whoever judges says the same."""
    monkeypatch.setattr(zone_leader, "HOLD", 50)
    same = [d for d in (f"p-{i}" for i in range(99)) if shard_of(d, P) == 0][:2]
    r = rig(demand=2, minimum=1)
    r.admit(1, same)
    old, new = (blocks(d, r.slot(1, d)) for d in same)
    r.send(old[0], new[0], old[1], old[0], new[1])
    assert r.vector(r.finalised(1).manifest).tobytes() == oracle(START, new).tobytes()
    assert r.round(1).counts.incomplete == 3


def test_a_shard_that_is_done_forgets_what_it_was_to_read_again():
    shard = Shard(token=1, start=9, position=3, round=1, recall={4: Held(offset=4, round=1, slot=0, block=0)})
    shard.move(1)
    assert shard.recall
    shard.move(2)
    assert not shard.recall


def test_control_a_delta_forgotten_when_held_goes_red(monkeypatch):
    """Who takes over and does not read held blocks again never sees those deltas whole."""

    def forgetful(self, t, s, token):
        shard = real(self, t, s, token)
        shard.recall.clear()
        shard.position = shard.start
        return shard

    real = Work.resume
    monkeypatch.setattr(Work, "resume", forgetful)
    with pytest.raises((AssertionError, AttributeError)):
        test_who_takes_over_reads_held_blocks_again(0)


def test_a_model_larger_than_what_is_held_is_refused():
    from msgspec.structs import replace

    from processors.configurator import Configurator
    from schemas.task import Submission, Upload
    from tests.plane import LAYOUT, spec

    class Desk:
        namespace, zones = NS, {Z: None}

    manifest = Rig().model_zero()
    s = Submission(spec("t", atomic=True), LAYOUT, manifest)
    configurator = Configurator(Desk(), None, None)  # type: ignore[arg-type]
    assert configurator._objection(s) == ""
    from processors import configurator as module

    was = module.HOLD
    try:
        module.HOLD = 47
        assert "rounds.atomic" in configurator._objection(s)
        module.HOLD = 48
        assert configurator._objection(s) == ""
        for upload in (Upload("top-k+int32", keep=1.0), Upload("int32+zstd")):  # they may be longer
            assert "rounds.atomic" in configurator._objection(replace(s, spec=replace(s.spec, upload=upload)))
        module.HOLD = 12
        assert configurator._objection(replace(s, spec=replace(s.spec, upload=Upload("int8")))) == ""
    finally:
        module.HOLD = was
    assert np.isfinite(START).all()
