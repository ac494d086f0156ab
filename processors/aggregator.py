"""The shared-task actor (OLearning §6): any aggregator works for any task, on the shards it holds.

Each block is judged and added on arrival to one accumulator per (task, round). Its life, and the one way a sum gets into a
model (design: Commit, Drop, Take-over):

1. claim the shards the group gives, and give back those it takes, once all is committed; what the ledger says one holds,
   one reads, from the fold's next offset;
2. fetch the bitmaps of the commits that cover these shards, so that a block counted before is known;
3. judge each block in the order of the log, add what counts, note it in the accumulator's own bitmap;
4. when it has waited long enough (`processors/patience.py`), sum and bitmap go to the partials, acknowledged; then `Committed` is
   appended, and read back; meanwhile the next accumulator of the round goes on where this one ends;
5. accepted: the bitmap is known from now on. Any other way an accumulator stops being alive (its shards' token, next
   offset or round is no longer its own), it is dropped with its bitmap, and its shards are read again from the fold.

Where a delta counts whole or not at all, its blocks are held until the last one is there (`processors/work.py`). What a log
does not hold any more, or partials that are gone, is said in a `Lost` (`processors/losses.py`); the task then stands still.
"""

from collections.abc import Iterable, Iterator

from processors import losses, reports
from processors.accumulator import Accumulator
from processors.claims import Claims
from processors.judge import INVALID, Verdict, judge
from processors.offers import AGAIN
from processors.order import Order
from processors.patience import COMMIT_INTERVAL, Patience, full
from processors.reports import Marks
from processors.shares import TURN
from processors.work import Shard, Work
from schemas.blocks import DeltaBlock
from schemas.facts import Abandoned, Admitted, Claimed, Committed, Lost
from schemas.messages import AggregatorReport
from schemas.partitioner import shard_of
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed, Message
from streams.ledger import Round, Zone, ZoneTask, shards_of
from streams.letters import dead_letter
from streams.processor import (
    Answer,
    Assigned,
    Effect,
    Ends,
    Fetch,
    Follow,
    Input,
    Membership,
    Pause,
    Record,
    Requests,
    Resume,
    Send,
    Stop,
    Tick,
    Unfollow,
    send,
)
from streams.reading import WRONG, Reading

WINDOW = 16
"""Pieces of a sum that are on their way at once: memory."""
HEAVY = 32 * 2**20
"""Bytes of a sum that is written before the next one is begun: memory."""
HAND_OVER = 2_000
"""ms that a shard's holder has to commit and give it back, when the group gave it to someone else."""
FULL, LOW = 16, 4
"""Records of a shard that wait in memory: pause at FULL, resume at LOW."""

LOOK, LOOK_EACH = 200, 20
"""ms after which it is asked what lies in the logs of tasks that are read to their known ends, where tenants share: this, and at
least so many for each task."""


class Aggregator:
    def __init__(
        self,
        namespace: str,
        zone: str,
        name: str,
        life: str,
        commit_interval: int = COMMIT_INTERVAL,
        report_interval: int = 1_000,
        task_oriented: bool = False,
        worth: float | None = None,
        turn: int = TURN,
    ):
        """`commit_interval`, `worth`: see `Patience`."""
        self.name, self.life, self.zone_name, self.namespace = name, life, zone, namespace
        self.patience, self.report_interval = Patience(commit_interval, worth), report_interval
        self.tick = min(100, commit_interval)
        self.ledger_topic = topic(namespace, zone, "ledger")
        self.partials = topic(namespace, zone, "partials")
        self.receipts = topic(namespace, zone, "receipts")
        self.metrics = topic(namespace, GLOBAL, "metrics")
        self.membership: Membership | None = Membership(
            f"{namespace}.{zone}.aggregators", topic(namespace, zone, "shards").name
        )
        self.reading = Reading(namespace, zone, Zone(), self._jumped)
        self.claims = Claims(name, life, HAND_OVER)
        self.order = Order(namespace, zone, task_oriented, turn)
        self.work: dict[str, Work] = {}
        self.requests = Requests()
        self.refetch: dict[tuple[str, int], int] = {}
        """Task and commit whose bitmap was not there, and when that was said: it is looked for again."""
        self.now = 0
        self.stored = self.follows = 0
        self.reported = self.looked = 0
        self.marks = Marks(f"{namespace}.{zone}.lag")

    # ------------------------------------------------------------------ inputs

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.reading.start()
        yield from self.order.start()

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        self.now = now
        try:
            match event:
                case Record(topic=name) if name == self.ledger_topic.name:
                    yield from self._ledger(event, now)
                case Record(topic=self.order.topic):
                    self.order.hear(event, now)
                    yield from self._obey(now)
                case Record():
                    yield from self._block(event, now)
                    if self.order.took(event, self.work):
                        yield from self._obey(now)
                    return  # who holds what is not changed by a block
                case Assigned(seats):
                    self.claims.want(seats)
                    for task in self.work:
                        yield from self._take(task, now)
                case Answer():
                    heard = self.reading.answer(event)
                    heard = self.order.answer(event) if heard is None else heard
                    yield from self._answer(event, now) if heard is None else heard
                case Tick():
                    yield from self._tick(now)
        except WRONG as e:
            yield Stop(str(e))
            return
        yield from self._claim(now)

    @property
    def zone(self) -> Zone:
        return self.reading.ledger.state

    def _answer(self, answer: Answer, now: int) -> Iterator[Effect]:
        match answer.tag:
            case ("gap", str(task), int(s), int(follow)):
                yield from self._gap(task, s, follow, answer.value, now)
                return
        asked = self.requests.close(answer.tag)
        if asked is None:
            return
        if answer.error:
            yield Stop(f"{asked[0]}: {answer.error}")
            return
        match asked:
            case ("fresh", str(task), int(s), int(position)):
                shard = self.work[task].shards.get(s) if task in self.work else None
                if shard and shard.position == position and shard.read_to == -1:
                    shard.read_to = answer.value[0]
                    yield from self._take(task, now)
            case ("bitmap", str(task), int(offset)):
                yield from self._bitmap(task, offset, answer.value, now)
            case ("stored", str(task), int(n), str(key)):
                yield from self._stored(task, n, key, answer.value, now)
            case ("unread", str(task), int(asked_at)) if task in self.work:
                work = self.work[task]
                work.landed.answered(answer.value, {s: shard.position for s, shard in work.shards.items()}, now)
                yield from self._say(losses.ended(task, work, self.zone, answer.value, asked_at, now))
                yield from self._reach(task, work, answer.value, now)
                yield from self._obey(now)

    def _tick(self, now: int) -> Iterator[Effect]:
        for task in list(self.work):
            yield from self._settle(task, now)
            for acc in self.work[task].committing.values():
                if acc.fact and now - acc.sent >= AGAIN:  # an append is an offer: the same one again harms nothing
                    acc.sent = now
                    yield send(self.ledger_topic, acc.fact)
            yield from self._say(losses.gaps(task, self.work[task], self.zone, now))
        for (task, offset), said in list(self.refetch.items()):
            if now - said >= AGAIN:
                del self.refetch[task, offset]
                yield from self._refetch(task, offset)
        yield from self._obey(now)
        if now - self.reported >= self.report_interval:
            self.reported = self.looked = now
            yield self._report(now)
            yield from self.marks.new(self.work, self.zone, now)
            yield from self._look_for_more(list(self.work))
        elif now - self.looked >= max(LOOK, LOOK_EACH * len(self.work)):
            self.looked = now
            yield from self._look_for_more(self.order.hungry(self.work))

    def _report(self, now: int) -> Send:
        held, tasks = shards_of(self.zone, self.name, self.life), reports.loads(self.work, self.zone, now)
        return send(self.metrics, AggregatorReport(self.name, self.zone_name, now, held, tasks), key=self.name)

    def _look_for_more(self, tasks: list[str]) -> Iterator[Ends]:
        """Ask where their logs end, unless that is asked already."""
        waiting = {asked[1] for asked in self.requests.open.values() if asked[0] == "unread"}
        yield from (self._ask_ends(task, self.work[task]) for task in tasks if task not in waiting)

    def _ask_ends(self, task: str, work: Work) -> Ends:
        return Ends(self.requests.new(("unread", task, self.zone.position)), work.topic)

    def _obey(self, now: int) -> Iterator[Effect]:
        return self.order.obey(self.work, self.zone, now)

    def _claim(self, now: int) -> Iterator[Effect]:
        if not self.reading.caught_up:
            return  # a claim names the token it replaces: that must be today's
        seats = dict(enumerate(self.zone.shards))
        for claim in (self.claims.make(seats, now), self.claims.give_back(seats, self._idle, now)):
            if claim:
                yield send(self.ledger_topic, claim)

    def _idle(self, s: int) -> bool:
        """Whether all that was read of a shard is committed."""
        return not any(work.uncommitted(s) for work in self.work.values())

    # ------------------------------------------------------------------ the ledger

    def _ledger(self, record: Record, now: int) -> Iterator[Effect]:
        got = yield from self.reading.record(record)
        if got is None:
            return
        fact, void = got
        if isinstance(fact, Committed) and not void:
            self.claims.alive(fact.stretches, now)
        ours = isinstance(fact, Committed) and fact.task in self.work and self._verdict(fact, record.offset, void)
        yield from self._look(self._touched(fact), fact, void, record.offset, now)
        if isinstance(ours, list):
            yield from ours
        elif ours and any(acc.fact == fact for acc in self.work[fact.task].committing.values()):  # type: ignore[union-attr]
            at = f"{self.zone.ledger}@{record.offset}"
            yield Stop(f"a commit at {at} is void though nothing forbids it: {void}")

    def _jumped(self) -> Iterator[Effect]:
        """The ledger's state is suddenly that of a checkpoint: hold what it says, from where it says."""
        yield from self._look(list(self.zone.tasks), None, "", 0, self.now)

    def _look(self, tasks: list[str], fact: Message | None, void: str, offset: int, now: int) -> Iterator[Effect]:
        """Act on what the fold says of these tasks, after this fact."""
        held = shards_of(self.zone, self.name, self.life)
        for gone in self.work.keys() - self.zone.tasks.keys():
            yield from self._leave(self.work.pop(gone))
        for task in tasks:
            t = self.zone.tasks[task]
            if held or task in self.work:
                work = self.work.setdefault(
                    task, Work(task, topic(self.namespace, self.zone_name, "deltas", task).name)
                )
                yield from self._hold(task, work, t, {} if t.loss else held)
                if isinstance(fact, Committed) and fact.task == task:
                    if not void and work.bitmaps.note(offset, fact, work.shards):
                        yield self._fetch(task, offset, fact)
                elif not isinstance(fact, Admitted | Committed):
                    yield from self._load(task, work, t)
                yield from self._take(task, now)
        yield from self._obey(now)  # a closed round waits for nobody

    def _touched(self, fact: Message | None) -> list[str]:
        """The tasks that a fact may concern, and those where a block waits for the ledger to be read on."""
        if isinstance(fact, Claimed | Abandoned):  # shards change hands
            return list(self.zone.tasks)
        named = {getattr(fact, "task", "")} | {x.task for x in getattr(fact, "slots", ())}
        waiting = {k for k, w in self.work.items() if any(s.read_to is not None for s in w.shards.values())}
        return sorted((named | waiting) & self.zone.tasks.keys())

    def _hold(self, task: str, work: Work, t: ZoneTask, held: dict[int, int]) -> Iterator[Effect]:
        """Read what the ledger says is held, from where it says; drop every accumulator that is not alive."""
        work.drop(t, held)
        for s in [s for s in work.shards if s not in held]:
            del work.shards[s]
            yield Unfollow(work.topic, s)
        for s, token in held.items():
            shard = work.shards.get(s)
            given_up = (
                shard and shard.recall and shard.round != t.at[s]
            )  # what was to be read again is of no use any more
            if shard is None or shard.token != token or given_up:
                shard = work.resume(t, s, token)
                yield Resume(work.topic, s)
                yield from self._follow(work, task, s, shard.position)
                if not shard.reaches:
                    yield self._ask_ends(task, work)
            shard.move(t.at[s])

    def _follow(self, work: Work, task: str, s: int, position: int) -> Iterator[Follow]:
        self.follows += 1
        work.shards[s].follow = self.follows
        yield Follow(work.topic, s, position, ("gap", task, s, self.follows))

    def _leave(self, work: Work) -> Iterator[Effect]:
        """The task is over: nobody reads its blocks any more."""
        self.refetch = {k: at for k, at in self.refetch.items() if k[0] != work.task}
        yield from (Unfollow(work.topic, s) for s in work.shards)

    def _load(self, task: str, work: Work, t: ZoneTask) -> Iterator[Effect]:
        """Fetch the bitmaps that are not known yet, and forget those of rounds that no block to come can name."""
        for offset in work.bitmaps.wanted(t, work.shards):
            if not self.requests.asked(("bitmap", task, offset)):
                yield self._fetch(task, offset, work.bitmaps.unloaded[offset])

    def _fetch(self, task: str, offset: int, fact: Committed) -> Fetch:
        assert fact.bitmap
        return Fetch(self.requests.new(("bitmap", task, offset)), self.partials.name, (fact.bitmap,))

    def _bitmap(self, task: str, offset: int, found: dict[str, bytes], now: int) -> Iterator[Effect]:
        work = self.work.get(task)
        if work is None or offset not in work.bitmaps.unloaded:
            return
        fact, t = work.bitmaps.unloaded[offset], self.zone.tasks[task]
        if work.bitmaps.load(offset, found):
            yield from self._take(task, now)
        elif all(t.at[s] - fact.round > t.staleness() for s in fact.stretches):
            work.bitmaps.do_without(offset)
            yield from self._take(task, now)
        elif mine := sorted(work.shards.keys() & fact.stretches.keys()):
            self.refetch[task, offset] = now
            yield send(self.ledger_topic, losses.bitmap(task, mine[0], self.zone, offset, self.partials.name))

    def _refetch(self, task: str, offset: int) -> Iterator[Effect]:
        work = self.work.get(task)
        if work and offset in work.bitmaps.unloaded and not self.zone.tasks[task].loss:
            yield self._fetch(task, offset, work.bitmaps.unloaded[offset])

    # ------------------------------------------------------------------ loss

    def _reach(self, task: str, work: Work, ends: dict[int, int], now: int) -> Iterator[Effect]:
        """Logs that are known to reach to where the fold is: what lies before that is read again now."""
        reached = [shard for s, shard in work.shards.items() if not shard.reaches and ends[s] >= shard.start]
        for shard in reached:
            shard.reaches = True
        if reached:
            yield from self._take(task, now)

    def _gap(self, task: str, s: int, follow: int, log: tuple[int, int], now: int) -> Iterator[Effect]:
        """The log holds not what was to be read. What was read before is committed first; then the ledger is told."""
        shard = self.work[task].shards.get(s) if task in self.work else None
        if shard is None or shard.follow != follow:
            return
        work = self.work[task]
        at = losses.goes_on(shard, self.zone.tasks[task].next[s], log)
        if at is not None:
            yield from self._follow(work, task, s, at)
            return
        shard.gap = log
        yield from self._say(losses.gaps(task, work, self.zone, now))

    def _say(self, gone: Iterable[Lost]) -> Iterator[Send]:
        return (send(self.ledger_topic, lost) for lost in gone)

    # ------------------------------------------------------------------ blocks

    def _block(self, record: Record, now: int) -> Iterator[Effect]:
        task = record.topic.rsplit(".", 1)[-1]
        work = self.work.get(task)
        shard = work.shards.get(record.partition) if work else None
        if work is None or shard is None:
            return
        work.blocks += 1
        work.bytes += len(record.value or b"")
        shard.queue.append(record)
        if len(shard.queue) >= FULL and not shard.paused:
            shard.paused = True
            yield Pause(record.topic, record.partition)
        yield from self._take(task, now, record.partition)

    def _take(self, task: str, now: int, only: int | None = None) -> Iterator[Effect]:
        """Judge and add what waits, as far as that can be done now; commit what is due."""
        work, t = self.work[task], self.zone.tasks[task]
        for s in work.shards if only is None else (only,):
            shard = work.shards[s]
            while shard.queue:
                done = self._next(task, work, t, s, shard, now)
                if isinstance(done, Ends):
                    yield done
                if not isinstance(done, list):
                    break
                yield from done
            if shard.paused and len(shard.queue) <= LOW:
                shard.paused = False
                if not shard.waits:
                    yield Resume(work.topic, s)
        if only is None or work.stirred:
            yield from self._settle(task, now)

    def _next(self, task: str, work: Work, t: ZoneTask, s: int, shard: Shard, now: int) -> list[Effect] | Ends | None:
        """Take the shard's next block. None: it has to wait; an `Ends`: for the answer to that."""
        if not shard.reaches:
            return None
        if shard.queue[0].offset < shard.start:
            self._recall(shard, shard.queue.popleft())
            return []
        n = t.at[s]
        acc, here = work.open.get(n), t.rounds.get(n)
        if self._waits(work, s, shard, acc, n, here):
            return None
        record = shard.queue[0]
        b: DeltaBlock | None = None
        try:
            message = read(record.topic, record.value, record.headers)
            assert isinstance(message, DeltaBlock)
            b = message
            verdict = judge(task, t, s, record.key, b, work, shard.read_to is not None)
        except Malformed as e:
            verdict = Verdict(INVALID, str(e))
        if verdict is None:
            shard.read_to = -1
            return Ends(self.requests.new(("fresh", task, s, shard.position)), self.ledger_topic.name)
        shard.queue.popleft()
        shard.read_to = None
        if acc is None:
            acc = work.open[n] = Accumulator(n, now)
        before = len(acc.done)
        work.take(acc, s, record.offset, b, verdict, t)
        work.stirred |= len(acc.done) > before or full(acc) or bool(here and here.closed)
        return [dead_letter(self.namespace, record, verdict.reason, self.name)] if verdict.outcome == INVALID else []

    def _waits(self, work: Work, s: int, shard: Shard, acc: Accumulator | None, n: int, here: Round | None) -> bool:
        """Whether the next block of a shard that is in round `n` has to wait. `acc` is the one that it would go into."""
        return (
            s not in self.claims.wanted  # the group gave it to someone else: commit what there is, take no more
            or (acc is not None and full(acc))  # and the one before it commits
            or (acc is None and self._heavy(work.committing.get(n)))
            or (here is not None and here.closed is not None and shard.position >= here.closed.ends[s])
            or work.bitmaps.missing(s)
            or (shard.read_to is not None and not 0 <= shard.read_to <= self.zone.position)
        )

    def _recall(self, shard: Shard, record: Record) -> None:
        """A block below the fold's next offset is read again only if the fold holds it."""
        shard.position = record.offset + 1
        if shard.recall.pop(record.offset, None):
            b = read(record.topic, record.value, record.headers)
            assert isinstance(b, DeltaBlock)
            shard.keep(record.offset, b)

    # ------------------------------------------------------------------ commits

    def _settle(self, task: str, now: int) -> Iterator[Effect]:
        """Commit every accumulator that should not wait any longer and follows none whose commit is under way."""
        work, t = self.work[task], self.zone.tasks[task]
        work.stirred = False
        for n, acc in list(work.open.items()):
            if n not in work.committing and self.patience.due(work, t, acc, self.claims.wanted, now):
                work.committing[n] = work.open.pop(n)
                yield from self._store(task, acc, now)

    def _heavy(self, acc: Accumulator | None) -> bool:
        """Whether there should be no second sum beside this one."""
        return acc is not None and acc.total is not None and acc.total.nbytes > HEAVY

    def _store(self, task: str, acc: Accumulator, now: int) -> Iterator[Effect]:
        """Sum and bitmap to the partials, at places never written before; nothing counted, nothing to store."""
        self.stored += 1
        self.order.wrote(task, 0 if acc.total is None else acc.total.nbytes)
        where = f"{task}/{acc.round}/{self.life}/{self.stored}"
        acc.seal(where, shard_of(f"{self.name}/{self.life}", self.zone.partitions), self.zone.partitions)
        yield from self._hand_out(task, acc, WINDOW)
        if not acc.unstored:
            yield self._append(task, acc, now)

    def _hand_out(self, task: str, acc: Accumulator, most: int) -> Iterator[Send]:
        for place, message in acc.hand_out(task, most):
            tag = self.requests.new(("stored", task, acc.round, place.key))
            yield send(self.partials, message, place.key, place.partition, tag)

    def _stored(self, task: str, n: int, key: str, place: tuple[int, int], now: int) -> Iterator[Effect]:
        acc = self.work[task].committing.get(n) if task in self.work else None
        if acc is None or not acc.stored(key, place):
            return
        yield from self._hand_out(task, acc, 1)
        if not acc.unstored:
            yield self._append(task, acc, now)
            yield from self._take(task, now)  # what waited for the memory

    def _append(self, task: str, acc: Accumulator, now: int) -> Send:
        acc.sent = now
        return send(self.ledger_topic, acc.committed(task))

    def _verdict(self, fact: Committed, offset: int, void: str) -> list[Send] | bool:
        """The receipts if this is our commit, accepted; else whether it is ours."""
        work = self.work[fact.task]
        acc = work.committing.get(fact.round)
        if acc is None or acc.fact != fact:
            return False  # another's, or a copy of ours
        if void:
            return True
        del work.committing[fact.round]
        work.bitmaps.learn(offset, acc.bitmaps)
        for outcome, count in acc.counts.items():
            work.outcomes[outcome] = work.outcomes.get(outcome, 0) + count
        return [send(self.receipts, r, r.device, cause=f"{self.zone.ledger}@{offset}") for r in acc.receipts()]
