"""Two tenants share phones under IRS on real Kafka, every role of the plane a process; the zone's coordinator is killed on the way."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from device_sim.fleet import Fleet, Manner
from device_sim.population import Population
from processors.quotas import working
from processors.submitter import Submitter
from processors.wisher import Wisher
from schemas.facts import LEADERSHIP, Admitted, Claimed, Finalised
from schemas.messages import Registration
from schemas.sharing import SHARING, Needs, Quota, Sharing, SharingPlan, meets
from schemas.task import Epochs, Rounds, TaskSpec
from streams.ledger import Zone
from streams.processor import Record
from tests.integration.scribe import Scribe
from tests.integration.staged import Z, staged
from tests.plane import LAYOUT, START, Arithmetic

pytestmark = pytest.mark.kafka

DEVICES, QUOTA = 40, 6
STRONG = Needs(public={"cpu": 7.0, "ram": 6.0}, private={"samples": 1.0})
SPECS = [
    TaskSpec(task, "arithmetic", "none", tenant, rounds=rounds, epochs=Epochs(1, 5), needs=needs)
    for task, tenant, rounds, needs in (
        ("any", "gold", Rounds(8, 1.25, 2, 60, lease_s=10, fill_s=6, serve_s=10), Needs()),
        ("picky", "labs", Rounds(6, 1.0, 2, 60, lease_s=10, fill_s=6, serve_s=10), STRONG),
    )
]


class Watcher(Scribe):
    """Notes how many devices of each tenant are at work at most."""

    def _record(self, record: Record) -> None:
        super()._record(record)
        if len(self.of(Finalised)) == 2:
            self.begun.set()
        state = self.ledgers[Z].state
        if isinstance(state, Zone):
            for tenant, n in working(state).items():
                self.most[tenant] = max(n, self.most[tenant])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.most: Counter[str] = Counter()
        self.begun = asyncio.Event()


async def on_kafka(bootstrap: str, folder: Path) -> tuple[Watcher, list[str]]:
    async with staged(bootstrap, folder, "shared", 4) as stage:
        namespace = stage.namespace
        watcher = Watcher(namespace, (Z,), tuple(s.task for s in SPECS))
        for key, wish in (("gold", lambda t: replace(t, quota=Quota(devices=QUOTA))), (SHARING, Sharing("irs"))):
            await stage.does(lambda life, k=key, w=wish: Wisher(namespace, k, w))
        watching = stage.hosts(watcher)
        for spec in SPECS:
            await stage.does(lambda life, s=spec: Submitter(namespace, life, s, LAYOUT, START, 1, 60_000))
        devices = Population(Z, DEVICES, phones="usual", seed=3).devices()
        manner = Manner(training=(100, 500), reaction=100)
        stage.hosts(Fleet(namespace, Z, "fleet", "life", devices, Arithmetic(), manner))
        async with asyncio.timeout(120):
            await watcher.begun.wait()
            stage.plane.kill("zone")
            ended = await watching
        assert ended.ok, (ended.reason, stage.said)
    return watcher, stage.said


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Watcher, list[str]]:
    return asyncio.run(on_kafka(request.getfixturevalue("broker"), tmp_path_factory.mktemp("shared")))


def test_the_coordinator_died_and_another_life_led_on_and_both_tasks_did_all_their_rounds(run):
    watcher, said = run
    assert len(said) == 1, said
    lives = {f.life for f in watcher.of(Claimed, Z) if LEADERSHIP in f.seats and f.holder}
    assert len(lives) == 2
    for spec in SPECS:
        assert len([f for f in watcher.of(Finalised, Z, spec.task) if f.manifest]) == 5


def test_what_a_task_needs_and_what_a_tenant_may_have_held_all_the_time(run):
    watcher, _ = run
    said = {m.device: m.abilities for m in watcher.said(Registration, Z, "picky")}
    picky = {s.device for f in watcher.of(Admitted, Z) for s in f.slots if s.task == "picky"}
    assert picky
    assert all(meets(said[d], STRONG.public) for d in picky)
    assert watcher.most["gold"] == QUOTA, "a slot that leaked would be counted"
    assert working(watcher.ledgers[Z].state) == {}


def test_plans_were_those_of_the_policy_before_and_after(run):
    watcher, _ = run
    plans = watcher.said(SharingPlan, Z)
    assert {p.policy for p in plans} == {"irs"}
    assert not any(p.chosen for p in plans)
    assert any(p.rules for p in plans)
