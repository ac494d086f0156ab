"""The zone leader: opens a task's rounds, closes them, adds the partials and finalises (design: Close, Finalise)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from learning.aggregation import largest_in_units, mean_norm
from learning.differences import differences
from learning.optimisers import apply_sums, first_state
from learning.rewards import FLOOR, Measured, boosted, progress, zone_reward
from learning.strategies import StrategyFailed
from processors.desk import ZoneDesk
from processors.objections import Objections
from processors.version import MODEL, STATE, Version
from schemas import facts
from schemas.blocks import SumBlock, slices
from schemas.facts import Closed, Committed, Finalised, Opened, Retired, Worth
from schemas.task import Server
from schemas.topics import topic
from schemas.wire import Malformed, checksum, decode
from streams.ledger import GlobalTask, Round, ZoneTask, at_work, summed
from streams.models import Lost, assemble, fetch
from streams.processor import Effect, Ends, Fetch, Stop

FRACTION = 10
"""Staleness weights are multiples of 2^-10 where deltas may be stale: within 0.1 % of 1/sqrt(1 + s) up to s = 20 or so."""
HOLD = 2**25
"""Bytes of incomplete deltas that a shard holds at most, where deltas count whole or not at all."""


@dataclass
class Finalising:
    """A closed round on its way to its result: the partials are fetched and added one commit after the other.

    The base and the server optimiser's `state` come from where the fold says they lie, in every round anew: so a leader that
    takes over finds what the last one had.
    """

    round: int
    commits: list[tuple[int, Committed]]
    """With their ledger offsets."""
    total: npt.NDArray[np.int64]
    weights: list[int]
    base: npt.NDArray[np.float32] | None = None
    state: npt.NDArray[np.float32] | None = None
    version: Version | None = None
    """Its model, once that is written."""
    missing: dict[int, str] = field(default_factory=dict)
    """Commits whose partials are gone, by ledger offset, and what of them."""
    norm: float = 0.0
    fact: Finalised | None = None


Appraisal = Callable[[str, GlobalTask, ZoneTask | None], Worth]
"""A zone, a task, and what it came to there so far (None: nothing) -> what its next round is worth there."""


def worth(zone: str, g: GlobalTask, t: ZoneTask | None) -> Worth:
    """What a task's next round is worth in a zone (OLearning §5.1 and §4.2)."""
    contribution, starved = max(FLOOR, g.contribution(zone)), t.starved if t else 0
    made = progress([Measured(*m) for m in t.measured] if t else [])
    return Worth(contribution, made, starved, boosted(zone_reward(contribution, made), starved))


def why_closed(t: ZoneTask, now: int) -> str:
    """Why a task's open round is to be closed now, or "": its demand is met, or one of its times is over. A round that takes no more
    devices (`Round.got`) waits for those it has, if they can be as many as it needs, and for no longer than `Opened.serve`."""
    r = t.rounds[t.round]
    o = r.opened
    assert o
    if r.met_at is not None and now >= r.met_at + o.grace:
        return "demand"
    if now >= o.deadline:
        return "deadline"
    got = r.got(now)
    if got is not None and o.serve and now >= got + o.serve:
        return "execution time-out"
    if 0 < o.fill <= now:
        busy = at_work(t)
        if r.contributors + busy < o.minimum:
            return "too few devices" if r.contributors + busy else "nobody came"
        if not busy:
            return "all who came are done"
    return ""


class ZoneLeader:
    def __init__(self, desk: ZoneDesk, appraise: Appraisal = worth):
        self.desk, self.appraise = desk, appraise
        self.jobs: dict[str, Finalising] = {}
        self.closing: dict[str, Closed] = {}
        self.objections = Objections(desk.namespace, desk.name)
        self.written = 0

    def forget(self) -> None:
        self.jobs, self.closing = {}, {}
        self.objections.failed = {}

    def retired(self, task: str) -> None:
        """A task is over here."""
        self._forget(task)
        self.objections.said.pop(task, None)

    def _forget(self, task: str) -> None:
        """What was read and asked for a task may not be what holds when it goes on."""
        self.jobs.pop(task, None)
        self.closing.pop(task, None)
        self.desk.requests.forget(lambda asked: asked[1:2] == (task,))

    def react(self, now: int) -> Iterator[Effect]:
        """Whatever the ledgers call for now."""
        globe, zone = self.desk.globe.state, self.desk.zone
        for task in zone.tasks:
            if over := globe.over.get(task):
                self._forget(task)
                source = self.desk.globe.ref(over.at)
                yield from self._offer(("retired", task), Retired(self.desk.token, task, source), now)
        for task, g in globe.tasks.items():
            if self.desk.scope not in g.zones or task in zone.over:
                continue
            t = zone.tasks.get(task)
            if t and t.loss:
                self._forget(task)
            elif t and t.state == "open":
                yield from self._close(g, t, now)
            elif why := self.objections.why(task, self._server(task)):
                yield from self.objections.say(task, why, now)
            elif t is None or t.state == "finalised":
                self.jobs.pop(task, None)
                if self._goes_on(g, t, now):
                    n = t.round + 1 if t else 1
                    yield from self._offer(("opened", task, n), self._opened(g, t, now), now)
            elif min(t.at) > t.round:
                yield from self._finalise(task, t, now)

    def answer(self, asked: tuple, value: Any, now: int) -> Iterator[Effect]:
        match asked:
            case ("ends", str(task), int(n), str(why)):
                t = self.desk.zone.tasks[task]
                if t.round == n and t.state == "open":
                    self.closing[task] = Closed(self.desk.token, task, n, why, value)
                    yield from self._offer(("closed", task, n), self.closing[task], now)
            case (str(what), str(task), int(n), *rest) if (job := self.jobs.get(task)) and job.round == n:
                yield from self._progress(what, task, job, rest, value, now)

    def _offer(self, step: tuple, fact: Any, now: int) -> Iterator[Effect]:
        return self.desk.offers.make(step, fact, now)

    # ------------------------------------------------------------------ open, close, retire

    def _goes_on(self, g: GlobalTask, t: ZoneTask | None, now: int) -> bool:
        """Whether the task has another round here now. In a window no round opens that a device could not finish."""
        if g.state != "open" or g.wanted != "run" or self.desk.scope not in g.part:
            return False
        if g.spec.epochs.window_s and self._window_ends(g) - now < 1000 * g.spec.rounds.lease_s:
            return False
        return t is None or t.epoch < g.epoch or t.merged_rounds < g.spec.epochs.rounds

    def _window_ends(self, g: GlobalTask) -> int:
        return g.opened_time + round(1000 * g.spec.epochs.window_s)

    def _opened(self, g: GlobalTask, t: ZoneTask | None, now: int) -> Opened:
        """The next round: from the zone's own model within an epoch, from the global one at its start."""
        spec, desk = g.spec, self.desk
        if t and t.epoch == g.epoch and t.merged_rounds and t.manifest:
            base, source = t.manifest, desk.ref(t.manifest_at)
        else:
            base, source = g.manifest, desk.globe.ref(g.opened_at)
        deadline = now + round(1000 * spec.rounds.deadline_s)
        if spec.epochs.window_s:
            deadline = min(deadline, self._window_ends(g))
        return Opened(
            token=desk.token,
            task=spec.task,
            round=t.round + 1 if t else 1,
            epoch=g.epoch,
            source=source,
            base=base,
            demand=spec.rounds.demand,
            places=spec.rounds.places,
            minimum=spec.rounds.minimum,
            deadline=deadline,
            grace=round(1000 * spec.rounds.grace_s),
            lease=round(1000 * spec.rounds.lease_s),
            staleness=spec.rounds.staleness,
            sizes=g.layout.sizes,
            unit=spec.limits.unit,
            largest=largest_in_units(spec.limits.largest, spec.limits.unit),
            heaviest=spec.limits.heaviest,
            refill=spec.rounds.refill,
            fraction=FRACTION if spec.rounds.staleness else 0,
            atomic=spec.rounds.atomic,
            hold=HOLD if spec.rounds.atomic else 0,
            worth=self.appraise(desk.scope, g, t),
            tenant=spec.tenant,
            cost=4 * sum(g.layout.sizes) + spec.upload.bytes(g.layout.sizes),
            fill=now + round(1000 * spec.rounds.fill_s) if spec.rounds.fill_s else 0,
            serve=round(1000 * spec.rounds.serve_s),
            training=spec.training,
            partial=spec.rounds.partial,
            upload=spec.upload if spec.rounds.partial else None,
        )

    def _close(self, g: GlobalTask, t: ZoneTask, now: int) -> Iterator[Effect]:
        task, r = g.spec.task, t.rounds[t.round]
        why = why_closed(t, now) or (g.enough.get(self.desk.scope, 0) >= r.round and "the tenant ended it")
        if not why:
            return
        closing = self.closing.get(task)
        if closing and closing.round == r.round:
            yield from self._offer(("closed", task, r.round), closing, now)
        elif not any(asked[:3] == ("ends", task, r.round) for asked in self.desk.requests.open.values()):
            deltas = topic(self.desk.namespace, self.desk.scope, "deltas", task)
            yield Ends(self.desk.requests.new(("ends", task, r.round, why)), deltas.name)

    # ------------------------------------------------------------------ finalise

    def _finalise(self, task: str, t: ZoneTask, now: int) -> Iterator[Effect]:
        r = t.rounds[t.round]
        job = self.jobs.get(task)
        if job and job.round == r.round:
            if job.fact:
                yield from self._offer(("finalised", task, r.round), job.fact, now)
            elif job.missing and not job.commits:
                yield from self._lost(task, job, now)
            return
        assert r.opened
        sizes = r.opened.sizes
        held = {c.offset: c.fact for c in r.commits}
        job = self.jobs[task] = Finalising(
            round=r.round,
            commits=[(offset, held[offset]) for offset in summed(r)],
            total=np.zeros(sum(sizes), np.int64),
            weights=[0] * len(sizes),
        )
        if r.contributors < r.opened.minimum or not job.commits:
            yield from self._done(task, job, r, now)
            return
        yield fetch(r.opened.base, self.desk.requests, "base", task, r.round)
        if t.optimiser:
            yield fetch(t.optimiser, self.desk.requests, "state", task, r.round)
        else:
            job.state = first_state(self._server(task), sum(sizes))
        yield self._next_sum(task, job)

    def _server(self, task: str) -> Server:
        return self.desk.globe.state.tasks[task].spec.server.working("zone")

    def _next_sum(self, task: str, job: Finalising) -> Fetch:
        places = tuple(p for p in job.commits[0][1].sums if p)
        tag = self.desk.requests.new(("sum", task, job.round))
        return Fetch(tag, topic(self.desk.namespace, self.desk.scope, "partials").name, places)

    def _progress(self, what: str, task: str, job: Finalising, rest: list, value: Any, now: int) -> Iterator[Effect]:
        r = self.desk.zone.tasks[task].rounds[job.round]
        assert r.opened
        try:
            if what in (MODEL, STATE):
                if job.version and job.version.stored(what, rest[0], value):
                    yield from self._done(task, job, r, now)
                return
            if what == "base":
                job.base = assemble(r.opened.base, value)
            elif what == "state":
                optimiser = self.desk.zone.tasks[task].optimiser
                assert optimiser
                job.state = assemble(optimiser, value)
            elif what == "sum":
                offset, commit = job.commits.pop(0)
                try:
                    self._add(job, commit, value, r.opened.sizes)
                except Lost as e:
                    job.missing[offset] = str(e)
                if job.commits:
                    yield self._next_sum(task, job)
                elif job.missing:
                    yield from self._lost(task, job, now)
        except Lost as e:
            yield Stop(f"round {job.round} of {task} cannot be finalised: {e}")
            return
        read = job.base is not None and job.state is not None and not job.commits
        if read and not job.missing and not job.version:
            yield from self._write(task, job, r)

    def _lost(self, task: str, job: Finalising, now: int) -> Iterator[Effect]:
        """Partials are gone: the ledger is told, once they are all known, until the fold says that the task stands still."""
        what = next(iter(job.missing.values())) + (
            f", and {len(job.missing) - 1} more commits" if len(job.missing) > 1 else ""
        )
        fact = facts.Lost(self.desk.token, facts.LEADERSHIP, task, what, commits=tuple(job.missing))
        yield from self._offer(("lost", task, job.round), fact, now)

    def _add(self, job: Finalising, commit: Committed, found: dict[str, bytes], sizes: tuple[int, ...]) -> None:
        for i, (place, piece) in enumerate(zip(commit.sums, slices(sizes), strict=True)):
            if place is None:
                continue
            try:
                block = decode(found.get(place.key), (SumBlock,))
            except Malformed as e:
                raise Lost(f"the partial at {place.key}: {e}") from None
            if block.block != i or checksum(block.data) != place.checksum:
                raise Lost(f"the partial at {place.key} is not what was written")
            job.total[piece] += np.frombuffer(block.data, "<i8")
            job.weights[i] += commit.weights[i]

    def _write(self, task: str, job: Finalising, r: Round) -> Iterator[Effect]:
        assert r.opened
        assert job.base is not None
        assert job.state is not None
        sizes, server, unit = r.opened.sizes, self._server(task), r.opened.unit - r.opened.fraction
        try:
            g = self.desk.globe.state.tasks[task]
            plain = g.layout.plain
            new, state = apply_sums(server, job.base, job.total, job.weights, sizes, unit, job.state, plain=plain)
        except StrategyFailed as e:
            self.objections.failed[task] = str(e)
            self.jobs.pop(task)
            return
        job.norm = mean_norm(job.total, job.weights, sizes, unit)
        short = differences(job.base, r.opened.base, new, sizes) if g.spec.distribute.differences else {}
        job.base = job.state = None
        job.total = np.zeros(0, np.int64)  # a slice would keep it
        self.written += 1
        scope, where = (self.desk.namespace, self.desk.scope), f"{self.desk.token}/{self.written}"
        job.version = Version(scope, self.desk.zone.partitions, task, r.round, where, new, sizes, state, server, short)
        yield from job.version.sends(self.desk.requests)

    def _done(self, task: str, job: Finalising, r: Round, now: int) -> Iterator[Effect]:
        job.fact = Finalised(
            token=self.desk.token,
            task=task,
            round=r.round,
            commits=summed(r),
            devices=r.contributors,
            samples=sum(c.fact.samples for c in r.commits if not c.lost),
            loss=sum(c.fact.loss for c in r.commits if not c.lost),
            norm=job.norm,
            manifest=job.version.manifest if job.version else None,
            optimiser=job.version.optimiser if job.version else None,
        )
        yield from self._offer(("finalised", task, r.round), job.fact, now)
