"""The global leader: epochs, and the merge of the zones' models by what was counted of each block (OLearning §4.2; design: Globe)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learning.aggregation import merge_blocks, norm
from learning.differences import differences
from learning.optimisers import apply_merged, first_state
from learning.rewards import Measured, contributions, progress
from learning.selection import participants
from learning.strategies import StrategyFailed
from processors.desk import GlobalDesk
from processors.early_exit import waits_until, why_over
from processors.objections import Objections
from processors.version import MODEL, STATE, Version
from schemas.facts import EpochClosed, EpochOpened, Finalised, Merged, Retired, Scored, Taken, TaskEnded, Update
from schemas.messages import Evaluation
from schemas.topics import GLOBAL
from schemas.wire import Message
from streams.ledger import GlobalTask, Round
from streams.models import Lost, assemble, fetch
from streams.processor import Effect, Stop


class Final(NamedTuple):
    """An accepted round that gave a model: where its `Finalised` lies in the zone's ledger, of which epoch it is, the task's progress
    after it, and what was counted of each block."""

    offset: int
    fact: Finalised
    epoch: int
    progress: float
    weights: tuple[int, ...]


@dataclass
class Merging:
    """A closed epoch on its way to its model."""

    epoch: int
    models: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """By zone; the last global model under ""."""
    state: npt.NDArray[np.float32] | None = None
    """The server optimiser's, if it works here."""
    version: Version | None = None
    """Its model, once that is written; None for ever if it diverged."""
    norm: float = 0.0
    contributions: dict[str, float] = field(default_factory=dict)
    fact: Merged | None = None


class GlobalLeader:
    def __init__(self, desk: GlobalDesk):
        self.desk = desk
        self.finals: dict[tuple[str, str], list[Final]] = {}
        """By task and zone, those that are not taken."""
        self.jobs: dict[str, Merging] = {}
        self.closing: dict[str, EpochClosed] = {}
        self.evaluations: dict[str, Evaluation] = {}
        self.objections = Objections(desk.namespace, desk.name)
        self.written = 0

    def forget(self) -> None:
        self.jobs, self.closing = {}, {}
        self.objections.failed = {}

    def zone_fact(self, zone: str, offset: int, fact: Message) -> None:
        """An accepted fact of a zone's ledger."""
        if isinstance(fact, Finalised) and fact.manifest:
            if fact.task in self.desk.globe.over:
                return
            t = self.desk.globe.tasks.get(fact.task)
            since = t.taken.get(zone, 0) if t else 0
            kept = [x for x in self.finals.get((fact.task, zone), []) if x.offset >= since]
            there = self.desk.zones[zone].state.tasks[fact.task]
            made = progress([Measured(*m) for m in there.measured])
            weights = weights_of(there.rounds[fact.round])
            self.finals[fact.task, zone] = [*kept, Final(offset, fact, there.epoch, made, weights)]
        elif isinstance(fact, Retired):
            self.finals.pop((fact.task, zone), None)

    def tidy(self) -> None:
        """Forget what is known of tasks that are over, whoever leads."""
        over = self.desk.globe.over
        for known in (self.evaluations, self.jobs, self.closing, self.objections.said, self.objections.failed):
            for task in over.keys() & known.keys():
                del known[task]
        for key in [key for key in self.finals if key[0] in over]:
            del self.finals[key]

    def react(self, now: int) -> Iterator[Effect]:
        self.tidy()
        for task, t in self.desk.globe.tasks.items():
            stuck = self.objections.why(task, t.spec.server.working("globe"))
            if stuck:
                yield from self.objections.say(task, stuck, now)
            match t.state:
                case "admitted" | "merged":
                    self.jobs.pop(task, None)
                    self.closing.pop(task, None)
                    yield from self._between(task, t, now, stuck)
                case "open":
                    if t.wanted == "pause" and task not in self.closing:
                        yield from self._take(task, t, now)
                    yield from self._close(task, t, now)
                case "closed" if not stuck or t.wanted == "stop":
                    yield from self._finish(task, t, now, stuck)

    def evaluated(self, e: Evaluation) -> None:
        """An evaluator scored a global model."""
        if e.task not in self.desk.globe.over:
            self.evaluations[e.task] = e

    def _between(self, task: str, t: GlobalTask, now: int, stuck: str) -> Iterator[Effect]:
        """Between two epochs (the paper's preparation): the last model's score, if the stop rule asks for it; the end, or the next epoch
        with the zones that take part."""
        e, until = self.evaluations.get(task), waits_until(t)
        if until and e and e.epoch == t.epoch:
            loss = e.loss if e.loss == e.loss else inf  # NaN would be the best for ever: nothing is less
            scored = Scored(self.desk.token, task, e.epoch, e.accuracy, loss)
            yield from self._offer(("scored", task, e.epoch), scored, now)
        elif now < until:
            pass
        elif why := why_over(t):
            yield from self._offer(("ended", task), TaskEnded(self.desk.token, task, why), now)
        elif t.wanted == "run" and not stuck:
            shares = {z: t.contribution(z) for z in t.zones}
            zones = participants(shares, t.waited, t.spec.epochs.zones)
            opened = EpochOpened(self.desk.token, task, t.epoch + 1, t.manifest, zones)
            yield from self._offer(("opened", task, t.epoch + 1), opened, now)

    def answer(self, asked: tuple, value: Any, now: int) -> Iterator[Effect]:
        what, task, epoch, *rest = asked
        job, t = self.jobs.get(task), self.desk.globe.tasks.get(task)
        if job is None or t is None or job.epoch != epoch:
            return
        try:
            if what in (MODEL, STATE):
                if job.version and job.version.stored(what, rest[0], value):
                    yield from self._done(task, t, job, now)
                return
            if what == "state":
                assert t.optimiser
                job.state = assemble(t.optimiser, value)
            else:
                zone = rest[0]
                manifest = t.updates[zone].manifest if zone else t.manifest
                job.models[zone] = assemble(manifest, value)
        except Lost as e:
            yield Stop(f"epoch {epoch} of {task} cannot be merged: {e}")
            return
        if len(job.models) == len(t.updates) + 1 and job.state is not None:
            yield from self._write(task, t, job, now)

    def _offer(self, step: tuple, fact: Message, now: int) -> Iterator[Effect]:
        return self.desk.offers.make(step, fact, now)

    def _take(self, task: str, t: GlobalTask, now: int) -> Iterator[Effect]:
        """A paused task may stand for long: take what its zones have done in the epoch so far, so that their ledgers can be cut."""
        for z in t.zones:
            start, there = t.taken[z], self.desk.zones[z].state
            found = [x.epoch for x in self.finals.get((task, z), []) if x.offset >= start]
            still = (
                task in there.tasks and there.tasks[task].state == "finalised" and self.desk.zone_readings[z].caught_up
            )
            if still and found and found[-1] == t.epoch:  # one that was late for its epoch may yet be replaced
                update = self._update(task, z, start, there.position)
                taken = Taken(self.desk.token, task, t.epoch, {z: (start, there.position)}, (update,) if update else ())
                yield from self._offer(("taken so far", task, z, start), taken, now)

    def _close(self, task: str, t: GlobalTask, now: int) -> Iterator[Effect]:
        """Close an epoch that is over, with what the zones' ledgers hold by now."""
        if not all(self.desk.zone_readings[z].caught_up for z in t.zones):
            return  # what the zones have done by now is not read yet
        if task not in self.closing and (why := self._why_closed(task, t, now)):
            ends = {z: max(self.desk.zones[z].state.position, t.taken[z]) for z in t.zones}
            self.closing[task] = EpochClosed(self.desk.token, task, t.epoch, why, ends)
        if task in self.closing:
            yield from self._offer(("closed", task, t.epoch), self.closing[task], now)

    def _why_closed(self, task: str, t: GlobalTask, now: int) -> str:
        """Why an open epoch is over (see `schemas.task.Epochs`), or ""."""
        epochs, since = t.spec.epochs, now - t.opened_time
        if t.wanted != "run":
            return t.wanted if t.wanted == "stop" else ""
        over = epochs.window_s > 0 and since >= 1000 * epochs.window_s
        done = [self._done_with(z, task, t, over) for z in t.part]
        if all(done):
            return "window" if over else "rounds"
        if epochs.enough and sum(done) >= epochs.enough:
            return "enough"
        return "deadline" if epochs.deadline_s and since >= 1000 * epochs.deadline_s else ""

    def _done_with(self, zone: str, task: str, g: GlobalTask, over: bool) -> bool:
        """Whether a zone has done its rounds of the epoch; once its window is `over`, whether it has none open."""
        t = self.desk.zones[zone].state.tasks.get(task)
        if over:
            return t is None or t.state == "finalised" or t.loss is not None
        if t is None or t.epoch != g.epoch or t.state != "finalised" or g.spec.epochs.window_s:
            return False
        return t.merged_rounds >= g.spec.epochs.rounds

    def _finish(self, task: str, t: GlobalTask, now: int, stuck: str) -> Iterator[Effect]:
        """Take what the zones' ledgers hold below the ends, then merge it; one that is `stuck` merges nothing, so that it can end."""
        if any(self.desk.zones[z].state.position < t.ends[z] for z in t.zones):
            return  # this leader has not read that far yet
        ranges = {z: (t.taken[z], t.ends[z]) for z in t.zones if t.taken[z] < t.ends[z]}
        if ranges:
            for z, r in ranges.items():  # one fact each: it names all blocks of a model
                update = self._update(task, z, *r)
                taken = Taken(self.desk.token, task, t.epoch, {z: r}, (update,) if update else ())
                yield from self._offer(("taken", task, t.epoch, z), taken, now)
            return
        job = self.jobs.get(task)
        if job is None:
            job = self.jobs[task] = Merging(t.epoch)
            if stuck or not t.updates:
                yield from self._done(task, t, job, now)
                return
            yield fetch(t.manifest, self.desk.requests, "model", task, t.epoch, "")
            if t.optimiser:
                yield fetch(t.optimiser, self.desk.requests, "state", task, t.epoch)
            else:
                job.state = first_state(t.spec.server.working("globe"), sum(t.layout.sizes))
            for zone, u in t.updates.items():
                yield fetch(u.manifest, self.desk.requests, "model", task, t.epoch, zone)
        elif job.fact:
            yield from self._offer(("merged", task, t.epoch), job.fact, now)

    def _update(self, task: str, zone: str, start: int, end: int) -> Update | None:
        """What a stretch of a zone's ledger holds for a task: the last model, and the sums over the rounds that it is built on. A
        round of the epoch before that came too late for it is none of them: the zone began anew from the global model."""
        found = [x for x in self.finals.get((task, zone), []) if start <= x.offset < end]
        built = [x for x in found if x.epoch == found[-1].epoch]
        rounds = [x.fact for x in built]
        if not rounds or not rounds[-1].manifest:
            return None
        samples = sum(f.samples for f in rounds)
        weights = tuple(map(sum, zip(*(x.weights for x in built), strict=True)))
        return Update(
            zone=zone,
            round=rounds[-1].round,
            manifest=rounds[-1].manifest,
            samples=samples,
            devices=sum(f.devices for f in rounds),
            loss=sum(f.loss for f in rounds),
            progress=found[-1].progress,
            weights=() if set(weights) == {samples} else weights,
        )

    def _write(self, task: str, t: GlobalTask, job: Merging, now: int) -> Iterator[Effect]:
        assert job.state is not None
        zones, sizes, server = sorted(t.updates), t.layout.sizes, t.spec.server.working("globe")
        last = job.models[""]
        weights = [t.updates[z].weigh(len(sizes)) for z in zones]
        merged = merge_blocks(last, [job.models[z] for z in zones], weights, sizes)
        try:
            new, state = apply_merged(server, last, merged, sizes, job.state, plain=t.layout.plain)
        except StrategyFailed as e:
            self.objections.failed[task] = str(e)
            self.jobs.pop(task)
            return
        job.norm = norm(new - last)
        if not isfinite(job.norm):  # it diverged: the last model stays
            yield from self._done(task, t, job, now)
            return
        job.contributions = contributions({z: job.models.get(z, last) for z in t.zones}, new)
        job.models, job.state = {}, None
        self.written += 1
        short = differences(last, t.manifest, new, sizes) if t.spec.distribute.differences else {}
        scope, where = (self.desk.namespace, GLOBAL), f"{self.desk.token}/{self.written}"
        job.version = Version(scope, self.desk.globe.partitions, task, t.epoch, where, new, sizes, state, server, short)
        yield from job.version.sends(self.desk.requests)

    def _done(self, task: str, t: GlobalTask, job: Merging, now: int) -> Iterator[Effect]:
        job.fact = Merged(
            token=self.desk.token,
            task=task,
            epoch=t.epoch,
            manifest=job.version.manifest if job.version else None,
            samples=sum(u.samples for u in t.updates.values()),
            norm=job.norm,
            optimiser=job.version.optimiser if job.version else None,
            contributions=job.contributions,
        )
        yield from self._offer(("merged", task, t.epoch), job.fact, now)


def weights_of(r: Round) -> tuple[int, ...]:
    """By block, the weights of all deltas of a round that are in its model."""
    summed = [c.fact.weights for c in r.commits if c.fact.weights and not c.lost]
    return tuple(map(sum, zip(*summed, strict=True)))
