"""A fleet: many devices behind one edge.

The edge reads Kafka once for all of them, hands announcements and answers out, fetches each model once (`device_sim/edge.py`), has runs
trained (`runs.py`), makes deltas of them (`delta.py`), and writes what its devices say under their pseudonyms. It decides nothing: the
devices do (`device.py`). It serves one zone, or several that its devices move between.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from device_sim import delta
from device_sim.alarms import Alarms
from device_sim.availability import Clock
from device_sim.board import Board
from device_sim.device import Device
from device_sim.edge import ROOM, Edge, Gone, named, version
from device_sim.job import ADMITTED, TRAINING, UPLOADING, Begin, Give, Job, Look, Train, Wish
from device_sim.job import CheckIn as Present
from device_sim.outbox import Outbox, Parcel, due
from device_sim.pace import Steady
from device_sim.portion import Portion, owes, portion
from device_sim.pseudonym import pseudonym
from device_sim.runs import Learner, Runs, Vector
from device_sim.submodels import Own
from learning.words import said
from schemas.blocks import CODECS, DeltaBlock
from schemas.messages import (
    DEVICE_STATES,
    Admission,
    Announcement,
    CheckIn,
    Credits,
    FleetReport,
    LocalTime,
    Receipt,
    Refusal,
    Registration,
)
from schemas.modules import Submodel
from schemas.sharing import SharingPlan
from schemas.topics import GLOBAL, parse, read, topic
from schemas.wire import Malformed
from streams.letters import dead_letter, objection
from streams.processor import (
    Answer,
    Effect,
    Ends,
    Fetch,
    Follow,
    Input,
    Membership,
    Record,
    Requests,
    Send,
    Stop,
    Tick,
    send,
)

DIVERGED = "training gave values that are not finite: is the learning rate too high?"


@dataclass(frozen=True)
class Manner:
    """How the devices of a fleet behave. Times in ms."""

    seed: int = 0
    salt: bytes = b"olearning"
    reaction: int = 300
    """A device registers within so long of hearing."""
    training: tuple[int, int] = (300, 1_500)
    """How long a run takes on the slowest and the fastest phone, where the device has no pace of its own."""
    resend: float = 0.0
    """The share of deltas that are sent twice, as a flaky network makes phones do."""
    report: int = 1_000
    together: int = 1
    """So many runs at most are trained between two looks at the log: on a real clock the edge must go on reading."""
    ahead: bool = False
    """Runs are trained when they begin, all that begin together: the same results, sooner than on a phone. For simulation."""
    tick: int = 20
    room: int = ROOM
    """Bytes of models that the edge keeps."""


class Fleet:
    membership: Membership | None = None

    def __init__(
        self,
        namespace: str,
        zone: str,
        name: str,
        life: str,
        devices: Sequence[Device],
        learner: Learner,
        manner: Manner = Manner(),
        others: Sequence[str] = (),
        clock: Clock | None = None,
    ):
        self.namespace, self.zone, self.name = namespace, zone, name
        self.devices, self.learner, self.manner, self.clock = list(devices), learner, manner, clock
        self.tick = manner.tick
        self.boards = {z: Board(z) for z in (zone, *others)}
        self.metrics = topic(namespace, GLOBAL, "metrics")
        self.requests = Requests()
        self.by_name: dict[tuple[str, str], Device] = {}
        """By zone and pseudonym."""
        self.names: dict[tuple[str, str, str], str] = {}
        """By device, zone and tenant."""
        self.tenants: set[tuple[str, str]] = set()
        self.edge = Edge(self.requests, manner.room)
        self.outboxes = {z: Outbox(name) for z in self.boards}
        self.outcomes: dict[str, int] = {}
        self.reported = 0
        self.listening = False
        self.diverged: set[str] = set()
        """Tasks of which it was said that a run diverged."""
        self.alarms = Alarms(self.devices)
        self.looking: dict[tuple[int, str], tuple[Device, str, Announcement]] = {}
        """By device and task, who is to look at its data, in which zone; the model's selector may still be on its way."""
        self.selectors: dict[tuple[str, str], tuple[Announcement, Portion]] = {}
        """By ledger and modular task, its last round and the part of it that is looked by."""
        self.runs = Runs(self.devices)
        for d in self.devices:
            self._settle(d)

    @property
    def rounds(self) -> dict[str, Announcement]:
        """By task, the last round announced in its own zone."""
        return self.boards[self.zone].rounds

    @property
    def objections(self) -> dict[str, str]:
        return self.boards[self.zone].objections

    def _settle(self, d: Device) -> None:
        """What a device that comes to this fleet has of it."""
        m = self.manner
        d.habit = replace(d.habit, seed=m.seed, reaction=m.reaction)
        d.zone = d.zone or self.zone
        fast, slow = m.training
        if type(d.pace) is Steady:
            d.pace = Steady(fast + d.die("speed", most=slow - fast))

    def start(self, now: int) -> Iterator[Effect]:
        for zone in self.boards:
            for what in ("admissions", "submodels", "receipts", "credits"):
                name = topic(self.namespace, zone, what).name
                yield Ends(self.requests.new(("from", zone, what)), name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                yield from self._record(event, now)
            case Answer(error=error) if error:
                yield Stop(f"fleet {self.name}: {error}")
            case Answer(tag, value):
                yield from self._answer(self.requests.close(tag), value, now)
            case Tick() if self.listening:
                yield from self._tick(now)

    # ------------------------------------------------------------------ the edge

    def _record(self, record: Record, now: int) -> Iterator[Effect]:
        if record.tombstone:
            return  # the last word on its task came before, or the deadlines of what is known of it are long over
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed as e:
            yield dead_letter(self.namespace, record, str(e), self.name)
            return
        zone = parse(record.topic).zone
        match message:
            case Announcement():
                yield from self._announced(message, self.boards[zone], now)
            case SharingPlan():
                self._planned(message, self.boards[zone], now)
            case Admission() | Refusal() if d := self.by_name.get((zone, message.device)):
                if isinstance(message, Refusal):
                    d.refused(zone, message, now)
                else:
                    d.admitted(zone, message, now)
                    if job := d.jobs.get((zone, message.task)):
                        yield from self._want(job.work, now)
                self.alarms.set(d)
            case Submodel() if d := self.by_name.get((zone, message.device)):
                d.answered(message, now)
                self.alarms.set(d)
            case Credits():
                self.outboxes[zone].hear(message, record.timestamp, now)
            case Receipt() if (zone, message.device) in self.by_name:
                self.outcomes[message.outcome] = self.outcomes.get(message.outcome, 0) + len(message.blocks)

    def _object(self, board: Board, task: str, reason: str, now: int) -> Iterator[Send]:
        """What cannot be done for a task, if anything: said once, and it is left alone until its next announcement."""
        if reason and board.objections.get(task) != reason:
            yield objection(self.namespace, self.name, task, reason, now)
        board.objections[task] = reason

    def _announced(self, a: Announcement, board: Board, now: int) -> Iterator[Send]:
        if not board.newer(a):
            return
        if a.over:
            self._over_with(a, board, now)
            return
        board.rounds[a.task] = a
        board.heard[a.task] = now
        strange = "" if a.codec in CODECS else f"codec {a.codec} is not known here: install the version that knows it"
        if a.modules and not hasattr(self.learner, "known"):
            strange = strange or "these devices train whole models alone, and the task's is modular"
        yield from self._object(board, a.task, strange or self.learner.objection(a), now)
        if (board.zone, a.tenant) not in self.tenants:
            self.tenants.add((board.zone, a.tenant))
            self.by_name |= {(board.zone, self._name(d, board.zone, a.tenant)): d for d in self.devices}
        for d in self.devices:
            if not board.objections[a.task] and not self._acquaint(d, a):
                continue  # it bids for no round of it
            before = d.next
            d.hear(a, board.zone, now)
            if d.next != before:
                self.alarms.set(d)

    def _acquaint(self, d: Device, a: Announcement) -> bool:
        """Note what a device has of a task, and of a modular one knows of its model; False: it has no data of it."""
        if a.task not in d.sizes:
            try:
                d.sizes[a.task] = self.learner.size(a, d)
            except Exception:  # of a tenant's data
                return False
        if a.modules and a.task not in d.own:
            d.own[a.task] = Own(self.learner.known(a), a.modules)  # type: ignore[attr-defined]
        return True

    def _planned(self, plan: SharingPlan, board: Board, now: int) -> None:
        if not board.replan(plan):
            return
        for d in self.devices:
            before = d.next
            d.planned(plan, now)
            if d.next != before:
                self.alarms.set(d)

    def _over_with(self, a: Announcement, board: Board, now: int) -> None:
        """A task is over in a zone. What devices know of it they keep while another zone of this fleet has it."""
        for known in (board.rounds, board.heard, board.objections):
            known.pop(a.task, None)
        self.selectors.pop((a.cause.ledger, a.task), None)
        everywhere = not any(a.task in b.rounds for b in self.boards.values())
        if everywhere:
            self.diverged.discard(a.task)
        for d in self.devices:
            before = d.next
            d.hear(a, board.zone, now)
            d.forget(board.zone, a.task, everywhere)
            if d.next != before:
                self.alarms.set(d)

    def _name(self, d: Device, zone: str, tenant: str) -> str:
        key = (d.id, zone, tenant)
        if key not in self.names:
            self.names[key] = pseudonym(d.id, zone, tenant, self.manner.salt)
        return self.names[key]

    def _want(self, a: Announcement, now: int) -> Iterator[Effect]:
        """Have a round's model here, or on its way."""
        yield from self._fetch(self.edge.want(a), now)

    def _fetch(self, effects: Iterable[Fetch | Gone], now: int) -> Iterator[Effect]:
        for effect in effects:
            if isinstance(effect, Gone):
                yield from self._give_up(effect.version, effect.why, now)
            else:
                yield effect

    def _answer(self, asked: tuple | None, value: dict, now: int) -> Iterator[Effect]:
        match asked:
            case ("from", str(zone), str(what)):
                name = topic(self.namespace, zone, what).name
                yield from (Follow(name, p, end) for p, end in value.items())
                if not self.requests.open:
                    self.listening = True
                    for i, d in enumerate(self.devices):
                        d.place = i
                        d.next = now
                        self.alarms.set(d)
                    yield from (Follow(topic(self.namespace, z, "announcements").name, 0, 0) for z in self.boards)
            case ("model", int(number)):
                yield from self._fetch(self.edge.answer(number, value), now)
                at_work = (j for d in self.devices for j in d.jobs.values() if j.state in (ADMITTED, TRAINING))
                looking = (self._selector(d, a) for d, _, a in self.looking.values())
                self.edge.trim([*(j.work for j in at_work), *looking])

    def _give_up(self, gone: str, why: str, now: int) -> Iterator[Send]:
        """A model is gone: who would train from it does not, be its round the last or one that may be stale; all else goes on."""
        told: set[str] = set()
        for board in self.boards.values():
            for task in [k for k, a in board.rounds.items() if version(a) == gone]:
                told.add(task)
                yield from self._object(board, task, why, now)
        self.looking = {k: x for k, x in self.looking.items() if version(x[2]) != gone}
        for d in self.devices:
            for job in [j for j in d.jobs.values() if j.state != UPLOADING and version(j.work) == gone]:
                self._over(d, job, now)
                if job.work.task not in told:
                    told.add(job.work.task)
                    yield objection(self.namespace, self.name, job.work.task, why, now)

    # ------------------------------------------------------------------ the devices

    def _tick(self, now: int) -> Iterator[Effect]:
        for d in self.alarms.due(now):
            yield from self._wake(d, now)
        yield from self._look(now)
        yield from self._train(now)
        yield from self._deliver(now)
        for zone in self.outboxes:
            yield from self._post(zone, now)
        if now - self.reported >= self.manner.report:
            self.reported = now
            yield self._report(now)

    def _report(self, now: int) -> Send:
        states = [d.state for d in self.devices]
        count = {s: states.count(s) for s in DEVICE_STATES}
        boxes = self.outboxes.values()
        sent = sum(box.sent for box in boxes), sum(box.sent_bytes for box in boxes)
        models = self.edge.fetched, self.edge.handed
        waits = self.outboxes[self.zone].waiting, sum(box.left for box in boxes)
        local = LocalTime(round(self.clock.hours(now), 3), self.clock.day_ms) if self.clock else None
        busy = sum(d.busy_now for d in self.devices)
        elsewhere = {z: box.waiting for z, box in self.outboxes.items() if z != self.zone and box.waiting}
        report = FleetReport(self.name, self.zone, now, count, *sent, *models, *waits, local, busy, elsewhere)
        return send(self.metrics, report, key=self.name)

    def _wake(self, d: Device, now: int) -> Iterator[Effect]:
        for act in d.wake(now, self.boards):
            match act:
                case Present(zone, gone):
                    name = self._name(d, zone, "")
                    here = CheckIn(name, {} if gone else d.abilities, gone)
                    yield send(topic(self.namespace, zone, "checkins"), here, name)
                case Wish(job):
                    name = self._name(d, job.zone, job.work.tenant)
                    asked = {n: d.abilities[n] for n in self._asked(job) if n in d.abilities}
                    wish = Registration(name, job.work.task, job.work.round, asked, owes(job.work))
                    yield send(topic(self.namespace, job.zone, "registrations"), wish, name)
                case Look(zone, a):
                    self.looking[d.place, a.task] = d, zone, a
                case Begin(job):
                    if self.manner.ahead:
                        self.runs.begin(d, job)
                case Train(job):
                    self.runs.due(d, job)
                case Give(job, block):
                    yield from self._give(d, job, block, now)
        self.alarms.set(d)

    def _asked(self, job: Job) -> list[str]:
        """The abilities that the plane weighs for this wish: no more of them are said under a tenant's pseudonym, or they would tell
        which of its pseudonyms are one device."""
        plan = self.boards[job.zone].plan
        bounds = [b for r in plan.rules for b in (*r.meets, *r.lacks)] if plan else []
        return sorted({name for b in (job.work.needs.public, *bounds) for name in b})

    def _selector(self, d: Device, a: Announcement) -> Portion:
        """Of a modular task's round, the selector's blocks: what a device profiles its data by. The same for all devices."""
        key = a.cause.ledger, a.task
        last = self.selectors.get(key)
        if last is None or last[0] is not a:
            last = self.selectors[key] = a, portion(a, d.own[a.task].model.selector)
        return last[1]

    def _look(self, now: int) -> Iterator[Effect]:
        """Have devices see how important modules are for their data, and send what they ask."""
        for key, (d, zone, a) in list(self.looking.items()):
            board = self.boards[zone]
            if a.task not in d.own or board.objections.get(a.task, "over") or not d.own[a.task].looks:
                del self.looking[key]
                continue
            part = self._selector(d, a)
            if (selector := self.edge.model(part)) is None:
                yield from self._want(part, now)
                continue
            del self.looking[key]
            try:
                shares = self.learner.profile(a, d, selector)  # type: ignore[attr-defined]
            except Exception as e:  # a tenant's model or data
                yield from self._object(board, a.task, f"profiling failed: {said(e)}", now)
                continue
            self.edge.handed += selector.nbytes
            name = self._name(d, zone, a.tenant)
            if profile := d.saw(a, name, shares, now):
                yield send(topic(self.namespace, zone, "profiles"), profile, name)
            self.alarms.set(d)

    def _train(self, now: int) -> Iterator[Effect]:
        """Have trained what is due, as far as the models are there."""
        ready: list[tuple[Device, Job, Vector]] = []
        later: list[tuple[Device, Job]] = []
        models: dict[str, Vector | None] = {}
        for d, job in self.runs.waiting:
            board, a = self.boards[job.zone], job.work
            if d.running is not job:
                continue  # it left the round meanwhile
            if board.objections[a.task]:
                self._over(d, job, now)
                continue
            if (name := named(a)) not in models:
                models[name] = self.edge.model(a)
            if (base := models[name]) is None:
                later.append((d, job))
                yield from self._want(a, now)
            elif len(ready) < self.manner.together:
                self.edge.handed += base.nbytes
                ready.append((d, job, base))
            else:
                later.append((d, job))
        self.runs.waiting = later
        if ready:
            self.runs.train(self.learner, ready, now)

    def _deliver(self, now: int) -> Iterator[Effect]:
        """Runs that are done become deltas."""
        for d, job, run in self.runs.take():
            a = job.work
            if d.running is not job:
                continue
            if isinstance(run, FloatingPointError):  # it diverged, which is this device's alone: its lease runs out
                d.left.pop(a.task, None)
                self._over(d, job, now)
                if a.task not in self.diverged:
                    self.diverged.add(a.task)
                    yield objection(self.namespace, self.name, a.task, DIVERGED, now)
                continue
            why = said(run) if isinstance(run, Exception) else delta.unweighed(a, run)
            if why or isinstance(run, Exception):  # a tenant's model or data: that task's fault, not this fleet's
                self._over(d, job, now)
                reason = f"training failed: {why}"
                yield from self._object(self.boards[job.zone], a.task, reason, now)
                continue
            try:
                blocks = list(delta.blocks(d, self._name(d, job.zone, a.tenant), job, run)) if d.sends(a, run) else []
            except ValueError:
                d.left.pop(a.task, None)  # it diverged: nothing worth sending; its lease runs out
                blocks = []
            d.trained(job, run, blocks, now)
            yield from self._wake(d, now)

    def _over(self, d: Device, job: Job, now: int) -> None:
        d.drop(job)
        d.next = now
        self.alarms.set(d)

    def _give(self, d: Device, job: Job, block: object, now: int) -> Iterator[Send]:
        """A block; once more, all of them, behind the last, if the network is flaky."""
        assert isinstance(block, DeltaBlock)
        a, again = job.work, [block]
        if job.sent == len(job.blocks) - 1:
            twice = d.die("resend", a.task, a.round, most=1000) < 1000 * self.manner.resend
            again += [b for b in job.blocks if isinstance(b, DeltaBlock)] if twice else []
        for b in again:
            sent = send(topic(self.namespace, job.zone, "deltas", a.task), b, b.device, spare=True)
            self.outboxes[job.zone].put(Parcel(sent, a.task, a.round), due(a, job.lease), now)
        yield from self._post(job.zone, now)

    def _post(self, zone: str, now: int) -> Iterator[Send]:
        """Send what may go."""
        board = self.boards[zone]
        yield from self.outboxes[zone].take(now, lambda parcel: not board.takes(parcel.task, parcel.round))
