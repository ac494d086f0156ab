"""What a round is worth (OLearning §5.1): in the ledger, on the announcements, and what it is made of, computed again here."""

import numpy as np
import pytest

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from schemas.facts import Closed, Finalised, Merged, Opened, Taken
from schemas.messages import Announcement
from schemas.topics import GLOBAL, read, topic
from streams.memory import Memory
from tests.plane import NS, Arithmetic, Plane, spec

PATIENT = {"deadline_s": 100, "lease_s": 50}


@pytest.fixture(scope="module")
def plane() -> Plane:
    plane = Plane(Memory(seed=3))
    plane.submit(spec(epochs=3, **PATIENT))
    assert plane.memory.run(lambda: plane.ended("toy"), 400_000)
    return plane


def of(plane: Plane, zone: str, kind: type) -> list:
    return [f for f in plane.facts(zone) if isinstance(f, kind)]


def test_before_the_first_merge_all_zones_have_the_same(plane):
    for zone in plane.zones:
        first = of(plane, zone, Opened)[:2]
        assert [(f.worth.contribution, f.worth.progress, f.worth.reward) for f in first] == [(0.5, 1.0, 0.5)] * 2


def test_contribution_is_how_far_the_zones_models_were_from_the_merged_one(plane):
    for merged in of(plane, GLOBAL, Merged):
        updates = {u.zone: u for f in of(plane, GLOBAL, Taken) if f.epoch == merged.epoch for u in f.updates}
        new = plane.vector(merged.manifest).astype(float)
        far = {z: np.linalg.norm(plane.vector(u.manifest) - new) for z, u in updates.items()}
        assert merged.contributions == pytest.approx({z: d / sum(far.values()) for z, d in far.items()})
        for zone in plane.zones:
            opened = [f for f in of(plane, zone, Opened) if f.epoch == merged.epoch + 1]
            assert all(f.worth.contribution == merged.contributions[zone] for f in opened)
    assert {m.contributions["east"] for m in of(plane, GLOBAL, Merged)} != {0.5}  # else this shows nothing


def test_progress_is_that_of_the_two_rounds_before(plane):
    for zone in plane.zones:
        done = of(plane, zone, Finalised)
        for opened in of(plane, zone, Opened)[2:]:
            a, b = done[opened.round - 3], done[opened.round - 2]
            loss = [f.loss / 1e6 / f.samples for f in (a, b)]
            made = ((a.norm - b.norm) / (a.norm + 1e-8)) ** 2 * max(0, (loss[0] - loss[1]) / (loss[0] + 1e-8))
            assert opened.worth.progress == pytest.approx(max(1e-4, made), rel=1e-9)
            assert opened.worth.reward == pytest.approx(opened.worth.contribution * opened.worth.progress)


def test_the_globe_knows_each_zones_progress(plane):
    for taken in of(plane, GLOBAL, Taken):
        for u in taken.updates:
            later = [f for f in of(plane, u.zone, Opened) if f.round == u.round + 1]
            assert all(u.progress == f.worth.progress for f in later)


def test_a_round_s_norm_is_that_of_the_mean_delta_not_of_the_optimiser_s_step(plane):
    """FedAvg at rate 1 steps by the mean: there both are the same; at rate 1/2 they are not."""
    for f in of(plane, "east", Finalised):
        opened = next(o for o in of(plane, "east", Opened) if o.round == f.round)
        step = np.linalg.norm(plane.vector(f.manifest).astype(float) - plane.vector(opened.base))
        assert f.norm == pytest.approx(step, rel=1e-5)
    from msgspec.structs import replace

    from schemas.task import Server

    half = Plane(Memory(seed=3))
    half.submit(replace(spec(epochs=1, **PATIENT), server=Server(learning_rate=0.5)))
    assert half.memory.run(lambda: half.ended("toy"), 400_000)
    f, opened = of(half, "east", Finalised)[0], of(half, "east", Opened)[0]
    step = np.linalg.norm(half.vector(f.manifest).astype(float) - half.vector(opened.base))
    assert f.norm == pytest.approx(2 * step, rel=1e-5)


def test_announcements_say_the_reward(plane):
    for zone in plane.zones:
        name = topic(NS, zone, "announcements").name
        said = {}
        for p in range(plane.partitions):
            for r in plane.memory.records(name, p):
                a = read(name, r.value, r.headers)
                assert isinstance(a, Announcement)
                said.setdefault(a.round, set()).add(a.reward)
        assert said == {f.round: {f.worth.reward} for f in of(plane, zone, Opened)}


def test_a_task_that_starved_is_worth_more_in_the_next_round_until_devices_come():
    plane = Plane(Memory(seed=1), zones=("east",), devices=3, manner=Manner(training=(50, 300), reaction=50))
    plane.submit(spec(demand=5, minimum=2, epochs=1, rounds=5, deadline_s=3, lease_s=2))
    assert plane.memory.run(lambda: len(of(plane, "east", Closed)) == 2, 200_000)
    more = [Device(f"east-{k}", k) for k in range(3, 6)]
    plane.host("more", lambda life: Fleet(NS, "east", "more", life, more, Arithmetic(), plane.manner))
    assert plane.memory.run(lambda: plane.ended("toy"), 400_000)
    worth = [f.worth for f in of(plane, "east", Opened)]
    assert [w.starved for w in worth][:3] == [0, 1, 2]
    assert worth[0].reward == worth[1].reward == 1.0  # a new task is at the top already
    assert worth[2].reward == pytest.approx(max(worth[2].progress, min(1, max(worth[2].progress, 1e-4) * 4)))
    assert 0 in [w.starved for w in worth][3:]
