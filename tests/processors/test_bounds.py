"""Whatever a device, a tenant or an operator sends: bounded, refused in words, and nobody else stops for it."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from device_sim.pseudonym import pseudonym
from processors import patience, selector
from processors.accumulator import Bitmap
from processors.aggregator import Aggregator
from processors.configurator import MOST_BLOCKS
from processors.evaluator import Evaluator
from processors.globe import GlobalCoordinator
from processors.judge import INVALID, judge
from schemas.blocks import DeltaBlock, Difference, Manifest, Place
from schemas.facts import Admitted, Committed, Finalised, Retired, Slot, Taken
from schemas.messages import Announcement, DeadLetter, Objection, Ref, Registration
from schemas.partitioner import shard_of
from schemas.task import BadTask, Training, parse
from schemas.topics import GLOBAL, read, topic
from schemas.wire import decode, encode
from streams.ledger import Ledger, Zone, ZoneTask, most_slots
from streams.letters import dead_letter
from streams.memory import Memory
from streams.processor import Answer, Pause, Record, Send, Stop, send
from tests.plane import LAYOUT, NS, Arithmetic, Plane, spec
from tests.processors.rig import DEVICES, Rig, blocks

RECORD = 2**20
"""Bytes a broker takes in one record."""


def objections(plane: Plane) -> list[Objection]:
    records = plane.memory.records(f"{NS}.{GLOBAL}.metrics")
    messages = [read(r.topic, r.value, r.headers) for r in records]
    return [m for m in messages if isinstance(m, Objection)]


# ------------------------------------------------------------------ devices


def test_a_dead_letter_fits_a_record_whatever_it_is_about():
    record = Record(f"{NS}.east.deltas.t", 0, 7, "k" * 900_000, b"v" * 900_000, 0)
    sent = dead_letter(NS, record, "r" * 900_000, "agg")
    assert len(sent.value) < RECORD / 2
    letter = decode(sent.value, (DeadLetter,))
    assert (letter.offset, letter.key, len(letter.reason)) == (7, b"k" * 1024, 500)


def test_what_cannot_be_read_says_so_briefly():
    from schemas.wire import Malformed, encode

    with pytest.raises(Malformed) as e:
        read(f"{NS}.east.deltas.t", encode({"type": "x" * 900_000}))
    assert len(str(e.value)) <= 300


@pytest.mark.parametrize(("weight", "samples"), [(0, 1), (1, 0), (10**6 + 1, 1), (1, 10**6 + 1), (2**63, 1)])
def test_weights_and_samples_are_bounded(weight: int, samples: int):
    plane = Plane(Memory())
    plane.submit(spec())
    assert plane.memory.run(lambda: bool((t := plane.zone("east").tasks.get("toy")) and t.rounds[1].devices), 20_000)
    t = plane.zone("east").tasks["toy"]
    device = t.rounds[1].devices[0]
    data = np.zeros(LAYOUT.sizes[0], "<i4").data.cast("B")
    b = DeltaBlock("toy", 1, 0, device, 0, "int32", 0, weight, samples, 0, data)
    verdict = judge("toy", t, shard_of(device, plane.partitions), device, b, lambda *x: False, True)
    assert verdict
    assert verdict[0] == INVALID


def test_bitmaps_travel_up_to_the_last_slot_used():
    bitmap = Bitmap(4_000)
    for slot in range(1_048):
        bitmap.set(slot, 7)
    assert len(bitmap.pack()) == 1_048 * 4_000 // 8
    assert (Bitmap.unpack(bitmap.pack(), 4_000).bits == bitmap.bits[:1_048]).all()
    assert Bitmap(4).pack() == b""


def test_a_commit_stays_within_a_record_while_the_one_before_it_waits(monkeypatch):
    monkeypatch.setattr(patience, "MOST_ENTRIES", 10)
    r = Rig(1, demand=60, minimum=1, deadline_s=60.0)
    who = [f"d{i}" for i in range(60)]
    r.admit(1, who)
    slow = lambda host, send: [2_000 if host in r.aggregators and send.topic.endswith("ledger") else 1]  # noqa: E731
    r.memory.network = slow
    for d in who:
        r.send(*blocks(d, r.slot(1, d)))
        r.memory.run(limit=10)
    assert r.finalised(1).devices == 60
    assert max(len(c.done) for c in r.facts(Committed)) <= 11


def test_every_zone_s_update_is_a_fact_of_its_own():
    """It names all blocks of a model: those of twenty zones would not fit one record."""
    plane = Plane(Memory())
    plane.submit(spec())
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    taken = [f for f in plane.facts(GLOBAL) if isinstance(f, Taken)]
    assert [len(f.ranges) for f in taken] == [1] * 4


def test_a_fact_and_an_announcement_name_the_blocks_and_differences_of_the_largest_model_there_may_be():
    task = "t" * 63
    place = Place(2**16, 2**40, f"{task}/{10**6}/{10**9}/{10**6}/{MOST_BLOCKS}", 2**63)
    model = Manifest(f"{'n' * 63}.{'z' * 63}.models", 10**6, (place,) * MOST_BLOCKS)
    model = replace(model, differences=(Difference(2**40, 2**63),) * MOST_BLOCKS)
    fact = Finalised(10**9, task, 10**6, tuple(range(10**6, 10**6 + 1_000)), 10**6, 2**60, 2**60, 1.0, model)
    said = Announcement(
        task=task, tenant=task, round=1, open=True, cause=Ref("l" * 63, 2**40), model="m" * 63, model_args={}, data="d" * 63,
        data_args={}, training=Training(), sizes=(65_536,) * MOST_BLOCKS, unit=-24, largest=1.0, base=model, deadline=2**41,
    )  # fmt: skip
    assert max(len(encode(fact)), len(encode(said))) < 0.95 * RECORD


def test_an_aggregator_may_have_a_long_name():
    r = Rig(0, deadline_s=3.0)
    r.aggregators.append(r.memory.host(lambda life: Aggregator("test", "z", "a" * 185, life, 200, 500)))
    r.admit(1, DEVICES[:3])
    r.send(*(b for d in DEVICES[:3] for b in blocks(d, r.slot(1, d))))
    assert r.finalised(1).devices == 3


def test_a_round_has_no_more_slots_than_its_sums_and_bitmaps_hold():
    assert most_slots(2**62, 1) == 1
    assert most_slots(2**40, 1) == 2**22
    assert most_slots(2**40, 2**12) == 2**10
    assert most_slots(2**40, 2**12, staleness=3) == 2**8
    plane = Plane(Memory())
    plane.submit(spec())
    assert plane.memory.run(lambda: "toy" in plane.zone("east").tasks, 20_000)
    zone: Ledger[Zone] = plane.fold(Ledger(Zone()), "east")
    t: ZoneTask = zone.state.tasks["toy"]
    r = t.rounds[1]
    assert r.opened
    tight = replace(r, opened=replace(r.opened, largest=2**62, places=99), devices=("a",), leases=(0,))
    state = replace(zone.state, tasks={"toy": replace(t, rounds={1: tight})})
    from streams.ledger import fold

    more = Admitted(state.leader.token, state.admitted, {}, (Slot("toy", 1, 1, "b"),))
    _, void = fold(state, state.position, 0, more)
    assert "can have 1 slots" in void


def test_a_flood_of_registrations_is_dealt_with_in_records_that_fit():
    plane = Plane(Memory())
    plane.submit(spec(deadline_s=600))
    assert plane.memory.run(lambda: "toy" in plane.zone("east").tasks, 20_000)
    before = len(plane.facts("east"))
    wishes = topic(NS, "east", "registrations")
    for i in range(3 * selector.BATCH):
        plane.memory.append(send(wishes, Registration(f"stranger-{i}", "toy", 99), f"stranger-{i}"))
    assert plane.memory.run(
        lambda: sum(plane.hosts["zone-east"].processor.zone.registrations) >= 3 * selector.BATCH, 60_000
    )
    batches = [f for f in plane.facts("east")[before:] if isinstance(f, Admitted)]
    assert max(sum(end - start for start, end in f.ranges.values()) for f in batches) <= selector.BATCH


def test_a_partition_with_many_registrations_leaves_the_others_their_part(monkeypatch):
    monkeypatch.setattr(selector, "BATCH", 20)
    plane = Plane(Memory(), devices=0)
    plane.submit(spec(deadline_s=600))
    assert plane.memory.run(lambda: "toy" in plane.zone("east").tasks, 20_000)
    before = len(plane.facts("east"))
    wishes = topic(NS, "east", "registrations")
    names = [f"stranger-{i}" for i in range(2_000)]
    for name in [n for n in names if shard_of(n, 4) == 0] + [n for n in names if shard_of(n, 4) == 3][:20]:
        plane.memory.append(send(wishes, Registration(name, "toy", 99), name))
    assert plane.memory.run(lambda: plane.zone("east").registrations[3] == 20, 20_000)
    batches = [f.ranges for f in plane.facts("east")[before:] if isinstance(f, Admitted) and f.ranges]
    assert len(batches) <= 5  # ten of its twenty in each, when it is there
    assert plane.zone("east").registrations[0] < 200


def test_waiting_registrations_are_bounded(monkeypatch):
    monkeypatch.setattr(selector, "FULL", 20)
    plane = Plane(Memory(latency=(1, 1)), devices=0)
    plane.submit(spec(deadline_s=600))
    assert plane.memory.run(lambda: "toy" in plane.zone("east").tasks, 20_000)
    healthy, here = plane.memory.network, plane.hosts["zone-east"]
    plane.memory.network = lambda host, s: [5_000] if host is here and s.topic.endswith("ledger") else healthy(host, s)
    wishes = topic(NS, "east", "registrations")
    for i in range(500):
        plane.memory.append(send(wishes, Registration(f"stranger-{i}", "toy", 1), f"stranger-{i}"))
    plane.memory.run(limit=4_000)
    waiting = here.processor.selector.waiting
    assert max(len(queue) for queue in waiting.values()) <= 21
    assert plane.memory.run(lambda: sum(here.processor.zone.registrations) == 500, 300_000)


def test_a_full_partition_is_not_paused_again_for_each_that_is_dealt_with(monkeypatch):
    """What was read ahead is read again after each pause."""
    paused = []
    monkeypatch.setattr(selector, "Pause", lambda *where: paused.append(where) or Pause(*where))
    monkeypatch.setattr(selector, "FULL", 40)
    monkeypatch.setattr(selector, "BATCH", 8)
    plane = Plane(Memory(), devices=0)
    plane.submit(spec(deadline_s=600))
    assert plane.memory.run(lambda: "toy" in plane.zone("east").tasks, 20_000)
    wishes = topic(NS, "east", "registrations")
    for i in range(600):
        plane.memory.append(send(wishes, Registration(f"stranger-{i}", "toy", 99), f"stranger-{i}"))
    assert plane.memory.run(lambda: sum(plane.zone("east").registrations) == 600, 300_000)
    assert 4 <= len(paused) <= 600 / 20


def test_garbage_for_devices_ends_in_dead_letters():
    plane = Plane(Memory())
    plane.submit(spec())
    plane.memory.run(limit=500)
    for what in ("announcements", "admissions", "receipts"):
        plane.memory.append(Send(f"{NS}.east.{what}", b"\xc1 no message", "x", 0))
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    letters = [read(r.topic, r.value) for r in plane.memory.records(f"{NS}.{GLOBAL}.dead-letters")]
    assert {x.topic.split(".")[2] for x in letters} == {"announcements", "admissions", "receipts"}
    assert {x.by for x in letters} == {"fleet-east"}


# ------------------------------------------------------------------ tenants


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"zones": ["east", "east"]}, "names one twice"),
        ({"limits": {"heaviest": 2**63}}, "heaviest"),
        ({"rounds": {"demand": 10**30}}, "demand"),
        ({"model_args": {"hidden": 10**30}}, "model_args"),
        ({"training": {"epochs": 10**6}}, "epochs"),
    ],
)
def test_task_files_are_bounded(more: dict[str, Any], says: str):
    with pytest.raises(BadTask, match=says):
        parse({"task": "t", "model": "mlp", "data": "digits"} | more)


def test_topics_that_cannot_be_made_are_the_tasks_own_fault():
    plane = Plane(Memory())
    plane.memory.create(f"{NS}.east.deltas.toy", 3)  # another number of partitions
    refused = plane.submit(spec())
    other = plane.submit(spec("other"))
    assert plane.memory.run(lambda: plane.ended("other"), 200_000)
    assert refused.stopped
    assert "its topics cannot be made" in refused.stopped.reason
    assert other.stopped == Stop("other runs in east, west", ok=True)
    assert not [h.stopped for h in plane.hosts.values() if h.stopped]


class Clumsy(Arithmetic):
    """Cannot train one of the tasks, and finds out only when it tries."""

    def run(self, a: Announcement, device: Any, base: np.ndarray) -> Any:
        if a.task == "evil":
            raise IndexError("Target 12 is out of bounds")
        return super().run(a, device, base)


def test_training_that_fails_is_objected_to_and_stops_nothing_else(monkeypatch):
    monkeypatch.setattr("tests.plane.Arithmetic", Clumsy)
    plane = Plane(Memory())
    plane.submit(spec("evil", minimum=1))
    plane.submit(spec())
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    assert not [h.stopped for h in plane.hosts.values() if h.stopped]
    said = objections(plane)
    assert {(o.source, o.task) for o in said} == {("fleet-east", "evil"), ("fleet-west", "evil")}
    assert all(o.reason.startswith("training failed: IndexError at test_bounds.py:") for o in said)
    assert not any("12" in o.reason.split("(")[1] for o in said), "a label of a device's data"


def test_a_model_that_cannot_be_scored_is_objected_to():
    plane = Plane(Memory())

    def score(s: Any, vector: np.ndarray) -> tuple[float, float, int]:
        if s.task == "evil":
            raise ValueError("unknown data")
        return 0.5, 1.0, 10

    plane.host("evaluator", lambda life: Evaluator(NS, "evaluator", life, score))
    plane.submit(spec("evil"))
    plane.submit(spec())
    assert plane.memory.run(lambda: plane.ended("toy") and plane.ended("evil"), 200_000)
    plane.memory.run(limit=1_000)
    assert plane.hosts["evaluator"].stopped is None
    assert [o.task for o in objections(plane)] == ["evil"] * 3  # version 0 and both epochs


def test_the_end_of_a_task_reaches_its_devices():
    plane = Plane(Memory(), devices=5)  # one too few: rounds stay open until their deadline
    plane.submit(spec(epochs=1, rounds=1, deadline_s=2, minimum=1))
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    plane.memory.run(limit=500)
    last = [read(r.topic, r.value) for r in plane.memory.records(f"{NS}.east.announcements", 0)][-1]
    assert isinstance(last, Announcement)
    assert not last.open
    (retired,) = (i for i, f in enumerate(plane.all_facts("east")) if isinstance(f, Retired))
    assert last.cause.offset == retired
    count = len(plane.memory.records(f"{NS}.east.announcements", 0))
    plane.memory.run(limit=30_000)
    assert len(plane.memory.records(f"{NS}.east.announcements", 0)) == count  # said once


# ------------------------------------------------------------------ operators


def test_a_globe_that_is_not_told_of_a_zone_stops_in_words():
    plane = Plane(Memory())
    plane.submit(spec())
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    plane.hosts["global"].close()
    again = plane.memory.host(lambda life: GlobalCoordinator(NS, ("east",), plane.partitions, "again", life))
    assert plane.memory.run(lambda: again.stopped is not None, 20_000)
    assert again.stopped
    assert again.stopped.reason == "zones west are part of the globe and not named here: add them to --zones"


def test_the_submitter_reads_the_verdict_and_waits_for_no_acknowledgement():
    """The admission is there before the broker has said that the submission is."""
    plane = Plane(Memory())
    s = plane.submit(spec())
    give = plane.memory._give

    def deaf(host: Any, event: Any) -> None:
        asked = host is s and isinstance(event, Answer) and host.processor.requests.open.get(event.tag)
        if asked != ("submitted",):
            give(host, event)

    plane.memory._give = deaf  # type: ignore[method-assign]
    assert plane.memory.run(lambda: s.stopped is not None, 20_000)
    assert s.stopped == Stop("toy runs in east, west", ok=True)


def test_pseudonyms_of_the_plane_are_what_the_ledger_holds():
    plane = Plane(Memory())
    plane.submit(spec())
    assert plane.memory.run(lambda: any(isinstance(f, Finalised) for f in plane.facts("east")), 60_000)
    slots = [x.device for f in plane.facts("east") if isinstance(f, Admitted) for x in f.slots]
    assert pseudonym("east-0", "east", "default", b"olearning") in slots
    assert not any(x.startswith("east-") for x in slots)
