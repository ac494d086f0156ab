"""`make chaos` in short: a few faults on one real broker, and the same with a guard taken out, which must go red."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from schemas.facts import SharingSet
from schemas.topics import zone_topics
from streams.broker import settings
from streams.memory import Memory
from streams.queries import Cluster
from tests.chaos.cluster import Brokers, health
from tests.chaos.controls import without
from tests.chaos.faults import KILL, STOP, Plan, Ran, draw, judge, run, show, unheard, until
from tests.chaos.matrix import Fault, matrix
from tests.chaos.watch import ADMITTING, ARRIVING, CLOSING, MERGING, STORED, Watch
from tests.chaos.workload import DIGITS, SENTINELS, ZONES, Work, account, differing


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_faults_lose_and_double_nothing_and_change_no_bit(tmp_path: Path) -> None:
    """The undisturbed run is in memory: both runtimes carry out the same thing."""
    work = Work(epochs=2, rounds=4)
    plan = [
        Plan("aggregator", KILL, "east", SENTINELS, STORED),
        Plan("aggregator", STOP, "west", DIGITS, ARRIVING),
        Plan("scheduler", KILL, "east", SENTINELS, ADMITTING),
        Plan("zone", STOP, "east", SENTINELS, CLOSING),
        Plan("broker", KILL, "west", SENTINELS, ARRIVING),
        Plan("global", KILL, "east", DIGITS, MERGING),
    ]
    calm = Ran(undisturbed(work), [], 0, [], 0)
    with Brokers(tmp_path / "broker", 1) as brokers:
        ran = asyncio.run(run(brokers.bootstrap, tmp_path / "roles", work, plan, brokers))
    found = judge(calm, ran, work)
    show(found, ran, 0)
    assert len(ran.faults) == len(plan)
    assert found.good
    assert ran.verified == 2 * len(ZONES) * work.epochs * work.rounds


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_control_without_fencing_it_goes_red(tmp_path: Path) -> None:
    """Aggregators are stopped while deltas arrive, and wake while others still train: what they had read is in the model twice."""
    work = Work(epochs=1, rounds=3, training=False, slowest_ms=9_000, commit_ms=1_000)
    plan = [Plan("aggregator", STOP, zone, SENTINELS, ARRIVING) for zone in ZONES * 2]
    with Brokers(tmp_path / "broker", 1) as brokers, without("fencing"):
        ran = asyncio.run(run(brokers.bootstrap, tmp_path / "roles", work, plan, brokers, "fencing", seconds=60))
    found = account(ran.watch, work)
    print(found, ran.troubles)
    assert ran.troubles or not found.good


# ------------------------------------------------------------------ three brokers


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_topics_have_three_replicas_even_if_a_broker_is_away_as_they_are_made(tmp_path: Path) -> None:
    async def make(bootstrap: str, namespace: str) -> dict[str, set[int]]:
        cluster = Cluster(bootstrap, "test")
        await cluster.start()
        try:
            await cluster.create([(t, t.partitions(4)) for t in zone_topics(namespace, "east")])
            assert await cluster.ends(f"{namespace}.east.ledger") == {0: 0}

            async def ask() -> dict[str, set[int]]:
                admin = await cluster._client(AIOKafkaAdminClient)
                found = await admin.describe_topics([t.name for t in zone_topics(namespace, "east")])
                return {t["topic"]: {len(p["replicas"]) for p in t["partitions"]} for t in found}

            return await cluster._persist(ask)  # the broker that was asked may be the one that is away
        finally:
            await cluster.stop()

    with Brokers(tmp_path, 3) as brokers:
        for namespace in ("all", "two"):
            made = asyncio.run(make(brokers.bootstrap, namespace))
            assert set(map(frozenset, made.values())) == {frozenset({3})}, made
            whole = namespace == "all"
            asyncio.run(until(lambda: health(brokers.bootstrap), lambda h, w=whole: h.led() and h.whole == w))
            brokers.nodes[0].kill()
        brokers.nodes[0].start()
        asyncio.run(until(lambda: health(brokers.bootstrap), lambda h: h.whole))


def test_a_broker_of_three_is_set_up_for_the_loss_of_one() -> None:
    alone, third = settings(1, 2, "d"), settings(1, 2, "d", node=3, voters="1@h:1,2@h:2,3@h:3")
    assert {"offsets.topic.replication.factor=3", "min.insync.replicas=2", "node.id=3"} <= set(third.splitlines())
    assert {"offsets.topic.replication.factor=1", "min.insync.replicas=1", "node.id=1"} <= set(alone.splitlines())
    assert "unclean.leader.election.enable=false" in third


# ------------------------------------------------------------------ the checker, in memory


def undisturbed(work: Work) -> Watch:
    """The work in memory, in virtual time, with one of each role: nothing happens."""
    memory = Memory(seed=3)
    for role in work.roles("calm"):
        if not role.name.endswith(("-b", "-1")):
            for topic, partitions in role.topics():
                memory.create(topic.name, partitions)
            memory.host(role.build)
    for f in (*work.fleets("calm"), *work.words("calm"), *work.submitters("calm")):
        memory.host(lambda life, f=f: f)  # type: ignore[misc]
    watch = Watch("calm", ZONES, work.tasks, 4)
    watching = memory.host(lambda life: watch)
    assert memory.run(lambda: watching.stopped is not None, 300_000)
    assert watching.stopped
    assert watching.stopped.ok, watching.stopped.reason
    return watch


@pytest.fixture
def watch() -> Watch:
    return undisturbed(Work(training=False))


def test_a_run_without_faults_is_good(watch: Watch) -> None:
    found = account(watch, Work(training=False))
    assert found.good, found
    assert found.sent == 2 * 6 * 8
    assert differing(watch, watch) == []


@pytest.mark.parametrize(("share", "what"), [(0, "lost"), (2, "doubled")])
def test_control_one_wrong_sentinel_is_named(watch: Watch, share: int, what: str) -> None:
    (base, model) = next((b, m) for z, n, b, m in watch.bases(SENTINELS) if (z, n) == ("west", 2))
    wrong = model.copy()
    wrong[11] = base[11] + share / 8
    watch.models["west", SENTINELS, 2] = wrong
    found = account(watch, Work(training=False))
    assert getattr(found, what) == ["sentinel 11 in round 2 of zone west"]
    assert not found.good


def test_control_one_bit_is_seen(watch: Watch) -> None:
    other = Watch("other", ZONES, (SENTINELS,), 4)
    other.models = {k: m.copy() for k, m in watch.models.items()}
    one = other.models["global", SENTINELS, 2]
    one[3] = np.nextafter(one[3], np.float32(np.inf))
    assert differing(watch, other) == ["sentinels 2 of global"]
    del other.models["east", SENTINELS, 4]
    assert differing(watch, other) == ["sentinels 4 of east", "sentinels 2 of global"]


def test_control_a_policy_that_was_said_to_hold_and_is_no_fact_is_named(watch: Watch) -> None:
    assert unheard(watch, 1) == []
    assert unheard(watch, 2) == ["the policies set were ['word 0'], not ['word 0', 'word 1']"]
    watch.accepted.append(next(x for x in watch.accepted if isinstance(x[1], SharingSet)))  # held twice
    assert unheard(watch, 1) == []  # the last one may be there, though nobody said so
    watch.accepted.append(watch.accepted[-1])
    assert unheard(watch, 1)


# ------------------------------------------------------------------ what is drawn, what is printed


def test_the_same_seed_draws_the_same_and_all_kinds_come() -> None:
    tasks = (SENTINELS, DIGITS)
    plans = draw(60, 7, 3, tasks)
    assert plans == draw(60, 7, 3, tasks) != draw(60, 8, 3, tasks)
    kinds = Counter((p.role, p.how) for p in plans)
    assert {(r, h) for r in ("aggregator", "zone", "global", "scheduler") for h in (KILL, STOP)} <= kinds.keys()
    assert {("broker", h) for h in ("restart", KILL, STOP, "lost")} <= kinds.keys()
    assert ("broker", "lost") not in {(p.role, p.how) for p in draw(60, 7, 1, tasks)}


def test_the_matrix_counts() -> None:
    def fault(**more) -> Fault:  # type: ignore[no-untyped-def]
        f = Fault(
            1,
            "zone",
            signal.SIGKILL.name,
            "zone-east-a",
            "east",
            SENTINELS,
            CLOSING,
            CLOSING,
            0.0,
            0,
            {("east", -1): 5},
        )
        for k, v in more.items():
            setattr(f, k, v)
        return f

    taken = [
        fault(claimed={("east", -1): ("zone-east-b", at)}, work=at + 1, replayed=n) for at, n in ((2.0, 10), (4.0, 30))
    ]
    head, _, *rows = matrix([*taken, fault(), fault(seats={})])
    assert [r.split() for r in rows] == [
        ["zone", "SIGKILL", "closed", "kept", "its", "seats", "1", "–", "–", "–", "–", "0", "0", "0"],
        ["zone", "SIGKILL", "closed", "stood", "by", "1", "–", "–", "–", "–", "0", "0", "0"],
        ["zone", "SIGKILL", "closed", "taken", "over", "2", "3.0", "4.0", "4.0", "5.0", "0", "20", "30"],
    ]
    assert head.split()[:4] == ["fault", "stage", "outcome", "n"]
