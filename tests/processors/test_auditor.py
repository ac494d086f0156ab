"""An audit finds every round of a good run good, and names what is wrong with a bad one: what differs first, and where."""

from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import processors.aggregator
import processors.zone_leader
from device_sim.fleet import Manner
from learning.codecs import Values
from olearning import explain
from olearning.abandon import Abandoner
from processors.audit import Audit
from processors.auditor import Auditor
from processors.judge import Verdict
from processors.oracle import COUNTED, DUPLICATE, INCOMPLETE, INVALID, LATE
from schemas.blocks import CODECS, DeltaBlock, ModelBlock, SumBlock
from schemas.facts import Committed, Finalised, Opened
from schemas.messages import Registration
from schemas.task import Epochs, Rounds, Server, TaskSpec, Upload
from schemas.topics import GLOBAL, topic
from schemas.wire import decode, encode
from streams.memory import Memory
from streams.processor import Send, Stop
from tests.plane import LAYOUT, NS, Plane
from tests.processors.rig import DEVICES, P, Rig, Z, blocks, changed
from tests.some import some

PATIENT = {"deadline_s": 100, "lease_s": 50}


def audit(memory: Memory, zone: str, task: str, n: int) -> tuple[Audit, Stop]:
    host = memory.host(lambda life: Auditor(NS, zone, task, n, trace=True))
    assert memory.run(lambda: host.stopped is not None, 60_000), "it does not end"
    assert host.stopped
    return host.processor.audit, host.stopped  # type: ignore[attr-defined]


def good(memory: Memory, zone: str, task: str, n: int, lost: int = 0) -> Audit:
    a, said = audit(memory, zone, task, n)
    assert said.ok, said
    assert (a.differs, a.missing) == ([], [])
    assert a.ok
    assert a.recomputed == a.commits
    assert a.lost == lost
    if not lost:
        assert len(a.seen) == a.offsets == sum(a.counts.values())
        for outcome, count in a.counts.items():
            assert sum(s.outcome == outcome for s in a.seen) == count
    return a


def spec(rounds: int = 3, **more: Any) -> TaskSpec:
    server, upload = more.pop("server", Server()), more.pop("upload", Upload())
    r = Rounds(**{"demand": 6, "over_commit": 1.0, "minimum": 6, **PATIENT, **more})
    return TaskSpec("toy", "arithmetic", "none", rounds=r, epochs=Epochs(2, rounds), server=server, upload=upload)


def run(seed: int = 3, faults: int = 0, **more: Any) -> Plane:
    """A plane that has done a task, perhaps with so many steps of crashes and freezes."""
    dice, memory = Random(seed), Memory(seed=seed, latency=(1, 10))
    plane = Plane(memory, manner=Manner(training=(50, 400), reaction=100, report=500, resend=0.3))
    plane.submit(spec(**more))
    roles = [n for n in plane.hosts if not n.startswith("fleet") and n != "global"]
    for step in range(faults + 300):
        if memory.run(lambda: plane.ended("toy"), 200):
            break
        if step < faults:
            host, throw = plane.hosts[dice.choice(roles)], dice.random()
            if throw < 0.3 and host.alive:
                host.crash()
            elif throw < 0.45 and host.alive and not host.frozen:
                host.freeze()
        for host in plane.hosts.values():
            if not host.alive and not host.stopped and dice.random() < 0.5:
                host.restart()
            elif host.frozen and (step >= faults or dice.random() < 0.1):
                host.thaw()
    assert plane.ended("toy"), "it does not end"
    return plane


def sent(plane: Plane, zone: str) -> list[DeltaBlock]:
    """All that devices of a zone sent."""
    name = topic(NS, zone, "deltas", "toy").name
    return [decode(r.value, (DeltaBlock,)) for p in range(plane.partitions) for r in plane.memory.records(name, p)]


def all_good(plane: Plane) -> list[Audit]:
    found = []
    for zone in plane.zones:
        for f in plane.facts(zone):
            if isinstance(f, Finalised):
                found.append(a := good(plane.memory, zone, "toy", f.round))
                assert a.model == (f.manifest is not None)
                assert (a.devices, a.samples, a.loss) == (f.devices, f.samples, f.loss)
    return found


# ------------------------------------------------------------------ good runs


def test_all_rounds_of_a_run_are_good():
    found = all_good(run())
    assert len(found) == 12
    assert sum(a.counts[DUPLICATE] for a in found) > 10
    assert {len({s.device for s in a.seen if s.outcome == COUNTED}) for a in found} == {6}


@pytest.mark.parametrize("seed", some(range(1, 9), 2))
def test_crashes_and_freezes_leave_rounds_good(seed):
    assert len(all_good(run(seed, faults=40))) == 12


@pytest.mark.parametrize("atomic", [False, True])
def test_stale_deltas_are_weighed_as_they_were(atomic):
    """Asynchronous rounds: versions of 3 updates, from devices of which 6 are at work at once."""
    plane = run(5, rounds=5, demand=3, over_commit=2.0, minimum=1, refill=1, staleness=3, atomic=atomic)
    found = all_good(plane)
    stale = [s for a in found for s in a.seen if s.outcome == COUNTED and s.round < a.round]
    assert len(stale) > 3


@pytest.mark.parametrize(("name", "atomic"), some(product(CODECS, (False, True)), 8))
def test_every_codec_is_judged_and_added_by_both_readings_alike(name, atomic):
    """With crashes; stale deltas are weighed, so that values are multiplied as well as shifted."""
    more = {"keep": 0.3} if CODECS[name].sparse else {}
    rounds = {"rounds": 3, "demand": 3, "over_commit": 2.0, "minimum": 1, "refill": 1, "staleness": 3, "atomic": atomic}
    plane = run(5, faults=15, upload=Upload(name, **more), **rounds)
    found = all_good(plane)
    assert {b.codec for b in sent(plane, "east")} == {name}
    assert sum(a.counts[COUNTED] for a in found) >= 12
    assert sum(a.counts[INVALID] for a in found) == 0


@pytest.mark.parametrize("name", ["fedadam", "fedavgm", "pyramidfl-yogi"])
def test_the_step_of_a_server_optimiser(name):
    plane = run(2, server=Server(name))
    assert len(all_good(plane)) == 12
    assert any(f.optimiser for f in plane.facts("east") if isinstance(f, Finalised))


@pytest.mark.parametrize("atomic", [False, True])
def test_halves_copies_late_and_unreadable_blocks(atomic):
    rig = Rig(2, deadline_s=3.0, atomic=atomic)
    rig.admit(1, DEVICES[:3])
    sent = {d: blocks(d, rig.slot(1, d)) for d in DEVICES[:3]}
    half, whole, later = (sent[d] for d in DEVICES[:3])
    rig.send(half[0], *whole, whole[0], changed(half[1], weight=10**7), changed(half[1], block=7))
    rig.memory.append(Send(rig.deltas.name, b"\xff", "x", 1))
    rig.finalised(1)
    rig.admit(2, DEVICES[3:6])
    rig.send(*later, *whole)
    rig.send(*(b for d in DEVICES[3:6] for b in blocks(d, rig.slot(2, d), 2)))
    rig.finalised(2)
    first, second = (good(rig.memory, Z, "t", n) for n in (1, 2))
    want = {COUNTED: 2, INCOMPLETE: 1} if atomic else {COUNTED: 3}
    assert {k: v for k, v in first.counts.items() if v} == {**want, DUPLICATE: 1, INVALID: 3}
    assert {k: v for k, v in second.counts.items() if v} == {COUNTED: 6, LATE: 2, DUPLICATE: 2}
    reasons = {s.reason for s in first.seen if s.outcome == INVALID}
    assert (
        reasons >= {"the model has 2 blocks", "weight 10000000 or samples 5 is not in 1 to 1000"} or len(reasons) == 3
    )
    assert {s.device for s in second.seen if s.outcome == LATE} == {DEVICES[2]}


def test_a_round_that_failed_must_have_failed():
    rig = Rig(deadline_s=2.0)
    rig.admit(1, DEVICES[:3])
    rig.send(*blocks(DEVICES[0], rig.slot(1, DEVICES[0])))
    assert rig.finalised(1).manifest is None
    a = good(rig.memory, Z, "t", 1)
    assert (a.devices, a.model) == (1, False)


# ------------------------------------------------------------------ bad ones


@pytest.fixture
def done() -> Plane:
    return run()


def bad(plane: Plane, n: int = 2) -> Audit:
    a, said = audit(plane.memory, "east", "toy", n)
    assert said.ok, said
    assert not a.ok
    return a


def commits(plane: Plane, n: int = 2) -> list[tuple[int, Committed]]:
    """The round's accepted commits that hold a sum, with their offsets."""
    records = plane.memory.records(f"{NS}.east.ledger")
    said = {id(r): f for r in records if isinstance(f := decode(r.value, (Committed, *_others())), Committed)}
    accepted = {c for f in plane.facts("east") if isinstance(f, Finalised) and f.round == n for c in f.commits}
    return [(r.offset, said[id(r)]) for r in records if r.offset in accepted]


def _others() -> tuple[type, ...]:
    from schemas.facts import ZONE_FACTS

    return tuple(t for t in ZONE_FACTS if t is not Committed)


def put(plane: Plane, name: str, partition: int, offset: int, value: bytes) -> None:
    plane.memory.topics[name][partition][offset].value = value


def flipped(message: Any, at: int) -> bytes:
    """The message with one bit of its tensor changed."""
    data = bytearray(message.data)
    data[at] ^= 1
    fields = {f: getattr(message, f) for f in message.__struct_fields__} | {"data": memoryview(bytes(data))}
    return encode(type(message)(**fields))


def place_of(plane: Plane, name: str, key: str) -> tuple[int, int, bytes]:
    for p in range(plane.partitions):
        for r in plane.memory.records(name, p):
            if r.key == key and r.value:
                return p, r.offset, r.value
    raise AssertionError(key)


def test_a_bit_of_a_partial_is_found(done):
    offset, fact = commits(done)[0]
    (i, place) = next((i, x) for i, x in enumerate(fact.sums) if x)
    name = f"{NS}.east.partials"
    p, o, value = place_of(done, name, place.key)
    put(done, name, p, o, flipped(decode(value, (SumBlock,)), 8 * 2))
    (said,) = bad(done).differs
    assert f"@{offset} (agg-east-" in said
    assert f"block {i}: its sum in the partials ({place.key}): value 2: expected " in said


def test_a_bit_of_a_delta_is_found(done):
    name = f"{NS}.east.deltas.toy"
    p, r, b = next(
        (p, r, b)
        for p in range(done.partitions)
        for r in done.memory.records(name, p)
        if (b := decode(r.value, (DeltaBlock,))).round == 2
    )
    put(done, name, p, r.offset, flipped(b, 4 * 3 + 2))
    a = bad(done)
    assert f"block {b.block}: its sum in the partials" in a.differs[0]
    assert "value 3: expected " in a.differs[0]
    assert any("of the model" in text and "value 3: expected" in text for text in a.differs)


def test_a_bit_of_a_model_is_found(done):
    final = next(f for f in done.facts("east") if isinstance(f, Finalised) and f.round == 2)
    place = final.manifest.blocks[1]
    p, o, value = place_of(done, final.manifest.topic, place.key)
    put(done, final.manifest.topic, p, o, flipped(decode(value, (ModelBlock,)), 0))
    (said,) = bad(done).differs
    assert said.startswith(f"block 1 of the model ({place.key}): value 0: expected ")
    assert "(1 of 5 values differ)" in said
    assert f"block 1 of the base ({place.key}) is not what was written" in bad(done, 3).differs


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"counts": None}, "counted: must be "),
        ({"samples": 7}, "samples: must be "),
        ({"weights": (1, 1)}, "block 0: the weight must be "),
        ({"done": ()}, "is not said to be done"),
    ],
)
def test_a_wrong_figure_in_a_commit_is_found(done, change, says):
    offset, fact = next((o, f) for o, f in commits(done) if f.done)
    fields = {f: getattr(fact, f) for f in fact.__struct_fields__} | change
    if "counts" in change:
        c = fact.counts
        fields["counts"] = type(c)(c.counted - 1, c.duplicate + 1, c.late, c.invalid, c.incomplete)
    put(done, f"{NS}.east.ledger", 0, offset, encode(Committed(**fields)))
    a = bad(done)
    assert any(f"@{offset} (" in text and says in text for text in a.differs), a.differs
    assert f"@{offset} (" in a.differs[0]


def test_a_commit_that_is_gone_is_found(done):
    offset, _ = commits(done)[0]
    put(done, f"{NS}.east.ledger", 0, offset, b"")
    a = bad(done)
    assert any("the round is not finalised" in text and "is void: " in text for text in a.missing), a.missing


def test_another_model_than_the_ledger_names_is_found(done):
    records = done.memory.records(f"{NS}.east.ledger")
    r, f = next(
        (r, f)
        for r in records
        if isinstance(f := decode(r.value, (Finalised, *_but(Finalised))), Finalised) and f.round == 2
    )
    fields = {n: getattr(f, n) for n in f.__struct_fields__} | {"devices": 5, "norm": 1.0}
    put(done, f"{NS}.east.ledger", 0, r.offset, encode(Finalised(**fields)))
    said = bad(done).differs
    assert said[0] == f"Finalised at {done.zone('east').ledger}@{r.offset}: devices must be 6, the ledger says 5"
    assert "norm must be " in said[1]


def _but(kind: type) -> tuple[type, ...]:
    from schemas.facts import ZONE_FACTS

    return tuple(t for t in ZONE_FACTS if t is not kind)


def test_control_an_aggregator_that_adds_wrongly(monkeypatch):
    def adds_one_too_much(self, acc, exponent, factor=1):
        right(self, acc, exponent, factor)
        acc[0] += 1

    right = Values.add
    monkeypatch.setattr(Values, "add", adds_one_too_much)
    a = bad(run())
    assert "block 0: its sum in the partials" in a.differs[0]
    assert "value 0: expected " in a.differs[0]


def test_control_an_aggregator_that_counts_what_is_late(monkeypatch):
    def lenient(*args):
        said = right(*args)
        return Verdict(COUNTED) if said and said[0] == LATE and args[4].round == args[1].at[args[2]] - 1 else said

    right = processors.aggregator.judge
    monkeypatch.setattr("processors.aggregator.judge", lenient)
    rig = Rig(deadline_s=3.0)
    rig.admit(1, DEVICES[:3])
    sent = {d: blocks(d, rig.slot(1, d)) for d in DEVICES[:3]}
    rig.send(*sent[DEVICES[0]], *sent[DEVICES[1]])
    rig.finalised(1)
    rig.admit(2, DEVICES[3:6])
    rig.send(*sent[DEVICES[2]], *(b for d in DEVICES[3:6] for b in blocks(d, rig.slot(2, d), 2)))
    rig.finalised(2)
    a, _ = audit(rig.memory, Z, "t", 2)
    assert "counted: must be " in a.differs[0]
    assert any("of round 1 is not counted, its bitmap says otherwise" in text for text in a.differs)
    assert "the round: late must be 2, the fold says 0" in a.differs


def test_control_a_leader_that_steps_wrongly(monkeypatch):
    def too_far(*args, **more):
        new, state = right(*args, **more)
        new[3] = np.nextafter(new[3], np.float32(9))
        return new, state

    right = processors.zone_leader.apply_sums
    monkeypatch.setattr("processors.zone_leader.apply_sums", too_far)
    a = bad(run())
    assert a.differs[0].startswith("block 0 of the model (toy/2/")
    assert "value 3: expected " in a.differs[0]
    assert "(1 of 7 values differ)" in a.differs[0]


# ------------------------------------------------------------------ what is not there any more


def test_without_the_deltas_the_model_still_is_checked(done):
    del done.memory.topics[f"{NS}.east.deltas.toy"]
    a = bad(done)
    assert a.differs == []
    assert "the deltas are gone: topic test.east.deltas.toy does not exist" in a.missing[0]
    assert a.model
    assert (a.recomputed, a.devices) == (0, 6)


def test_with_some_of_the_deltas_the_other_commits_are_recomputed(done):
    name = f"{NS}.east.deltas.toy"
    offset, fact = commits(done)[0]
    s = min(fact.stretches)
    done.memory.cut(name, s, fact.stretches[s].start + 1)
    a = bad(done)
    assert a.differs == []
    assert 0 < a.recomputed < a.commits
    assert a.model
    assert f"shard {s} of the deltas begins at " in a.missing[0]
    assert any(f"@{offset} (" in text and "not in the log any more" in text for text in a.missing)


def test_without_the_partials_the_deltas_still_tell(done):
    name = f"{NS}.east.partials"
    for p in range(done.partitions):
        done.memory.cut(name, p, done.memory.span(name, p)[1])
    a = bad(done, 1)
    assert a.differs == []
    assert a.model
    assert a.recomputed == a.commits
    assert all("of its partials are gone" in text for text in a.missing)
    assert any("the bitmaps of" in text for text in bad(done, 2).missing)


def test_without_both_it_says_that_the_model_cannot_be_recomputed(done):
    test_without_the_partials_the_deltas_still_tell(done)
    del done.memory.topics[f"{NS}.east.deltas.toy"]
    a = bad(done, 1)
    assert not a.model
    assert "the model was not recomputed: sums are missing" in a.missing


@pytest.mark.parametrize(
    ("zone", "task", "n", "says"),
    [
        ("east", "moon", 1, "zone east has no task moon; its tasks: toy"),
        ("east", "toy", 99, "round 99 of toy is not in the ledger: the last one is 6"),
    ],
)
def test_what_never_was(done, zone, task, n, says):
    _, said = audit(done.memory, zone, task, n)
    assert (said.ok, said.reason) == (False, says)


def test_a_round_that_is_not_over_is_told_as_far_as_it_is():
    rig = Rig()
    rig.admit(1, DEVICES[:3])
    rig.send(*blocks(DEVICES[0], rig.slot(1, DEVICES[0])))
    rig.until(lambda: rig.round(1).contributors == 1)
    a, said = audit(rig.memory, Z, "t", 1)
    assert said.ok
    assert (a.differs, a.missing) == ([], ["the round is open"])
    assert (a.devices, a.counts[COUNTED]) == (1, 2)


def test_a_slot_that_was_guessed_before_it_was_given_is_no_difference():
    """Whoever judges a block about when its slot is given may say either; the audit follows the commit, and says so."""
    rig = Rig(1)
    rig.until(lambda: rig.at(1, "open"))
    guess = blocks(DEVICES[0], 0)
    rig.send(guess[0])
    rig.put(topic(NS, Z, "registrations"), Registration(DEVICES[0], "t", 1), DEVICES[0])
    rig.until(lambda: DEVICES[0] in rig.round(1).devices)
    rig.memory.run(limit=600)
    rig.send(*guess)
    rig.admit(1, DEVICES[1:3])
    for d in DEVICES[1:3]:
        rig.send(*blocks(d, rig.slot(1, d)))
    rig.finalised(1)
    a = good(rig.memory, Z, "t", 1)
    assert a.counts[COUNTED] == 6
    assert a.counts[INVALID] + a.counts[DUPLICATE] == 1
    assert len(a.notes) == a.counts[INVALID]


def test_the_story_of_a_round():
    plane = run(4, faults=30)
    a = good(plane.memory, "east", "toy", 1)
    c = a.story.chapter
    opened = next(f for f in plane.facts("east") if isinstance(f, Opened) and f.round == 1)
    assert c.opened == opened
    assert c.opened_at < c.commits[0].offset < c.finalised_at
    assert c.met is not None
    assert c.closed_time >= c.met
    assert [s.device for s in c.seats] == list(c.folded.devices)
    assert all(e.holder.startswith("agg-east-") for e in c.commits)
    assert a.partitions == plane.partitions == P
    assert np.sum(a.weights) == 2 * a.samples
    assert len(LAYOUT.sizes) == 2


# ------------------------------------------------------------------ losses, and ledgers that are cut


def give_up(rig: Rig) -> str:
    loss = rig.zone.tasks["t"].loss
    assert loss
    host = rig.memory.host(lambda life: Abandoner(NS, Z, "t", loss.at, "ann", "it is gone"))
    rig.until(lambda: host.stopped is not None)
    assert host.stopped
    assert host.stopped.ok, host.stopped
    return host.stopped.reason


@pytest.mark.parametrize("atomic", [False, True])
def test_a_round_with_a_loss_that_was_given_up(atomic):
    rig = Rig(2, deadline_s=20.0, atomic=atomic)
    rig.admit(1, DEVICES[:3])
    sent = {d: blocks(d, rig.slot(1, d)) for d in DEVICES[:3]}
    first, second, third = DEVICES[:3]
    rig.send(sent[first][0])
    rig.until(lambda: bool(rig.facts(Committed)))
    for host in rig.aggregators:
        host.crash()
    for p, o in rig.send(*sent[second]):
        rig.memory.cut(rig.deltas.name, p, o + 1)
    for host in rig.aggregators:
        host.restart()
    rig.until(lambda: rig.zone.tasks["t"].loss is not None)
    assert give_up(rig) == "t goes on without it"
    rig.send(*sent[third], sent[first][1])
    rig.finalised(1)
    a = good(rig.memory, Z, "t", 1, lost=2)
    assert a.counts[COUNTED] == 4
    words = [text for _, _, text in explain.life(a)]
    assert any("t stands still: " in text and "retention was too short" in text for text in words)
    assert any("ann gave it up (it is gone)" in text for text in words)


def test_sums_that_were_lost_and_given_up_are_in_no_total():
    rig = Rig(2, deadline_s=20.0)
    rig.admit(1, DEVICES[:3])
    sent = {d: blocks(d, rig.slot(1, d)) for d in DEVICES[:3]}
    rig.send(*sent[DEVICES[0]])
    rig.until(lambda: bool(rig.facts(Committed)))
    for host in rig.aggregators:
        host.crash()
        host.restart()
    for p in range(P):
        name = topic(NS, Z, "partials").name
        rig.memory.cut(name, p, rig.memory.span(name, p)[1])
    rig.until(lambda: rig.zone.tasks["t"].loss is not None)
    give_up(rig)
    rig.send(*sent[DEVICES[1]], *sent[DEVICES[2]], *sent[DEVICES[0]])
    final = rig.finalised(1)
    a = good(rig.memory, Z, "t", 1, lost=2)
    assert (a.devices, a.lost, a.model) == (final.devices, 2, final.manifest is not None)


def test_a_log_that_lost_its_end_is_not_taken_for_what_it_was():
    rig = Rig(1, deadline_s=20.0)
    rig.admit(1, DEVICES[:3])
    sent = {d: blocks(d, rig.slot(1, d)) for d in DEVICES[:3]}
    where = rig.send(*sent[DEVICES[0]])
    rig.until(lambda: rig.round(1).contributors == 1)
    rig.aggregators[0].crash()
    p, o = where[1]
    rig.memory.lose(rig.deltas.name, p, o)
    rig.aggregators[0].restart()
    rig.until(lambda: rig.zone.tasks["t"].loss is not None)
    give_up(rig)
    rig.send(*sent[DEVICES[1]], *sent[DEVICES[2]], *sent[DEVICES[0]])
    rig.finalised(1)
    a, said = audit(rig.memory, Z, "t", 1)
    assert said.ok
    assert a.differs == []
    assert any("not in the log any more" in text for text in a.missing)


def test_with_nothing_lost_there_is_nothing_to_give_up():
    rig = Rig()
    rig.admit(1, DEVICES[:3])
    for task, says in (("t", "t has lost nothing in zone z"), ("moon", "zone z has no task moon; its tasks: t")):
        host = rig.memory.host(lambda life, task=task: Abandoner(NS, Z, task))
        rig.until(lambda host=host: host.stopped is not None)
        assert not host.stopped.ok
        assert says in host.stopped.reason


def test_a_ledger_that_is_cut_behind_a_checkpoint():
    plane = Plane(Memory(seed=1), every=10)
    plane.submit(spec(5))
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    plane.memory.run(limit=5_000)
    ledger = f"{NS}.east.ledger"
    assert plane.memory.span(ledger)[0] > 0, "choose a longer run: nothing is cut yet"
    found = {n: audit(plane.memory, "east", "toy", n) for n in range(1, 11)}
    whole = [n for n, (a, said) in found.items() if said.ok and a.ok]
    assert whole
    assert max(whole) == 10
    assert min(whole) > 1
    assert all(found[n][0].recomputed == found[n][0].commits for n in whole)
    early = found[1]
    assert "is cut below" in (early[1].reason if not early[1].ok else early[0].missing[0])


def test_of_a_task_that_is_over_the_step_is_made_again_while_the_globe_s_ledger_says_how():
    """Its fold keeps no settings; where the ledger is cut behind the task's end, what can be compared is, and the rest is said."""
    plane = Plane(Memory(seed=1), every=10)
    plane.submit(spec(5, server=Server("fedadam", learning_rate=0.1)))
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    plane.memory.run(limit=5_000)
    before = good(plane.memory, "east", "toy", 10)
    assert before.model
    for i in range(3):
        other = spec(1, **PATIENT)
        plane.submit(replace(other, task=f"other-{i}", zones=("west",)))
        assert plane.memory.run(lambda i=i: plane.ended(f"other-{i}"), 200_000)
    plane.memory.run(limit=5_000)
    ended = plane.hosts["global"].processor.globe.over["toy"].at
    assert plane.memory.span(f"{NS}.{GLOBAL}.ledger")[0] > ended, "else this shows nothing"
    a, said = audit(plane.memory, "east", "toy", 10)
    assert said.ok
    assert (a.differs, a.model, a.recomputed) == ([], False, before.recomputed)
    (missing,) = a.missing
    assert "its settings are not known" in missing
