"""Which devices are to take which tasks in a zone (design §8, Propius): the sharing policy's plan, asked for, announced, and held to.

The policy is a fact of the global ledger, and a plan is a pure function of it, the two folds, and of who checked in lately. It is no
fact itself: whoever leads next makes its own. Where nobody set a policy there is no plan, and devices choose by reward.

A registration is held to the plan that stands, and for `GRACE` to the one before it, since that is what its device may have heard.
"""

from collections.abc import Generator, Iterator

from msgspec.structs import replace

from learning.sharing.policy import Job, Market, PolicyFailed, plan
from processors.configurator import least
from processors.crowd import Crowd
from processors.desk import ZoneDesk
from processors.quotas import Allowance
from schemas.messages import Registration
from schemas.sharing import ABILITIES, PLAN, Bounds, Sharing, SharingPlan, allowed
from schemas.topics import DAY, topic
from schemas.wire import checksum
from streams.ledger import GlobalTask, ZoneTask, places_taken
from streams.letters import objection
from streams.processor import Effect, Send, send

REWARD = "reward"
"""The policy by which devices choose: it looks at no device."""
EVERY, RARELY = 1_000, 5_000
"""ms between two plans, at least; and at most, since time alone counts for some policies."""
GRACE = 5_000
"""ms for which a device may still follow the plan before."""
KINDS = 10_000
"""Kinds of devices of which is remembered what a plan gives them, at most."""


class Plans:
    def __init__(self, desk: ZoneDesk):
        self.desk = desk
        self.crowd = Crowd(desk.namespace, desk.scope, desk.name)
        self.announcements = topic(desk.namespace, desk.scope, "announcements")
        self.plan: SharingPlan | None = None
        """That stands. None: none was made yet."""
        self.before: SharingPlan | None = None
        """None: whatever devices did then was right."""
        self.made = 0
        """When the policy was asked last (ms)."""
        self.since = 0
        """When the plan that stands began to (ms)."""
        self.known: tuple[int, int, Sharing | None] = (-1, -1, None)
        """Up to where the two ledgers were read then, and the policy."""
        self._gives: dict[tuple, bool] = {}
        self._failed: Sharing | None = None

    def end(self) -> Iterator[Effect]:
        """The leadership came or went."""
        yield from self.crowd.end()
        self.plan = self.before = None
        self.made, self.known, self._gives = 0, (-1, -1, None), {}

    @property
    def sharing(self) -> Sharing | None:
        fact = self.desk.globe.state.sharing
        return fact.sharing if fact else None

    # ------------------------------------------------------------------ making it

    def react(self, now: int) -> Iterator[Effect]:
        """Make a plan anew, if something changed and the last is old enough; announce it if it is another."""
        sharing, same = self.sharing, self.sharing == self.known[2]
        if sharing is None or (same and now - self.made < EVERY):
            return
        known = (self.desk.zone.position, self.desk.globe.state.position, sharing)
        if same and now - self.made < RARELY and not (known != self.known or self.crowd.changed or self._turned(now)):
            return
        if sharing.policy == REWARD:
            yield from self.crowd.end()
        else:
            yield from self.crowd.follow(self.desk.zone.partitions)
        self.known, self.made = known, now
        new = yield from self._plan(sharing, now)
        if self.plan is None or replace(new, at=0) != replace(self.plan, at=0):
            self.before, self.plan, self.since, self._gives = self.plan, new, now, {}
            yield from self.announce()

    def _turned(self, now: int) -> bool:
        """Whether time alone changed something since the last plan: a round takes no more devices, or a day began."""
        fills = [r.opened.fill for t in self.desk.zone.tasks.values() if (r := t.rounds.get(t.round)) and r.opened]
        return now // DAY != self.made // DAY or any(self.made < fill <= now for fill in fills)

    def _plan(self, sharing: Sharing, now: int) -> Generator[Send, None, SharingPlan]:
        """What the policy says. One of someone's own may be missing here, or fail: then devices choose by reward, and the tasks' owners
        are told."""
        zone, at = self.desk.scope, self.desk.zone.position
        market = self.market(now)
        try:
            made = plan(sharing.policy, sharing.args, market, zone, at)
            self._failed = None
            return made
        except PolicyFailed as e:
            if self._failed != sharing:  # said once, whatever it says each time
                self._failed = sharing
                for job in market.jobs:
                    why = f"devices of zone {zone} choose by reward: {e}"
                    yield objection(self.desk.namespace, self.desk.name, job.task, why, now)
            return SharingPlan(zone, at, sharing.policy, chosen=True)

    def market(self, now: int) -> Market:
        """All that a policy may look at."""
        zone, globe = self.desk.zone, self.desk.globe.state
        allowance = Allowance(globe, zone, self.desk.scope, now)
        jobs = []
        for task, t in zone.tasks.items():
            g = globe.tasks.get(task)
            if g and (job := self._job(g, t, now)) and not allowance.over(job.tenant, cost(g, t))[0]:
                jobs.append(job)
        weights = {name: globe.tenant(name).weight for name in {j.tenant for j in jobs}}
        fact = globe.sharing
        seed = checksum(f"{zone.ledger} {fact.submission if fact else 0}".encode()) >> 1
        return Market(jobs, self.crowd.abilities(now), weights, allowance.granted, seed)

    def _job(self, g: GlobalTask, t: ZoneTask, now: int) -> Job | None:
        """A task with an open round that still takes devices."""
        r = t.rounds.get(t.round)
        if t.loss or t.state != "open" or r is None or r.opened is None:
            return None
        if not t.filling or 0 < r.opened.fill <= now:
            return None
        o, spec = r.opened, g.spec
        taken = places_taken(t)
        if taken >= o.places:
            return None
        each = spec.epochs.rounds
        return Job(
            task=spec.task,
            tenant=o.tenant,
            needs=spec.needs.public,
            wanted=o.places,
            got=taken,
            since=g.admitted_at,
            rounds=(g.epoch - 1) * each + (t.merged_rounds if t.epoch == g.epoch else 0),
            of=0 if spec.epochs.window_s else spec.epochs.count * each,
            ran_s=max(0, now - t.began) / 1000,
            service=t.service,
            round=r.round,
            fill_s=t.fill_ms / 1000,
            serve_s=t.serve_ms / 1000,
            waits_s=max(0, now - r.opened_time) / 1000 if r.full_at is None else 0.0,
            fill_within_s=max(0, o.fill - r.opened_time) / 1000,
            deadline_s=max(0, o.deadline - r.opened_time) / 1000,
        )

    def announce(self) -> Iterator[Send]:
        """One copy in every partition."""
        if self.plan:
            for p in range(self.desk.zone.partitions):
                yield send(self.announcements, self.plan, PLAN, p)

    # ------------------------------------------------------------------ holding to it

    def against(self, wish: Registration, now: int) -> str:
        """Why the plan gives the task to no device like this one, in words, or ""."""
        if self.plan is None or self._given(self.plan, wish):
            return ""
        if now - self.since < GRACE and (self.before is None or self._given(self.before, wish)):
            return ""
        return "the plan gives devices like this one to other tasks"

    def _given(self, plan: SharingPlan, wish: Registration) -> bool:
        if plan.chosen:
            return True
        key = (plan is self.plan, wish.task, *(wish.abilities.get(name) for name in ABILITIES))
        if (known := self._gives.get(key)) is None:
            if len(self._gives) >= KINDS:
                self._gives = {}
            known = self._gives[key] = allowed(plan, wish.abilities, wish.task)
        return known


def short(wish: Registration, needs: Bounds) -> str:
    """What a device lacks for a task, in words, or ""."""
    lacks = [
        f"{name} {least:g} or more" for name, least in sorted(needs.items()) if wish.abilities.get(name, 0.0) < least
    ]
    return f"this task needs {' and '.join(lacks)}" if lacks else ""


def cost(g: GlobalTask, t: ZoneTask) -> int:
    """Bytes that a device of the task's present round takes of its tenant's day; where it may train a part of the model, with the least."""
    o = t.rounds[t.round].opened
    if o is None or not o.partial:
        return o.cost if o else 0
    mine = least(g)
    return 4 * sum(mine) + g.spec.upload.bytes(mine)
