"""The zone selector: announces rounds, admits devices to them under a lease, refuses the rest (design: Registrations)."""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from learning.modular.structure import Masks, masks, objection
from processors.desk import ZoneDesk
from processors.devices import heard
from processors.offers import AGAIN
from processors.pacing import Pacing
from processors.plans import Plans, short
from processors.quotas import LATER, Allowance
from schemas import sets
from schemas.blocks import Manifest
from schemas.facts import Admitted, Closed, Finalised, Lapsed, Opened, Retired, Slot
from schemas.messages import Admission, Announcement, Ref, Refusal, Registration
from schemas.sharing import Bounds
from schemas.task import Training
from schemas.topics import topic
from schemas.wire import HEADERS, Malformed, Message, encode
from streams.ledger import Round, ZoneTask, cost, has_devices, places_taken, slots_of, working
from streams.letters import dead_letter
from streams.processor import Effect, Follow, Pause, Record, Resume, Send, Unfollow, send

REPEAT = 5_000
"""Announcements are repeated every so many ms."""
BATCH = 2_000
"""Registrations, and lapsed leases, that one `Admitted` deals with at most: with the longest names, too, it must fit a record."""
SETS = 2**17
"""Bytes of sets of blocks that one `Admitted` gives slots for, about: likewise."""
FULL = 4_000
"""Registrations of a partition that wait in memory at most."""
LATELY = 1_000
"""A new leader says the last word again on tasks that ended within so many records of the ledger: the one before may not have."""
RETRY = 1_000
"""A refused device may try again after so many ms."""
GROUNDS = NOT_OPEN, NEEDS, BLOCKS, LATE, FULL_ROUND, QUOTA, PLAN = (
    "not-open", "needs", "blocks", "late", "full", "quota", "plan"
)  # fmt: skip
"""Why a device gets no slot: no such round is open, it lacks what the task needs, the set of blocks that it wants to owe cannot be, the
round takes no more, or has no place left, its tenant's quota, the plan of the sharing policy."""

Waits = tuple[int, Registration | None]
"""A registration that waits, and its offset; None: it could not be read."""


class Offer(NamedTuple):
    """What was offered to the ledger and has no verdict yet."""

    at: int
    """When it was made last (ms)."""
    fact: Admitted
    where: list[int]
    """By slot of the fact, the partition its registration lies in: a device's are the same in all topics of a zone."""
    others: list[tuple[int, Refusal | Admission]]
    """The answers besides new slots that go out with it, and where."""


@dataclass(slots=True)
class _Open:
    """What is the same for all registrations for a round that one offer deals with."""

    t: ZoneTask
    r: Round
    opened: Opened
    needs: Bounds
    held: dict[str, int]
    """Who holds which slot, as of the fold."""
    room: int
    """How many slots more it can have."""
    late: bool
    """It takes no more devices."""
    mine: dict[str, int] = field(default_factory=dict)
    """Who gets which slot by this offer."""


class Selector:
    def __init__(self, desk: ZoneDesk):
        self.desk = desk
        self.registrations = topic(desk.namespace, desk.scope, "registrations")
        self.admissions = topic(desk.namespace, desk.scope, "admissions")
        self.announcements = topic(desk.namespace, desk.scope, "announcements")
        self.waiting: dict[int, deque[Waits]] = {}
        self.full: set[int] = set()
        """Partitions that are not read on, since so many of theirs wait."""
        self.offered: Offer | None = None
        self.announced = 0
        self.look = False
        """Time has passed: leases may be over."""
        self.held: dict[str, tuple[int, dict[str, int]]] = {}
        """By task, its round and who holds which slot in it."""
        self.settled: dict[str, dict[int, int]] = {}
        """By task and round, the slots below which every device has delivered, was given up or has lapsed."""
        self.masks: dict[str, Masks] = {}
        """By task whose rounds take parts of the model, what of it goes whole."""
        self.plans = Plans(desk)
        self.pacing = Pacing(RETRY)
        self.refused: Counter[str] = Counter()
        """How many refusals were written since the start, by ground."""

    # ------------------------------------------------------------------ leadership

    def begin(self) -> Iterator[Effect]:
        """Take over: read registrations from where the fold is, say again what is open and who has a slot."""
        yield from self.plans.end()  # whatever it was in an earlier leadership
        yield from self._follow()
        yield from self._announce_all()
        for task, over in self.desk.zone.over.items():
            if over.at >= self.desk.zone.position - LATELY:
                yield from self._last_word(task)
        for task, t in self.desk.zone.tasks.items():
            if t.state == "open":
                for r in working(t):
                    held = (Slot(task, r.round, i, d) for i, d in enumerate(r.devices) if i not in r.done)
                    yield from self._answers(((x, None) for x in held), self.desk.zone.admitted)

    def end(self) -> Iterator[Effect]:
        self.offered = None
        yield from self.plans.end()
        yield from (Unfollow(self.registrations.name, p) for p in self.waiting)
        self.waiting, self.full = {}, set()

    def _follow(self) -> Iterator[Effect]:
        self.offered, self.full = None, set()
        for p, offset in enumerate(self.desk.zone.registrations):
            self.waiting[p] = deque()
            yield Resume(self.registrations.name, p)
            yield Follow(self.registrations.name, p, offset, ("registrations", p))

    def skip(self, p: int, log: tuple[int, int]) -> Iterator[Effect]:
        """The log does not hold the next registrations any more: go on where it does. Their devices have given up long ago, and
        who comes twice gets the same slot."""
        start, end = log
        if self.desk.token and (queue := self.waiting.get(p)) is not None:
            begin = min(max(start, self.desk.zone.registrations[p]), end)
            while queue and queue[-1][0] >= begin:  # read from the end that is gone
                queue.pop()
            if begin > 0:
                queue.append((begin - 1, None))
            yield Follow(self.registrations.name, p, begin, ("registrations", p))
            yield from self._resume(p)

    def _resume(self, p: int) -> Iterator[Effect]:
        """Read a partition on, if there is room again: not for one more, since what was read ahead is read again after each pause."""
        if p in self.full and len(self.waiting[p]) <= FULL // 2:
            self.full.discard(p)
            yield Resume(self.registrations.name, p)

    # ------------------------------------------------------------------ inputs

    def registration(self, record: Record) -> Sequence[Effect]:
        wish, effects = None, list[Effect]()
        try:
            wish = heard(record, Registration)
        except Malformed as e:
            effects.append(dead_letter(self.desk.namespace, record, str(e), self.desk.name))
        if (queue := self.waiting.get(record.partition)) is not None:
            queue.append((record.offset, wish))
            if len(queue) >= FULL and record.partition not in self.full:
                self.full.add(record.partition)
                effects.append(Pause(record.topic, record.partition))
        return effects

    def fact(self, fact: Message, offset: int, void: str) -> Iterator[Effect]:
        """Answer what the ledger says, never what was offered."""
        match fact:
            case Admitted() if (offer := self.offered) and fact == offer.fact:
                if void:
                    yield from self._follow()  # another was before it
                    return
                self.offered = None
                for p, (_, end) in fact.ranges.items():
                    queue = self.waiting[p]
                    while queue and queue[0][0] < end:
                        queue.popleft()
                    yield from self._resume(p)
                for p, answer in offer.others:
                    yield send(self.admissions, answer, answer.device, p)
                yield from self._answers(zip(fact.slots, offer.where, strict=True), offset)
            case Opened() | Closed() | Finalised() if not void:
                yield from self._announce(fact.task)
            case Retired() if not void:
                self.held.pop(fact.task, None)
                self.settled.pop(fact.task, None)
                self.masks.pop(fact.task, None)
                yield from self._last_word(fact.task)

    def tick(self, now: int) -> Iterator[Effect]:
        self.look = True
        if now - self.announced >= REPEAT:
            self.announced = now
            yield from self._announce_all()
            yield from self.plans.announce()
        if self.offered and now - self.offered.at >= AGAIN:
            self.offered = self.offered._replace(at=now)
            yield send(self.desk.ledger_topic, self.offered.fact)

    def react(self, now: int) -> Iterator[Effect]:
        yield from self.plans.react(now)
        if self.offered is None and (made := self._decide(now)):
            self.offered = made
            yield send(self.desk.ledger_topic, made.fact)

    # ------------------------------------------------------------------ decisions

    def _decide(self, now: int) -> Offer | None:
        """Deal with the registrations that wait, first come first served; end the leases that are over."""
        lapsed = list(islice(self._lapsed(now), BATCH)) if self.look else []
        self.look = len(lapsed) == BATCH
        full = sorted(((p, queue) for p, queue in self.waiting.items() if queue), key=lambda x: len(x[1]))
        if not full and not lapsed:
            return None
        zone, slots, ranges = self.desk.zone, list[Slot](), {}
        where, others = list[int](), list[tuple[int, Refusal | Admission]]()
        ended = Counter(x.task for x in lapsed)
        allowance = Allowance(self.desk.globe.state, zone, self.desk.scope, now)
        for task, n in ended.items():
            if (g := self.desk.globe.state.tasks.get(task)) is not None:
                allowance.ended(g.spec.tenant, n)
        budget, room = BATCH, SETS
        rounds: dict[str, _Open | None] = {}
        for i, (p, queue) in enumerate(full):  # an equal part of it for each that has so many
            batch, taken = _fitting(islice(queue, budget // (len(full) - i)), room // (len(full) - i))
            if not batch:
                continue
            room -= taken
            budget -= len(batch)
            ranges[p] = (zone.registrations[p], batch[-1][0] + 1)
            for _, wish in batch:
                if wish is None:
                    continue
                task, device = wish.task, wish.device
                if task not in rounds:
                    rounds[task] = self._open(task, ended[task], now)
                o = rounds[task]
                if o is None or o.r.round != wish.round:
                    others.append((p, self._refuse(wish, now, NOT_OPEN, f"round {wish.round} is not open")))
                elif device in o.held:
                    others.append((p, self._admission(task, o.r, o.held[device], self.desk.ref(zone.admitted))))
                elif device in o.mine:
                    pass  # it asked twice; one answer is under way
                elif refusal := self._against(wish, o, allowance, now):
                    others.append((p, self._refuse(wish, now, *refusal)))
                else:
                    number = len(o.held) + len(o.mine)
                    o.mine[device] = number
                    slots.append(Slot(task, wish.round, number, device, wish.blocks))
                    where.append(p)
                    allowance.taken(o.opened.tenant, cost(o.opened, wish.blocks))
        if not ranges and not lapsed:
            return None
        return Offer(now, Admitted(self.desk.token, zone.admitted, ranges, tuple(slots), tuple(lapsed)), where, others)

    def _open(self, task: str, ended: int, now: int) -> _Open | None:
        """A task's open round, `ended` of whose leases end; None: it has none. In an asynchronous round it takes a look at all slots to
        count the places that nobody has."""
        t = self.desk.zone.tasks.get(task)
        if t is None or t.loss or t.state != "open":
            return None
        r = t.rounds[t.round]
        o = r.opened
        assert o
        g, held = self.desk.globe.state.tasks.get(task), self._held(task, r)
        free = o.places - places_taken(t) + ended
        room = min(free, slots_of(o) - len(held)) if t.filling or free >= o.refill else 0
        return _Open(t, r, o, g.spec.needs.public if g else {}, held, room, 0 < o.fill <= now)

    def _against(self, wish: Registration, o: _Open, allowance: Allowance, now: int) -> tuple[str, str, int] | None:
        """Why this device gets no slot of a round that is open, in one of `GROUNDS` and in words, and after how many ms it may try
        again; None: it gets one."""
        if o.needs and (lacks := short(wish, o.needs)):
            return NEEDS, lacks, LATER
        if wish.blocks and (why := self._strange(wish, o.opened)):
            return BLOCKS, why, LATER
        if o.late:
            return LATE, "the round takes no more devices", RETRY
        if len(o.mine) >= o.room:
            return FULL_ROUND, "the round is full", RETRY
        why, retry = allowance.over(o.opened.tenant, cost(o.opened, wish.blocks))
        if why:
            return QUOTA, why, retry
        why = self.plans.against(wish, now)
        return (PLAN, why, RETRY) if why else None

    def _strange(self, wish: Registration, o: Opened) -> str:
        """Why a round cannot give a slot that owes just these blocks, or ""."""
        if not o.partial:
            return f"{wish.task} takes whole models alone: its rounds are not partial"
        if why := sets.flaw(wish.blocks, len(o.sizes)):
            return f"the set of blocks: {why}"
        if (g := self.desk.globe.state.tasks.get(wish.task)) and wish.task not in self.masks:
            self.masks[wish.task] = masks(g.layout)
        return objection(self.masks.get(wish.task, Masks()), wish.blocks)

    def _lapsed(self, now: int) -> Iterator[Lapsed]:
        """The leases that are over, of devices that have not delivered."""
        for task, t in self.desk.zone.tasks.items():
            if has_devices(t):  # one that stands still, too: its devices count in its tenant's quota
                before, after = self.settled.get(task, {}), dict[int, int]()
                self.settled[task] = after
                for r in working(t):
                    after[r.round] = before.get(r.round, 0)
                    for i in range(
                        after[r.round], bisect_right(r.leases, now)
                    ):  # they end in the order they were given
                        if i not in r.done and i not in r.lapsed and i not in r.voided:
                            yield Lapsed(task, r.round, i)
                        elif i == after[r.round]:
                            after[r.round] += 1

    def _held(self, task: str, r: Round) -> dict[str, int]:
        """Who holds which slot of a round, kept as it grows."""
        n, held = self.held.get(task, (0, {}))
        if n != r.round:
            held = {}
        known = len(held)
        held.update(zip(r.devices[known:], range(known, len(r.devices)), strict=True))
        self.held[task] = (r.round, held)
        return held

    def _refuse(self, wish: Registration, now: int, ground: str, reason: str, retry: int = RETRY) -> Refusal:
        self.refused[ground] += 1
        g = self.desk.globe.state.tasks.get(wish.task)
        retry = max(retry, self.pacing.retry(g.spec.tenant if g else "", wish.device, now))
        return Refusal(wish.device, wish.task, wish.round, reason, retry, self.desk.ref(self.desk.zone.position))

    def _admission(self, task: str, r: Round, slot: int, cause: Ref) -> Admission:
        """What the `Admitted` that is the cause gave, or an older one said again."""
        return Admission(r.devices[slot], task, r.round, slot, r.leases[slot], cause, r.set_of(slot))

    def _answers(self, slots: Iterable[tuple[Slot, int | None]], offset: int) -> Iterator[Send]:
        """To those who have these slots, with the partitions of their registrations, by the `Admitted` at `offset`."""
        cause, topic = self.desk.ref(offset), self.admissions.name
        headers = (*HEADERS, ("cause", f"{cause.ledger}@{offset}".encode()))
        tasks, task, n, r = self.desk.zone.tasks, "", -1, None
        for slot, p in slots:
            if slot.round != n or slot.task != task:
                task, n = slot.task, slot.round
                r = tasks[task].rounds.get(n)
            i, device = slot.slot, slot.device
            if r and i < len(r.devices) and r.devices[i] == device:
                yield Send(topic, encode(self._admission(task, r, i, cause)), device, p, None, headers)

    # ------------------------------------------------------------------ announcements

    def _announce_all(self) -> Iterator[Effect]:
        for task in self.desk.zone.tasks:  # of those that are over the last word stays in the topic
            yield from self._announce(task)

    def _announce(self, task: str) -> Iterator[Effect]:
        """The task's round, open or not, one copy in every partition."""
        t, g = self.desk.zone.tasks[task], self.desk.globe.state.tasks.get(task)
        r = t.rounds.get(t.round)
        if r is None or r.opened is None or g is None:
            return
        o, spec = r.opened, g.spec
        here = t.state == "open"
        message = Announcement(
            task=task,
            tenant=spec.tenant,
            round=r.round,
            open=here,
            cause=self.desk.ref(r.opened_at if here else max(r.opened_at, r.closed_at)),
            model=spec.model,
            model_args=spec.model_args,
            data=spec.data,
            data_args=spec.data_args,
            training=o.training or spec.training,
            sizes=o.sizes,
            unit=o.unit,
            largest=spec.limits.largest,
            base=o.base,
            deadline=o.deadline,
            staleness=o.staleness,
            seed=g.seed,
            codec=spec.upload.codec,
            keep=spec.upload.share,
            reward=o.worth.reward,
            lease=o.lease,
            serve=o.serve,
            needs=spec.needs,
            adapt=spec.adapt,
            modules=spec.modules,
            partial=o.partial,
        )
        yield from self._to_all(message)

    def _last_word(self, task: str) -> Iterator[Send]:
        """The task is over: nobody needs to know of a model or of limits any more."""
        over = self.desk.zone.over[task]
        none = Manifest(topic(self.desk.namespace, self.desk.scope, "models").name, 0, ())
        yield from self._to_all(
            Announcement(
                task=task,
                tenant=over.tenant,
                round=over.round,
                open=False,
                cause=self.desk.ref(over.at),
                model="",
                model_args={},
                data="",
                data_args={},
                training=Training(),
                sizes=(),
                unit=0,
                largest=0.0,
                base=none,
                deadline=0,
                over=True,
            )
        )

    def _to_all(self, message: Announcement) -> Iterator[Send]:
        for p in range(self.desk.zone.partitions):
            yield send(self.announcements, message, message.task, p)


def _fitting(waiting: Iterable[Waits], room: int) -> tuple[list[Waits], int]:
    """The first of these, one at least, as many as name sets of blocks of `room` bytes together; and how many bytes these are."""
    out, taken = list[Waits](), 0
    for x in waiting:
        size = len(x[1].blocks) if x[1] is not None else 0
        if out and taken + size > room:
            break
        taken += size
        out.append(x)
    return out, taken
