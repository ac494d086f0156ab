"""A gateway: an edge for devices that are elsewhere, phones or any program, and speak to it over a link of their own.

It reads Kafka once for all of them, as every edge does: announcements and plans go to whoever asks for messages, admissions, refusals,
sub-models and receipts to the device whose pseudonym they bear (`device_sim/news.py`), blocks of models out of one copy (`edge.py`). What a
device says goes to the log under its pseudonym; deltas as fast as the zone's credits allow (`outbox.py`). It decides nothing and trains
nothing, and what it knows of devices (`box.py`) it may lose: they say it again.

A state machine that does no I/O. The link (`link.py`) asks in a device's name, with a number of its own, and finds a `Reply` with that number
later. **What a device is told is `DONE` is in the log**, acknowledged as every record of this plane: what was not told so it sends
again, and the ledger counts it once. A device calls itself `ME`: the gateway puts the pseudonym in its place on the way in, and takes
it out on the way back, so neither Kafka sees who it is nor the device what it is called.
"""

import heapq
from collections.abc import Iterable, Iterator

import numpy as np
from msgspec.structs import replace

from device_sim.board import Board
from device_sim.box import ASKS_EVERY, Box
from device_sim.edge import ROOM, Edge, Gone, named, version
from device_sim.link import ME, MOST_BYTES, SAYS, Ask, Asked, Poll, Reply, Status
from device_sim.news import News
from device_sim.outbox import Outbox, Parcel, due
from device_sim.portion import portion
from device_sim.pseudonym import pseudonym
from schemas.blocks import DeltaBlock
from schemas.messages import (
    DEVICE_STATES,
    Admission,
    Announcement,
    CheckIn,
    Credits,
    FleetReport,
    Receipt,
    Refusal,
    Registration,
)
from schemas.modules import Profile, Submodel
from schemas.sharing import PLAN, SharingPlan
from schemas.topics import GLOBAL, parse, read, topic
from schemas.wire import Malformed, Message, decode, encode
from streams.letters import dead_letter
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

MOST_WORDS = 16 * 1024
"""Of what it says beside delta blocks."""
MOST_ASKED = 16
"""Questions of one device that wait for their answers."""
MOST_WAITING = 16 * 2**20
"""Bytes of one device that wait to be in the log."""
MOST_HELD = 512 * 2**20
"""Bytes of all devices that do; the second half is for devices of which nothing waits."""
FORGET = 3_600_000
"""ms without a word after which it is forgotten."""
PATIENCE = 30_000
"""ms that a question waits; then it is to be asked again."""


Key = tuple[str, str, int, int, int]
"""A delta block on its way: device, task, round, slot, block."""


class Gateway:
    """`salt`: what pseudonyms are made with, secret and the same for all gateways of a zone, always."""

    membership: Membership | None = None
    tick = 10

    def __init__(
        self, namespace: str, zone: str, name: str, life: str, salt: bytes, room: int = ROOM, report: int = 1_000
    ):
        self.namespace, self.zone, self.name, self.life, self.salt = namespace, zone, name, life, salt
        self.report = report
        self.board = Board(zone)
        self.requests = Requests()
        self.edge = Edge(self.requests, room)
        self.outbox = Outbox(name)
        self.boxes: dict[str, Box] = {}
        """By device."""
        self.replies: list[Reply] = []
        """Since they were taken last."""
        self._devices: dict[str, str] = {}
        """By pseudonym."""
        self._asked: dict[int, tuple[str, int]] = {}
        """By number of a question that waits, whose it is, and until when; not of polls."""
        self._ends: list[tuple[int, int, str]] = []
        """(when, number, device) of all questions."""
        self._news = News(life, zone)
        self._rounds: dict[tuple[str, int], Announcement] = {}
        """By task and round, what may be trained still."""
        self._models: dict[str, list[tuple[int, Announcement, int]]] = {}
        """By version, or part of one, that is on its way: the questions for its blocks."""
        self._flying: dict[Key, tuple[list[int], int]] = {}
        """Delta blocks that are not in the log yet: who asks, and how many bytes."""
        self._held = 0
        """Their bytes."""
        self._end: int | None = None
        self._read = 0
        self._reported = 0
        self.outcomes: dict[str, int] = {}
        """Of its devices' blocks, how many had which, as the receipts said."""

    @property
    def ready(self) -> bool:
        """Has it read what is announced?"""
        return self._end is not None and self._read >= self._end

    def start(self, now: int) -> Iterator[Effect]:
        for what in ("admissions", "submodels", "receipts", "credits", "announcements"):
            yield Ends(self.requests.new(("from", what)), self._topic(what))

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                yield from self._record(event, now)
            case Answer(tag, value, error):
                yield from self._answer(self.requests.close(tag), value, error, now)
            case Tick():
                self._expire(now)
                yield from self._post(now)
                if self.ready and now - self._reported >= self.report:
                    self._reported = now
                    yield from self._tell(now)

    def take(self) -> list[Reply]:
        """The replies since the last call."""
        out, self.replies = self.replies, []
        return out

    # ------------------------------------------------------------------ what devices ask

    def ask(self, number: int, device: str, asked: Asked, now: int) -> Iterator[Effect]:
        """A question of a device that is known to be this one."""
        if not self.ready:
            self._no(number, Status.LATER, "the gateway has just started and reads what is announced: try again")
            return
        box = self.boxes.setdefault(device, Box(now))
        box.heard = now
        if isinstance(asked, Poll):
            self._poll(number, device, box, asked, now)
            return
        if box.asked >= MOST_ASKED:
            self._no(number, Status.BUSY, f"{box.asked} questions wait for an answer: ask one after the other")
            return
        self._await(number, device, now + PATIENCE)
        self._asked[number] = device, now + PATIENCE
        box.asked += 1
        if isinstance(asked, Ask):
            yield from self._block(number, asked, now)
            return
        try:
            if len(asked.body) > MOST_BYTES:
                raise Malformed(f"{len(asked.body)} bytes are too many: {MOST_BYTES} at most")
            message = decode(asked.body, SAYS)
            yield from self._said(number, device, box, message, len(asked.body), now)
        except Malformed as e:
            self._no(number, Status.BAD, f"this is no message that devices send: {e}")

    def _said(self, number: int, device: str, box: Box, m: Message, size: int, now: int) -> Iterator[Effect]:
        if not isinstance(m, DeltaBlock) and size > MOST_WORDS:
            self._no(number, Status.LARGE, f"{size} bytes are too many for this: {MOST_WORDS} at most")
            return
        match m:
            case CheckIn():
                name = self._name(device, box, "")
                yield self._send("checkins", replace(m, device=name), name, number)
            case Registration(task=task):
                if (a := self.board.rounds.get(task)) is None:
                    self._no(number, Status.UNKNOWN, f"no task {task} is announced in zone {self.zone}")
                    return
                name = self._name(device, box, a.tenant)
                box.wishes.add(task)
                yield self._send("registrations", replace(m, device=name), name, number)
            case Profile():
                yield from self._profile(number, device, box, m, now)
            case DeltaBlock():
                yield from self._delta(number, device, box, m, now)

    def _profile(self, number: int, device: str, box: Box, m: Profile, now: int) -> Iterator[Send]:
        """Whether it fits the task's model who derives sub-models says, in words: here nobody knows the model."""
        if (a := self.board.rounds.get(m.task)) is None:
            self._no(number, Status.UNKNOWN, f"no task {m.task} is announced in zone {self.zone}")
        elif a.modules is None:
            self._no(number, Status.BAD, f"task {m.task} is not modular: register for it without a profile")
        elif m.batch > a.training.batch:
            self._no(number, Status.BAD, f"{m.task} is trained in batches of {a.training.batch} at most, not {m.batch}")
        elif now - box.profiled.get(m.task, -ASKS_EVERY) < ASKS_EVERY:
            self._no(number, Status.BUSY, f"a sub-model of {m.task} was asked for just now: wait for the answer")
        else:
            name = self._name(device, box, a.tenant)
            box.profiled[m.task] = now
            box.asks.add(m.task)
            yield self._send("profiles", replace(m, device=name), name, number)

    def _send(self, what: str, m: Message, name: str, number: int) -> Send:
        tag = self.requests.new(("said", number))
        return send(topic(self.namespace, self.zone, what), m, name, tag=tag)

    def _delta(self, number: int, device: str, box: Box, m: DeltaBlock, now: int) -> Iterator[Effect]:
        if (a := self.board.rounds.get(m.task)) is None:
            self._no(number, Status.UNKNOWN, f"no task {m.task} is announced in zone {self.zone}")
            return
        if not a.takes(m.round):
            self._no(number, Status.LATE, f"round {m.round} of {m.task} takes nothing any more: leave it")
            return
        if m.block >= len(a.sizes):
            self._no(number, Status.BAD, f"{m.task} has blocks 0 to {len(a.sizes) - 1}, and no block {m.block}")
            return
        key = (device, m.task, m.round, m.slot, m.block)
        if key in self._flying:
            self._flying[key][0].append(number)  # it asks again, and once is enough
            return
        size = len(m.data)
        if box.waiting + size > MOST_WAITING:
            self._no(number, Status.BUSY, f"{box.waiting} bytes wait to be in the log: send more when these are")
            return
        if self._held + size > (MOST_HELD // 2 if box.waiting else MOST_HELD):
            self._no(number, Status.LATER, f"{self._held} bytes of all devices wait to be in the log: try again")
            return
        name = self._name(device, box, a.tenant)
        tag = self.requests.new(("delta", key))
        sent = send(topic(self.namespace, self.zone, "deltas", m.task), replace(m, device=name), name, tag=tag)
        box.waiting += size
        self._held += size
        self._flying[key] = [number], size
        mine = self._rounds.get((m.task, m.round), a)
        self.outbox.put(Parcel(sent, m.task, m.round), due(mine, box.leases.get((m.task, m.round), mine.deadline)), now)
        yield from self._post(now)

    def _block(self, number: int, ask: Ask, now: int) -> Iterator[Effect]:
        a = self._rounds.get((ask.task, ask.round))
        if a is None:
            self._no(number, Status.UNKNOWN, f"round {ask.round} of {ask.task} is not open in zone {self.zone}")
        elif not 0 <= ask.block < len(a.sizes):
            self._no(number, Status.BAD, f"{ask.task} has blocks 0 to {len(a.sizes) - 1}, and no block {ask.block}")
        else:
            if not self._hand(number, a, ask.block):
                # Where phones train parts of a model, what none of them asks for is not fetched.
                wanted = portion(a, (ask.block,)) if a.partial else a
                self._models.setdefault(named(wanted), []).append((number, a, ask.block))
                yield from self._fetch(self.edge.want(wanted))

    def _hand(self, number: int, a: Announcement, block: int) -> bool:
        """Give a block out, if it is here."""
        if (values := self.edge.block(a, block)) is None:
            return False
        data = np.ascontiguousarray(values, "<f4").data.cast("B")
        if number in self._asked:
            self.edge.handed += len(data)
        self._done(number, data)
        return True

    def _name(self, device: str, box: Box, tenant: str) -> str:
        if (name := box.names.get(tenant)) is None:
            name = box.names[tenant] = pseudonym(device, self.zone, tenant, self.salt)
            self._devices[name] = device
        return name

    # ------------------------------------------------------------------ answers to them

    def _await(self, number: int, device: str, until: int) -> None:
        heapq.heappush(self._ends, (until, number, device))

    def _done(self, number: int, body: bytes | memoryview = b"") -> None:
        self._reply(Reply(number, Status.DONE, body))

    def _no(self, number: int, status: Status, words: str) -> None:
        self._reply(Reply(number, status, words=words))

    def _reply(self, reply: Reply) -> None:
        if (whose := self._asked.pop(reply.number, None)) and (box := self.boxes.get(whose[0])):
            box.asked -= 1
        elif whose is None and reply.status is Status.DONE:
            return  # it was told to ask again
        self.replies.append(reply)

    def _poll(self, number: int, device: str, box: Box, poll: Poll, now: int) -> None:
        after = self._news.after(poll.after)
        while box.mail and box.mail[0][0] <= after:
            box.mail.popleft()
        if box.poll:  # it does not wait for that one any more
            self._letters(box.poll[0], box, after, now)
        box.poll = (number, after, poll.until)
        if not self._deliver(box, now):
            self._await(number, device, poll.until)

    def _deliver(self, box: Box, now: int) -> bool:
        """Answer a poll that waits, if there is anything for it."""
        assert box.poll
        number, after, until = box.poll
        if self._news.newest <= after and not box.mail and until > now:
            return False
        box.poll = None
        self._letters(number, box, after, now)
        return True

    def _letters(self, number: int, box: Box, after: int, now: int) -> None:
        self.replies.append(Reply(number, Status.DONE, self._news.letters(box.mail, after, now)))

    def _expire(self, now: int) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, number, device = heapq.heappop(self._ends)
            box = self.boxes.get(device)
            if box and box.poll and box.poll[0] == number:
                self._deliver(box, now)
            elif number in self._asked:
                self._no(number, Status.LATER, "it is not done yet: ask again, the same")

    # ------------------------------------------------------------------ the log

    def _topic(self, what: str) -> str:
        return topic(self.namespace, self.zone, what).name

    def _record(self, record: Record, now: int) -> Iterator[Effect]:
        what = parse(record.topic).kind.what
        if what == "announcements":
            self._read = record.offset + 1
        if record.tombstone:
            return  # the last word on its task came before, or the deadlines of what is known of it are long over
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed as e:
            yield dead_letter(self.namespace, record, str(e), self.name)
            return
        match message:
            case Announcement():
                self._announced(message, bytes(record.value or b""), now)
            case SharingPlan() if self.board.replan(message):
                self._publish(PLAN, bytes(record.value or b""), now)
            case Credits():
                self.outbox.hear(message, record.timestamp, now)
            case Admission() | Refusal() | Submodel() | Receipt() if device := self._devices.get(message.device):
                box = self.boxes[device]
                match message:
                    case Receipt():
                        box.leases.pop((message.task, message.round), None)
                        self.outcomes[message.outcome] = self.outcomes.get(message.outcome, 0) + len(message.blocks)
                    case Submodel():
                        box.asks.discard(message.task)
                    case Refusal():
                        box.wishes.discard(message.task)
                    case Admission():
                        box.wishes.discard(message.task)
                        box.leases[message.task, message.round] = message.lease_until
                self._news.put(box.mail, what, encode(replace(message, device=ME)))
                if box.poll:
                    self._deliver(box, now)

    def _announced(self, a: Announcement, raw: bytes, now: int) -> None:
        if not self.board.newer(a):
            return
        for round in [n for task, n in self._rounds if task == a.task and (a.over or not a.takes(n))]:
            del self._rounds[a.task, round]
        if a.over:
            self.board.rounds.pop(a.task, None)
            self._news.over(a.task)
        else:
            self.board.rounds[a.task] = self._rounds[a.task, a.round] = a
        self._publish(a.task, raw, now)

    def _publish(self, key: str, raw: bytes, now: int) -> None:
        """Say it to all, in the place of what was said before, and at once to who waits for it."""
        self._news.publish(key, raw)
        for box in self.boxes.values():
            if box.poll:
                self._deliver(box, now)

    def _answer(self, asked: tuple | None, value: dict, error: str, now: int) -> Iterator[Effect]:
        match asked:
            case ("said", int(number)):
                self._said_by_log((number,), error)
            case ("delta", key):
                self._said_by_log(self._land(key)[0], error)
            case _ if error:
                yield Stop(f"gateway {self.name}: {error}")
            case ("from", "announcements"):
                self._end = value[0]
                yield Follow(self._topic("announcements"), 0, 0)
            case ("from", str(what)):
                yield from (Follow(self._topic(what), p, end) for p, end in value.items())
            case ("model", int(number)):
                yield from self._fetch(self.edge.answer(number, value))
                for name, waiting in list(self._models.items()):
                    if left := [w for w in waiting if not self._hand(*w)]:
                        self._models[name] = left
                    else:
                        del self._models[name]
                self.edge.trim(portion(a, (i,)) if a.partial else a for w in self._models.values() for _, a, i in w)

    def _said_by_log(self, numbers: Iterable[int], error: str) -> None:
        """Tell who asked what the log said. That it takes nothing, as it is set up, is no fault of a device: it keeps what it has."""
        for number in numbers:
            self._no(number, Status.LATER, f"not in the log: {error}") if error else self._done(number)

    def _fetch(self, effects: Iterator[Fetch | Gone]) -> Iterator[Effect]:
        for effect in effects:
            if isinstance(effect, Gone):
                for name in [n for n, waiting in self._models.items() if version(waiting[0][1]) == effect.version]:
                    for number, _, _ in self._models.pop(name):
                        self._no(number, Status.GONE, effect.why)
            else:
                yield effect

    def _post(self, now: int) -> Iterator[Effect]:
        """Send the deltas that may go."""

        def over(parcel: Parcel) -> bool:
            if self.board.takes(parcel.task, parcel.round):
                return False
            _, key = self.requests.close(parcel.send.tag)
            for number in self._land(key)[0]:
                self._no(
                    number, Status.LATE, f"round {parcel.round} of {parcel.task} was over before it could go: leave it"
                )
            return True

        yield from self.outbox.take(now, over)

    def _land(self, key: Key) -> tuple[list[int], int]:
        """A delta block is not on its way any more."""
        numbers, size = self._flying.pop(key)
        self._held -= size
        if box := self.boxes.get(key[0]):
            box.waiting -= size
        return numbers, size

    def _tell(self, now: int) -> Iterator[Effect]:
        """How many devices are in which state; forget those that were silent for long."""
        count = dict.fromkeys(DEVICE_STATES, 0)
        for device, box in list(self.boxes.items()):
            if now - box.heard > FORGET:
                for name in box.names.values():
                    self._devices.pop(name, None)
                del self.boxes[device]
                continue
            box.tidy(now, self.board.rounds.keys())
            count[box.state(now)] += 1
        out, models = self.outbox, (self.edge.fetched, self.edge.handed)
        report = FleetReport(self.name, self.zone, now, count, out.sent, out.sent_bytes, *models, out.waiting, out.left)
        yield send(topic(self.namespace, GLOBAL, "metrics"), report, key=self.name)
