"""What becomes of a submission, in words a person can act on."""

from typing import Any

import numpy as np

from processors.submitter import Submitter
from schemas.blocks import Manifest, Place, Tensor, layout
from schemas.facts import TaskAdmitted, TaskRefused
from schemas.task import Limits, Rounds, Submission, TaskSpec
from schemas.topics import GLOBAL, topic, zone_topics
from streams.memory import Host, Memory
from streams.processor import Send, Stop, send
from tests.plane import LAYOUT, NS, START, Plane, spec


def verdict(plane: Plane, host: Host) -> Stop:
    assert plane.memory.run(lambda: host.stopped is not None)
    assert host.stopped
    return host.stopped


def test_admitted():
    plane = Plane(Memory())
    assert verdict(plane, plane.submit(spec())) == Stop("toy runs in east, west", ok=True)
    (fact,) = (f for f in plane.facts(GLOBAL) if isinstance(f, TaskAdmitted))
    assert (fact.spec, fact.layout, fact.seed) == (spec(), LAYOUT, 1)
    assert plane.vector(fact.manifest).tobytes() == START.tobytes()
    for zone in plane.zones:  # its topics are there before the fact
        assert len(plane.memory.topics[f"{NS}.{zone}.deltas.toy"]) == plane.partitions


def test_admitted_in_the_zones_it_names():
    plane = Plane(Memory())
    task = TaskSpec(task="toy", model="m", data="d", zones=("west",))
    assert verdict(plane, plane.submit(task)) == Stop("toy runs in west", ok=True)
    assert f"{NS}.east.deltas.toy" not in plane.memory.topics


def test_an_unknown_zone_is_refused_and_the_name_stays_free():
    plane = Plane(Memory())
    task = TaskSpec(task="toy", model="m", data="d", zones=("west", "mars"))
    said = verdict(plane, plane.submit(task))
    assert not said.ok
    assert said.reason == "toy is refused: zones mars are not known; known: east, west"
    assert verdict(plane, plane.submit(spec())).ok
    assert plane.globe().refused == {}


def test_more_deltas_than_a_sum_holds_are_refused():
    plane = Plane(Memory())
    big = Limits(unit=-24, largest=2.0**37)
    task = TaskSpec(task="toy", model="m", data="d", rounds=Rounds(demand=4), limits=big)
    said = verdict(plane, plane.submit(task))
    assert not said.ok
    assert "a round of this model can have 3 slots" in said.reason
    assert "it wants 6 places" in said.reason


def test_refused_again_is_said_again():
    plane = Plane(Memory())
    task = TaskSpec(task="toy", model="m", data="d", zones=("mars",))
    for _ in range(2):
        assert "mars" in verdict(plane, plane.submit(task)).reason
    refusals = [f for f in plane.facts(GLOBAL) if isinstance(f, TaskRefused)]
    assert len({f.submission for f in refusals}) == 2


def test_a_refusal_is_heard_though_the_submission_landed_twice():
    plane = Plane(Memory())
    tasks = topic(NS, GLOBAL, "tasks").name
    plane.memory.network = lambda host, s: [5, 5] if s.topic == tasks else [plane.memory.delay()]
    plane.memory.run(limit=500)
    plane.hosts["global"].crash()
    host = plane.submit(TaskSpec(task="toy", model="m", data="d", zones=("mars",)))
    plane.memory.run(limit=500)
    assert len(plane.memory.records(tasks)) == 2
    plane.hosts["global"].restart()  # it reads both, and decides on the last
    assert verdict(plane, host).reason.startswith("toy is refused: zones mars are not known")


def test_a_used_name_is_refused_before_anything_is_written():
    plane = Plane(Memory())
    assert verdict(plane, plane.submit(spec())).ok
    before = [len(log) for log in plane.memory.topics[f"{NS}.{GLOBAL}.tasks"]]
    said = verdict(plane, plane.submit(spec(demand=3)))
    assert not said.ok
    assert "a task named toy exists already" in said.reason
    assert [len(log) for log in plane.memory.topics[f"{NS}.{GLOBAL}.tasks"]] == before


def test_of_two_at_the_same_moment_one_gets_the_name_and_the_other_is_told():
    for seed in range(6):
        plane = Plane(Memory(seed=seed, latency=(1, 30)))
        plane.memory.run(limit=2_000)
        hosts = [plane.submit(spec(), seed=n) for n in (1, 2)]
        said = [verdict(plane, h) for h in hosts]
        assert sorted(s.ok for s in said) == [False, True]
        assert all(s.ok or "by someone else" in s.reason or "exists already" in s.reason for s in said)
        assert plane.globe().tasks["toy"].seed == 1 + [s.ok for s in said].index(True)


def alone(patience: int = 3_000) -> tuple[Memory, Host]:
    memory = Memory()
    for t in zone_topics(NS, GLOBAL):
        memory.create(t.name, t.partitions(4))
    return memory, memory.host(lambda life: Submitter(NS, life, spec(), LAYOUT, START, patience=patience))


def test_without_a_coordinator_it_says_what_to_start():
    memory, host = alone()
    memory.run(lambda: host.stopped is not None)
    assert host.stopped == Stop(
        "no verdict on toy within 3 s: there is no global coordinator (olearning run global)", ok=False
    )
    assert memory.now < 4_000


def test_without_its_zones_it_says_which_are_missing():
    plane = Plane(Memory())
    for name in ("zone-west", "agg-west-0", "agg-west-1"):
        plane.hosts[name].crash()
    task: Any = TaskSpec(task="toy", model="m", data="d", zones=("west",))
    host = plane.memory.host(lambda life: Submitter(NS, life, task, LAYOUT, START, patience=3_000))
    said = verdict(plane, host)
    assert not said.ok
    assert "zones west have not joined; joined: east" in said.reason


def test_garbage_among_the_tasks_stops_nobody():
    plane = Plane(Memory())
    tasks = topic(NS, GLOBAL, "tasks")
    for value in (b"\xff", b"", None):  # the last is a tombstone
        plane.memory.append(Send(tasks.name, value, "x", 0))
    absurd = Submission(spec("absurd"), LAYOUT, Manifest(f"{NS}.{GLOBAL}.models", 0, ()))
    plane.memory.append(send(tasks, absurd, "absurd"))
    assert verdict(plane, plane.submit(spec())).ok
    plane.memory.run(limit=1_000)
    assert "names 0 blocks, the layout 2" in plane.globe().refused["absurd"].reason
    assert len(plane.memory.records(f"{NS}.{GLOBAL}.dead-letters")) == 2


def test_a_large_model_goes_out_in_blocks():
    plane = Plane(Memory(), devices=0)
    big = layout((Tensor("w", (300,)), Tensor("b", (41,))), block=100)
    vector = np.arange(341, dtype=np.float32)
    host = plane.memory.host(lambda life: Submitter(NS, life, spec(), big, vector))
    assert verdict(plane, host).ok
    manifest = plane.globe().tasks["toy"].manifest
    assert len(manifest.blocks) == 4
    assert plane.vector(manifest).tobytes() == vector.tobytes()


def bad(plane: Plane, manifest: Manifest) -> str:
    """What the ledger says of a task whose version 0 lies there."""
    plane.memory.append(send(topic(NS, GLOBAL, "tasks"), Submission(spec("evil"), LAYOUT, manifest), "evil"))
    assert plane.memory.run(lambda: "evil" in plane.globe().refused)
    return plane.globe().refused["evil"].reason


def test_a_model_that_is_not_there_is_refused_and_stops_nobody():
    plane = Plane(Memory())
    plane.submit(spec())
    nowhere = tuple(Place(0, 0, f"nowhere/{i}", 0) for i in range(len(LAYOUT.sizes)))
    assert "nowhere/0" in bad(plane, Manifest(f"{NS}.{GLOBAL}.models", 0, nowhere))
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    assert not [h.stopped for h in plane.hosts.values() if h.stopped]


def test_a_model_in_another_topic_is_refused():
    plane = Plane(Memory())
    reason = bad(plane, Manifest("elsewhere", 0, tuple(Place(0, 0, f"k{i}", 0) for i in range(len(LAYOUT.sizes)))))
    assert reason == f"version 0 lies in elsewhere; it must lie in {NS}.{GLOBAL}.models"


def test_a_model_that_is_not_called_the_first_is_refused():
    """An epoch's model has its number."""
    reason = bad(Plane(Memory()), Manifest(f"{NS}.{GLOBAL}.models", 5, ()))
    assert reason == "its model is called version 5; the first one is version 0"


def test_a_model_of_another_size_is_refused():
    plane = Plane(Memory())
    assert verdict(plane, plane.submit(spec())).ok
    manifest = plane.globe().tasks["toy"].manifest
    other = layout((Tensor("w", (7,)), Tensor("b", (9,), group="head")))
    plane.memory.append(send(topic(NS, GLOBAL, "tasks"), Submission(spec("evil"), other, manifest), "evil"))
    assert plane.memory.run(lambda: "evil" in plane.globe().refused)
    assert plane.globe().refused["evil"].reason == "version 0 has 12 values, the layout 16"
