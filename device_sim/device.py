"""One phone: a state machine that sleeps, bids, trains and uploads (OLearning §4.2 and §5). It does no I/O and reads no clock.

A phone that is free checks in, hears the open rounds of its zone, and plans: what a round is worth to it is what the zone announced
× the quality of its own data (eqs. 4, 5), how long a run takes it estimates, when it is free it forecasts; the knapsack chooses. It
registers for what is to be done now, runs what it is admitted to one after the other, and uploads block by block. It plans anew
whenever something changed: another round, a refusal, a run that ended. Quality, forecast and data never leave it.

Where tenants share devices by a policy, the zone announces a plan whose rules say which tasks devices like this one are to take. Then it
takes the first that is open, that it can do and that fits, one at a time. Either way it leaves alone what needs more than it has; what
it has of a task's private needs it alone knows.

Its link to the plane is a port. In: `wake`, `hear`, `planned`, `admitted`, `refused`, `saw`, `answered`, `trained`, `drop`, `forget`. Out: the acts
of `job.py`. `next` is when it wants to be woken. `Fleet` drives many of them over Kafka, a phone its own one over HTTP (`alone.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_sim import planner
from device_sim.adapt import adapt
from device_sim.availability import Free
from device_sim.board import Board
from device_sim.job import (
    ADMITTED,
    ASKING,
    ASLEEP,
    IDLE,
    REGISTERED,
    TRAINING,
    UPLOADING,
    Act,
    Begin,
    CheckIn,
    Give,
    Job,
    Look,
    Run,
    Train,
    Wish,
    held_back,
    quality_of,
)
from device_sim.outlook import Outlook, windows
from device_sim.pace import Pace, Steady
from device_sim.planner import Offer, Window
from device_sim.portion import owes, portion
from device_sim.pseudonym import seed_of, throw
from device_sim.submodels import Own, limits, worth_sending
from device_sim.whims import Whims
from learning.modular.derivation import Limits
from learning.rewards import first_quality
from schemas.messages import Admission, Announcement, Refusal
from schemas.modules import Profile, Shares, Submodel
from schemas.sharing import Abilities, SharingPlan, drawn, meets

PATIENCE = 5_000
"""ms after which a device that hears nothing of its registration tries again."""
SAMPLES = "samples"
"""The private need that every device knows of: how many samples of the task's data it has."""
STILL_HERE = 6 * 3_600_000
"""ms after which a device that stays free checks in again: who is not heard of for a day is forgotten."""
NEVER = 2**62


class Journey(Protocol):
    """Where a device is."""

    def zone(self, now: int) -> str: ...


@dataclass(frozen=True)
class Habit:
    """How devices plan. `slots`: the m longest free windows that a plan looks at, within `horizon_ms`; `order` of tasks within one
    (`device_sim.planner`); the solver's `work` limit (None: 2 s of the clock). `reaction`: a device registers within so many ms of
    hearing."""

    seed: int = 0
    slots: int = 3
    horizon_ms: int = 86_400_000
    order: str = "deadline"
    work: float | None = 0.1
    reaction: int = 300


def its_part(device: "Device", a: Announcement) -> Announcement | None:
    """The round as a device takes it: whole, or of a modular task its sub-model, once it has one."""
    return device.sub_model(a) if a.modules else a


def own_quality(device: "Device", a: Announcement) -> float:
    """Eq. 3, of the device's last run of a task; before the first, that of a model which knows nothing."""
    return device.quality.get(a.task) or first_quality(*device.sizes[a.task])


@dataclass
class Device:
    """A phone of a fleet. `number` says which share of the data is its own; `nights` None: always free."""

    id: str
    number: int
    nights: Free | None = None
    pace: Pace = field(default_factory=Steady)
    learns: Callable[[int], Outlook] | None = None
    """What makes its outlook when it is switched on, from then on."""
    outlook: Outlook | None = None
    journey: Journey | None = None
    habit: Habit = Habit()
    appraise: Callable[["Device", Announcement], float] = own_quality
    """What its data are worth to a task."""
    part: Callable[["Device", Announcement], Announcement | None] = its_part
    """The round as it takes it: as it is, or a part of its model (`device_sim.portion.portion`); None: it leaves it, for now."""
    abilities: Abilities = field(default_factory=dict)
    """What it says of itself to the plane (`device_sim.phones.reported`)."""
    private: Mapping[str, float] = field(default_factory=dict)
    """What only it knows of itself, by the names that tasks' private needs have; `SAMPLES` it knows by task."""
    whims: Whims | None = None
    busy: Callable[[int], float] | None = None
    """The share of its memory and speed that other work takes at a time (ms), below 1."""
    free: float = 1.0
    """The share that is left, as it saw last."""
    own: dict[str, Own] = field(default_factory=dict)
    """By modular task, what it has of it."""
    zone: str = ""
    checked_in: str = ""
    """The zone in which it is known to be there."""
    awake: bool = False
    next: int = 0
    """When it wants to be woken (ms)."""
    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)
    """By zone and task."""
    running: Job | None = None
    taken: dict[tuple[str, str], int] = field(default_factory=dict)
    """By zone and task, the last round it has finished or given up."""
    retry: dict[tuple[str, str], int] = field(default_factory=dict)
    """By zone and task, when it may try again after a refusal (ms)."""
    quality: dict[str, float] = field(default_factory=dict)
    """By task, of its last run (eq. 3)."""
    left: dict[str, dict[int, npt.NDArray[np.float32]]] = field(default_factory=dict)
    """By task and block, what top-k left out of its weighted deltas: it is added to the next one that has the block."""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By task, its samples and the number of classes."""
    turn: tuple[SharingPlan | None, tuple[str, ...]] = (None, ())
    """The last plan by rules, and the tasks that it drew in it, the first first."""
    since: int = 0
    """When it woke up (ms)."""
    said: int = 0
    """When it checked in last (ms)."""
    place: int = 0
    """Among the edge's devices."""

    @property
    def state(self) -> str:
        """In one word."""
        if not self.awake:
            return ASLEEP
        if self.running:
            return TRAINING
        if self.jobs:
            return REGISTERED
        return ASKING if any(o.waits or o.looks for o in self.own.values()) else IDLE

    @property
    def busy_now(self) -> bool:
        """Is it awake, and did it see other work when it looked last?"""
        return self.awake and self.free < 1

    def die(self, *what: str | int, most: int) -> int:
        """A throw in [0, most), the same each time for the same device, seed and name."""
        return seed_of(self.habit.seed, self.id, *what) % most if most else 0

    # ------------------------------------------------------------------ in

    def wake(self, now: int, boards: Mapping[str, Board]) -> Iterator[Act]:
        """Whatever is due."""
        if self.outlook is None and self.learns:
            self.outlook = self.learns(now)
        window = self.nights.window(now) if self.nights else (now, NEVER)
        if window is None:
            self._sleep(now)
            return
        if not self.awake:
            self.awake, self.since = True, now
            yield from self._arrive(now)
        elif (self.journey and self.journey.zone(now) != self.zone) or now - self.said >= STILL_HERE:
            yield from self._arrive(now)
        for job in [j for j in self.jobs.values() if j.state == REGISTERED and now - j.since >= PATIENCE]:
            del self.jobs[job.key]  # nobody answered
        self.free = 1 - self.busy(now) if self.busy else 1.0
        yield from self._work(now)
        yield from self._plan(now, boards)
        yield from self._look(now, boards)
        times = [
            window[1],
            self.said + STILL_HERE,
            *(j.since + PATIENCE for j in self.jobs.values() if j.state == REGISTERED),
        ]
        if self.running and not (self.running.due and self.running.state == TRAINING):
            times.append(max(self.running.until, now + 1))
        self.next = min([self.next, *times])

    def hear(self, a: Announcement, zone: str, now: int) -> None:
        """A round was announced in its zone, or in one that it has a job in: what is over is left."""
        job = self.jobs.get((zone, a.task))
        if job:
            here = a.open and a.round == job.work.round
            late = job.state != REGISTERED and 0 <= a.round - job.work.round <= a.staleness and a.staleness > 0
            if not here and (a.over or not late):
                self.drop(job)
                self.next = now
        if a.open and zone == self.zone and self.awake:
            self.next = min(self.next, now + self._reaction(now))

    def planned(self, plan: SharingPlan, now: int) -> None:
        """Another plan holds in its zone."""
        if plan.zone == self.zone and self.awake and not self.jobs:
            self.next = min(self.next, now + self.die("plan", plan.at, most=self.habit.reaction))

    def forget(self, zone: str, task: str, everywhere: bool) -> None:
        """A task is over in a zone, or in all that it hears of: it keeps nothing that it could not use again."""
        self.taken.pop((zone, task), None)
        self.retry.pop((zone, task), None)
        if everywhere:
            self.quality.pop(task, None)
            self.own.pop(task, None)
            self.left.pop(task, None)
            self.sizes.pop(task, None)
            self.pace.forget(task)

    def admitted(self, zone: str, m: Admission, now: int) -> None:
        job = self.jobs.get((zone, m.task))
        if job and (job.state, job.work.round) == (REGISTERED, m.round):
            job.state, job.slot, job.lease = ADMITTED, m.slot, m.lease_until
            if m.blocks != owes(job.work):  # it asked before, for others: what it would send now does not count
                self.drop(job)
            self.next = now

    def refused(self, zone: str, m: Refusal, now: int) -> None:
        job = self.jobs.get((zone, m.task))
        if job and (job.state, job.work.round) == (REGISTERED, m.round):
            del self.jobs[job.key]
            self.retry[job.key] = now + m.retry_ms
            self.next = now

    def saw(self, a: Announcement, name: str, shares: Shares, now: int) -> Profile | None:
        """How important a task's modules are for its data. What it asks the cloud, under this name, if it does."""
        self.next = now
        if (own := self.own.get(a.task)) is None:
            return None
        return own.seen(name, a.task, shares, self._limits(a, own), a.training.batch, now)

    def answered(self, m: Submodel, now: int) -> None:
        """The cloud says which modules it is to have."""
        if (own := self.own.get(m.task)) and own.answered(m, now):
            self.next = now

    def sub_model(self, a: Announcement) -> Announcement | None:
        """A round of a modular task as it takes it now: those of its modules that its present limits allow; None: it has none yet, or not
        even one of each layer fits."""
        if (own := self.own.get(a.task)) is None:
            return None
        choice = own.use(self._limits(a, own), a.training.batch)
        return portion(a, *own.blocks(choice)) if choice else None

    def sends(self, a: Announcement, run: Run) -> bool:
        """Whether what a run gave meets the task's upload condition."""
        return a.modules is None or worth_sending(a.modules, *held_back(run))

    def trained(self, job: Job, run: Run, blocks: Sequence[object], now: int) -> None:
        """Its run is done: `blocks` of the delta are to be uploaded, none if it diverged."""
        self.quality[job.work.task] = quality_of(run)
        known, classes = self.sizes[job.work.task]
        self.sizes[job.work.task] = (max(known, run.samples), classes)  # a client may have known it alone
        self.pace.took(job.work, run.samples, now - job.since)
        if own := self.own.get(job.work.task):
            own.trained(held_back(run)[0])
        if not blocks:
            self.drop(job)
        else:
            job.state, job.blocks, job.until = UPLOADING, blocks, now
            job.apart = self.pace.upload(job.work, now) // len(blocks)
        self.next = now

    def drop(self, job: Job) -> None:
        """Leave a round for good: the lease, if there is one, will run out."""
        self.taken[job.key] = job.work.round
        self.jobs.pop(job.key, None)
        if self.running is job:
            self.running = None

    # ------------------------------------------------------------------ what it does

    def _sleep(self, now: int) -> None:
        """Not free any more: a run that is not done is lost; what is being uploaded goes on when it is free again."""
        assert self.nights
        if self.awake:
            self.awake = False
            if self.outlook:
                self.outlook.observe(self.since, now)
            for job in list(self.jobs.values()):
                if job.state != UPLOADING:
                    self.drop(job)
            self.running = None
        self.next = self.nights.next_start(now)

    def _arrive(self, now: int) -> Iterator[Act]:
        """Check in; and where it was before, if it moved, say goodbye."""
        zone = self.journey.zone(now) if self.journey else self.zone
        if self.checked_in not in ("", zone):
            yield CheckIn(self.checked_in, gone=True)
        self.zone = self.checked_in = zone
        self.said = now
        yield CheckIn(zone)

    def _work(self, now: int) -> Iterator[Act]:
        """Go on with what it runs, or begin with the next that it is admitted to."""
        while True:
            job = self.running
            if job is None:
                ready = [j for j in self.jobs.values() if j.state in (UPLOADING, ADMITTED)]
                if not ready:
                    return
                job = self.running = min(ready, key=lambda j: (j.state != UPLOADING, j.work.deadline, j.work.task))
                if job.state == ADMITTED:
                    self._begin(job, now)
                    if job.mishap.leaves is None:
                        yield Begin(job)
                else:
                    job.until = now
            if job.state == TRAINING:
                if now < job.until or job.due:
                    return
                if job.mishap.leaves is None:
                    job.due = True
                    yield Train(job)
                    return
                self.drop(job)  # it is gone in the middle of the run
                continue
            while job.sent < len(job.blocks) and now >= job.until:
                yield Give(job, job.blocks[job.sent])
                job.sent += 1
                job.until = now + job.apart
                if job.sent == job.mishap.sent(len(job.blocks)) < len(job.blocks):
                    job.until += job.mishap.pause_ms  # the upload breaks off, and goes on where it was
            if job.sent < len(job.blocks):
                return
            self.drop(job)

    def _begin(self, job: Job, now: int) -> None:
        """Start a run."""
        a = job.work
        samples, _ = self.sizes[a.task]
        if self.whims:
            job.mishap = self.whims.of(self.id, a.task, a.round)
        ms = self.pace.take(a, samples, now, job.mishap.slowdown / self.free)
        if job.mishap.leaves is not None:
            ms = round(ms * job.mishap.leaves)
        job.state, job.since = TRAINING, now + job.mishap.late_ms
        job.until = job.since + ms

    def _plan(self, now: int, boards: Mapping[str, Board]) -> Iterator[Act]:
        """Bid for what the knapsack chooses, as far as it is to be done in the present window (§5.2)."""
        self.next = NEVER
        board = boards.get(self.zone)
        if board is None:
            return
        open = {a.task: a for a in self._open(board, now)}
        if not open:
            return
        if board.plan and not board.plan.chosen:
            yield from self._take(board.plan, open, now)
            return
        busy = sum(self._time(j.work) for j in self.jobs.values() if j.state in (REGISTERED, ADMITTED))
        if self.running:
            busy += max(0, self.running.until - now)
        offers = [
            Offer(a.task, a.round, a.reward, self.appraise(self, a), self._time(a), a.deadline) for a in open.values()
        ]
        windows = self._windows(now)
        first = (now + busy, windows[0][1])
        if first[0] >= first[1]:
            return  # what it has takes it to the end of the window, or beyond; it looks again when one of them is over
        habit = self.habit
        for p in planner.make(now, offers, [first, *windows[1:]], habit.order, work=habit.work):
            a = open[p.task]
            if p.start_ms < first[1] and (p.start_ms == now or p.end_ms <= now + a.lease):
                job = self.jobs[self.zone, a.task] = Job(self.zone, a, now)
                yield Wish(job)

    def _take(self, plan: SharingPlan, open: Mapping[str, Announcement], now: int) -> Iterator[Act]:
        """Register for the first task of its turn that is to be done in the present window: one at a time."""
        if self.jobs:
            return  # it looks again when that is over
        end = self._windows(now)[0][1]
        for task in self._turn(plan):
            if (a := open.get(task)) and now + self._time(a) <= min(end, a.deadline):
                job = self.jobs[self.zone, a.task] = Job(self.zone, a, now)
                yield Wish(job)
                return

    def _look(self, now: int, boards: Mapping[str, Board]) -> Iterator[Act]:
        """Of modular tasks with a round open: look at its data where it has no modules, or those that it has do not fit."""
        if (board := boards.get(self.zone)) is None:
            return
        for a in board.rounds.values():
            own = self.own.get(a.task)
            if not own or not a.open or board.objections[a.task] or a.task not in self.sizes or not self._able(a):
                continue
            if own.wants(now):
                yield Look(self.zone, a)
            elif not own.candidates:
                self.next = min(self.next, own.next)

    def _limits(self, a: Announcement, own: Own) -> Limits:
        assert a.modules
        return limits(a.modules, own.model.structure, self.abilities, self.pace, self.free)

    def _turn(self, plan: SharingPlan) -> tuple[str, ...]:
        """The tasks that the plan has for it, drawn by the shares of its rule's turns, once a plan."""
        if self.turn[0] is not plan:
            chance = throw(self.habit.seed, self.id, "turn", plan.zone, plan.at)
            self.turn = plan, drawn(plan, self.abilities, chance)
        return self.turn[1]

    def _able(self, a: Announcement) -> bool:
        """Whether it has what the task needs."""
        if not meets(self.abilities, a.needs.public):
            return False
        if not a.needs.private:
            return True
        own = {**self.private, SAMPLES: self.sizes[a.task][0]}
        return all(own.get(name, 0.0) >= least for name, least in a.needs.private.items())

    def _fitted(self, a: Announcement) -> Announcement | None:
        """The round as it can do it, within what the task allows; None: it cannot."""
        samples, taken = self.sizes[a.task][0], self.part(self, a)
        return taken and adapt(
            taken, samples, self.abilities.get("memory", 0.0), lambda b: self.pace.expect(b, samples)
        )

    def _open(self, board: Board, now: int) -> Iterator[Announcement]:
        """The rounds that it may register for now; `next` is when it may for others. Under a plan it reacts to all alike, or chance
        would go before the plan's order."""
        plan = board.plan
        slow = self.die("plan", plan.at, most=self.habit.reaction) if plan and not plan.chosen else None
        for a in board.rounds.values():
            key = (self.zone, a.task)
            if not a.open or board.objections[a.task] or now >= a.deadline or key in self.jobs:
                continue
            if self.taken.get(key, 0) >= a.round or a.task not in self.sizes or not self._able(a):
                continue
            heard = max(self.since, board.heard[a.task])
            at = max(self.retry.get(key, 0), heard + (self._reaction(heard) if slow is None else slow))
            if at <= now:
                if fitted := self._fitted(a):
                    yield fitted
            else:
                self.next = min(self.next, at)

    def _reaction(self, heard: int) -> int:
        """After how many ms it registers for what it heard of at a time, or found when it woke up: for all of it alike, or chance would
        go before what rounds are worth."""
        return self.die("reaction", heard, most=self.habit.reaction)

    def _time(self, a: Announcement) -> int:
        return self.pace.expect(a, self.sizes[a.task][0])

    def _windows(self, now: int) -> list[Window]:
        """When it will be free, the present window first."""
        return windows(self.outlook, now, self.habit.horizon_ms, self.habit.slots)
