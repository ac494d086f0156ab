"""OLearning whole: three zones, two tenants' tasks of different demand, devices that choose, move and fail, two compressed days.

One run, in memory and on real Kafka with every role a process of its own; then each mechanism is looked for in what was said.
"""

import asyncio
import secrets
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from device_sim.pseudonym import pseudonym
from learning.rewards import FLOOR, Measured, boosted, progress
from olearning.planes import Processes
from olearning.roles import Role, population
from olearning.submitting import submitter
from processors.submitter import Submitter
from schemas.facts import (
    Admitted,
    Closed,
    Committed,
    EpochClosed,
    EpochOpened,
    Finalised,
    Merged,
    Opened,
    Retired,
    Scored,
    TaskEnded,
    ZoneJoined,
)
from schemas.messages import (
    Admission,
    Announcement,
    CheckIn,
    Evaluation,
    Receipt,
    Refusal,
    Registration,
    RegistryReport,
)
from schemas.topics import GLOBAL
from streams.ledger import identity
from streams.memory import Memory
from tests.integration.scribe import Scribe

ZONES = {"east": 3.0, "mid": 0.0, "west": -3.0}
DEVICES = 12
DAY_S = 60.0
SEED = 5
SLACK = 3_000
"""ms from a device's bid to its record: processes may be slow."""
ACME, BETA = "acme-digits", "beta-digits"
SHARED = """
model = "mlp"
data = "digits"
data_args = { devices = 36, alpha = 1.0 }
training = { epochs = 2, batch = 10, learning_rate = 0.2 }
"""
TASKS = {
    ACME: f'''
task = "{ACME}"
tenant = "acme"
{SHARED}
rounds = {{ demand = 4, over_commit = 1.25, minimum = 2, deadline_s = 6, lease_s = 3 }}
epochs = {{ count = 9, rounds = 4, deadline_s = 60 }}
stop = {{ accuracy = 0.8, wait_s = 10 }}
''',
    BETA: f'''
task = "{BETA}"
tenant = "beta"
{SHARED}
rounds = {{ demand = 30, over_commit = 1.0, minimum = 2, deadline_s = 5, lease_s = 3 }}
epochs = {{ count = 4, rounds = 100, window_s = 25, deadline_s = 40 }}
''',
}


def roles(namespace: str, origin: int) -> list[Role]:
    p = {"partitions": "4"}
    out = [Role("global", "global", namespace, options={"zones": ",".join(ZONES), **p})]
    out += [Role("zone", f"zone-{z}", namespace, z, p) for z in ZONES]
    out += [Role("aggregator", f"aggregator-{z}", namespace, z, p) for z in ZONES]
    out += [Role("scheduler", "scheduler", namespace, options=p), Role("evaluator", "evaluator", namespace, options=p)]
    for i, z in enumerate(ZONES):
        options = {
            "count": str(DEVICES),
            "first": str(i * DEVICES),
            "day-seconds": str(DAY_S),
            "origin-ms": str(origin),
            "offsets": ",".join(f"{name}={hours:g}" for name, hours in ZONES.items()),
            "travel": "0.4",
            "drop": "0.1",
            "slow": "0.1",
            "interrupted": "0.2",
            "resend": "0.2",
            "seed": str(SEED),
        }
        out.append(Role("fleet", f"fleet-{z}", namespace, z, options | p))
    return out


def tasks(namespace: str, folder: Path) -> list[Submitter]:
    made = []
    for name, text in TASKS.items():
        file = folder / f"{name}.toml"
        file.write_text(text)
        made.append(submitter(file, namespace, SEED, wait_s=120)("life"))
    return made


def evening(now: int) -> int:
    """An origin such that the first zone's evening begins at `now`."""
    return now - round(1000 * DAY_S * (21.5 - 3.0) / 24)


def in_memory(folder: Path) -> Scribe:
    memory, namespace = Memory(seed=SEED), "whole"
    for role in roles(namespace, evening(0)):
        for topic, partitions in role.topics():
            memory.create(topic.name, partitions)
        memory.host(role.build)
    for submitted in tasks(namespace, folder):
        memory.host(lambda life, s=submitted: s)
    scribe = Scribe(namespace, tuple(ZONES), tuple(TASKS), origin=evening(0))
    host = memory.host(lambda life: scribe)
    assert memory.run(lambda: host.stopped is not None, 400_000), "it does not end"
    return scribe


async def on_kafka(bootstrap: str, folder: Path) -> Scribe:
    namespace = f"whole-{secrets.token_hex(4)}"
    said: list[str] = []
    plane = Processes(bootstrap, folder, said.append, 6_000, 0.5)
    made = tasks(namespace, folder)
    origin = evening(time.time_ns() // 1_000_000 + 10_000)
    scribe = Scribe(namespace, tuple(ZONES), tuple(TASKS), origin=origin)
    try:
        everyone = roles(namespace, origin)
        await plane.start([r for r in everyone if r.kind != "fleet"])
        await plane.start([r for r in everyone if r.kind == "fleet"])
        watching = asyncio.create_task(plane.host(lambda life: scribe))
        for s in made:
            submitted = await plane.host(lambda life, s=s: s)
            assert submitted.ok, submitted.reason
        async with asyncio.timeout(220):
            ended = await watching
        assert ended.ok, (ended.reason, said)
    finally:
        await plane.stop()
    assert said == [], "roles ended and were started again"
    return scribe


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            "memory", marks=[pytest.mark.program, pytest.mark.xdist_group("whole")]
        ),  # one run for all that look at it
        pytest.param("kafka", marks=pytest.mark.kafka),
    ],
)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scribe:
    folder = tmp_path_factory.mktemp("whole")
    if request.param == "memory":
        return in_memory(folder)
    return asyncio.run(on_kafka(request.getfixturevalue("broker"), folder))


# ------------------------------------------------------------------ the globe


def test_zones_joined_and_both_tasks_ended_everywhere(run):
    assert {f.zone for f in run.of(ZoneJoined)} == set(ZONES)
    assert {f.task for f in run.of(TaskEnded)} == set(TASKS)


def test_a_task_ended_early_because_its_target_was_reached_and_the_ledger_says_so(run):
    (ended,) = run.of(TaskEnded, task=ACME)
    assert "is reached, and 0.8 was wanted" in ended.why
    scores = run.of(Scored, task=ACME)
    assert [s.accuracy >= 0.8 for s in scores] == [False] * (len(scores) - 1) + [True]
    assert len(run.of(EpochOpened, task=ACME)) < 9


def test_the_other_ran_all_its_epochs(run):
    (ended,) = run.of(TaskEnded, task=BETA)
    assert ended.why == "all 4 epochs are done"


def test_epochs_end_by_rounds_for_one_and_by_time_for_the_other(run):
    assert {f.why for f in run.of(EpochClosed, task=ACME)} <= {"rounds", "deadline"}
    assert "rounds" in {f.why for f in run.of(EpochClosed, task=ACME)}
    assert {f.why for f in run.of(EpochClosed, task=BETA)} == {"window"}


def test_contributions_are_shares_and_zones_differ(run):
    merges = [f for f in run.of(Merged) if f.manifest]
    assert len(merges) >= 3
    for f in merges:
        assert set(f.contributions) == set(ZONES)
        assert sum(f.contributions.values()) == pytest.approx(1)
    assert any(max(f.contributions.values()) > 1.05 / 3 for f in merges)


def test_global_models_are_scored_on_held_out_data(run):
    for task in TASKS:
        scored = {e.epoch: e for e in run.said(Evaluation, task=task)}
        merged = [f.epoch for f in run.of(Merged, task=task) if f.manifest]
        assert set(merged) | {0} == set(scored)
        assert scored[max(scored)].accuracy > scored[0].accuracy + 0.3


def test_the_registry_counts_devices_and_who_moved(run):
    last = run.said(RegistryReport)[-1]
    assert set(last.zones) == set(ZONES)
    assert sum(p.left for p in last.zones.values()) > 0
    assert 0 < sum(p.devices for p in last.zones.values()) <= len(ZONES) * DEVICES


# ------------------------------------------------------------------ the zones


def test_rewards_are_what_the_ledgers_say_and_are_announced(run):
    """Eqs. 1 and 2, and the boost, recomputed from the facts before each round."""
    said = {(z, a.task, a.round): a.reward for z in ZONES for a in run.said(Announcement, z) if not a.over}
    compared = 0
    for zone in ZONES:
        measured: dict[str, list[Measured]] = defaultdict(list)
        starved: Counter[str] = Counter()
        for z, _, f in run.facts:
            if z != zone:
                continue
            if isinstance(f, Finalised) and f.manifest:
                measured[f.task].append(Measured(f.norm, f.loss / 1e6 / f.samples))
            elif isinstance(f, Opened):
                w = f.worth
                assert w.progress == progress(measured[f.task])
                assert w.starved == starved[f.task]
                assert w.reward == boosted(max(FLOOR, w.contribution) * w.progress, w.starved)
            elif isinstance(f, Closed):
                enough = len(run_devices(run, zone, f.task, f.round)) >= opened(run, zone, f.task, f.round).demand
                starved[f.task] = 0 if enough else starved[f.task] + 1
        for f in run.of(Opened, zone):
            if (zone, f.task, f.round) in said:
                assert said[zone, f.task, f.round] == f.worth.reward
                compared += 1
    assert compared > 20


def opened(run: Scribe, zone: str, task: str, n: int) -> Opened:
    return next(f for f in run.of(Opened, zone, task) if f.round == n)


def run_devices(run: Scribe, zone: str, task: str, n: int) -> list[str]:
    return [s.device for f in run.of(Admitted, zone) for s in f.slots if (s.task, s.round) == (task, n)]


def test_progress_is_1_in_the_first_two_rounds_and_falls_at_some_time(run):
    for zone in ZONES:
        worth = [f.worth.progress for f in run.of(Opened, zone, ACME)]
        assert worth[:2] == [1.0, 1.0]
        assert min(worth) < 0.1


def test_a_starving_task_is_worth_more_round_by_round(run):
    """Beta wants 30 devices, and no zone has so many."""
    raised = [f.worth for z in ZONES for f in run.of(Opened, z, BETA) if f.worth.starved]
    assert raised
    assert all(w.reward >= w.contribution * w.progress for w in raised)
    assert any(w.reward > w.contribution * w.progress for w in raised)


def test_a_full_round_refuses_with_a_time_to_try_again(run):
    refused = [r for r in run.said(Refusal, task=ACME) if r.reason == "the round is full"]
    assert refused
    assert all(r.retry_ms > 0 for r in refused)
    for zone in ZONES:
        for f in run.of(Opened, zone, ACME):
            lapsed = [x for a in run.of(Admitted, zone) for x in a.lapsed if (x.task, x.round) == (ACME, f.round)]
            assert len(run_devices(run, zone, ACME, f.round)) <= f.places + len(lapsed)


def test_admissions_say_what_the_ledger_gave(run):
    given = {(z, s.task, s.round, s.slot, s.device) for z in ZONES for f in run.of(Admitted, z) for s in f.slots}
    for zone in ZONES:
        for a in run.said(Admission, zone):
            assert (zone, a.task, a.round, a.slot, a.device) in given


def test_leases_of_devices_that_left_ended(run):
    assert [x for z in ZONES for f in run.of(Admitted, z) for x in f.lapsed]


def test_rounds_closed_by_demand_and_by_deadline(run):
    assert {f.why for z in ZONES for f in run.of(Closed, z, ACME)} == {"demand", "deadline"}


# ------------------------------------------------------------------ devices


def names(zone: str, tenant: str) -> dict[str, str]:
    """By pseudonym in a zone, the device."""
    everyone = [f"{home}-{i * DEVICES + k}" for i, home in enumerate(ZONES) for k in range(DEVICES)]
    return {pseudonym(d, zone, tenant, b"olearning"): d for d in everyone}


def test_devices_of_both_tenants_bid_under_names_that_nobody_can_link(run):
    for zone in ZONES:
        for task, tenant in ((ACME, "acme"), (BETA, "beta")):
            bid = {r.device for r in run.said(Registration, zone, task)}
            assert bid
            assert bid <= set(names(zone, tenant))
    both = [{r.device for r in run.said(Registration, "mid", t)} for t in TASKS]
    assert not both[0] & both[1]


def test_devices_moved_and_took_part_in_both_zones(run):
    """Some say goodbye in one zone, check in in another, and have slots in both."""
    assert [c for c in run.said(CheckIn) if c.gone]
    where: dict[str, set[str]] = defaultdict(set)
    for zone in ZONES:
        for tenant in ("acme", "beta"):
            known = names(zone, tenant)
            for f in run.of(Admitted, zone):
                for s in f.slots:
                    if s.device in known:
                        where[known[s.device]].add(zone)
    moved = [d for d, zones in where.items() if len(zones) > 1]
    assert moved


def test_devices_bid_only_when_they_are_free_where_they_are(run):
    """Each by its own nights, three hours apart from zone to zone, and by its own journeys."""
    crowd = {}
    for role in roles("any", run.origin):
        if role.kind == "fleet":
            crowd |= {d.id: d for d in population(role.zone, role.options).devices()}
    looked = 0
    for h in run.heard:
        if isinstance(h.message, Registration):
            tenant = "acme" if h.message.task == ACME else "beta"
            d = crowd[names(h.zone, tenant)[h.message.device]]
            moments = range(h.at - SLACK, h.at + 1, 50)
            assert any(d.nights.window(at) and d.journey.zone(at) == h.zone for at in moments), (d.id, h)
            looked += 1
    assert looked > 200
    asleep = [d.id for d in crowd.values() if d.nights.window(run.origin + round(1000 * DAY_S / 2)) is None]
    assert len(asleep) > len(crowd) / 2, "by day most are not"


def test_nothing_is_lost_and_nothing_counted_twice(run):
    for zone in ZONES:
        for task in TASKS:
            state = run.ledgers[zone].state
            assert state.over[task].tally.adds_up(0) if task in state.over else identity(state.tasks[task])
            done = [(d.round, d.slot) for f in run.of(Committed, zone, task) for d in f.done]
            assert len(done) == len(set(done))
            by_round = Counter(f.round for f in run.of(Committed, zone, task) for _ in f.done)
            for f in run.of(Finalised, zone, task):
                assert f.devices == by_round[f.round]
    for task in TASKS:
        merged = sum(f.samples for f in run.of(Merged, task=task))
        assert merged <= sum(f.samples for z in ZONES for f in run.of(Finalised, z, task) if f.manifest)


def test_what_was_sent_twice_was_counted_once(run):
    outcomes = Counter(r.outcome for r in run.said(Receipt))
    assert outcomes["counted"] > 100
    assert outcomes["duplicate"] > 0


def test_the_merged_model_is_made_of_the_zones_that_did_something(run):
    for f in run.of(Merged):
        assert (f.manifest is None) == (f.samples == 0)
    assert np.isfinite([f.norm for f in run.of(Merged)]).all()


def test_both_are_retired_in_the_globe(run):
    assert run.ledgers[GLOBAL].state.over.keys() == set(TASKS)
    assert {f.task for f in run.of(Retired)} <= set(TASKS)
