"""Reading a ledger from wherever it begins: whole, or cut behind a checkpoint. Every reader of a ledger reads it through this.

How a processor uses it (a pure state machine; its tags are its own, so nobody's `Requests` are needed):

    self.reading = Reading(namespace, scope, Zone(), self._jumped)       # or Globe(); the last one may be left out
    self.ledger = self.reading.ledger                                    # the same object always: feed it nothing yourself

    start:   yield from self.reading.start()
    Record of `self.reading.topic`:
             got = yield from self.reading.record(event)                 # (fact, void) to act on,
             if got is None: return                                      # or None: it still looks for where to begin
    Answer:  effects = self.reading.answer(event)                        # None: not its own, go on with it
             if effects is not None: yield from effects; return

`record` and `answer` raise one of `WRONG`: `Stop(str(e))` then. `caught_up`: everything is folded that the ledger held when
reading began. `jumped()` gives the effects of a processor whose `ledger.state` is suddenly that of a checkpoint (at its start,
or later, if it fell behind a cut): no records led there. `origin` is the offset of that checkpoint; 0: all is read.

Where it begins: the fold's next offset, 0 at first. If the log is cut above it, the first `Checkpoint` at or above the cut
whose pieces are all there and have its hash is restored, and the log is followed from that one's offset. That state is one
of `ledger.marks`, so it is compared again when the fold comes to the `Checkpoint` itself, which follows it in the log.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from schemas.blocks import FoldBlock
from schemas.facts import Checkpoint
from schemas.topics import topic
from schemas.wire import Malformed, Message, checksum, decode
from streams.ledger import Diverged, Ledger, S, UnknownRules, known_rules, restore
from streams.processor import Answer, Effect, Ends, Fetch, Follow, Record, Unfollow

PIECE = 256 * 1024
"""Bytes of a piece of a fold, at most."""
ATTEMPTS = 5
"""So often the log is looked through for a checkpoint: the leader may cut it and make new ones meanwhile."""


Heard = Callable[[Any, Message | None, str, Record], None]
"""The state before, the fact (None: unreadable), why it is void or "", the record."""


class Gone(RuntimeError):
    """The ledger's beginning is cut off and no checkpoint stands in for it, or its end is lost: stop."""


WRONG = (UnknownRules, Diverged, Gone)
"""What a reader cannot go on after; the text says what to do."""


@dataclass(frozen=True, slots=True)
class _Looking:
    """For a checkpoint, in the records [at, end) of a log that begins at `start`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Fetching:
    """The pieces of the checkpoint that was found at `at`."""

    looking: _Looking
    at: int
    fact: Checkpoint


class Reading(Generic[S]):
    """A ledger on its way into a fold, for one processor."""

    def __init__(self, namespace: str, scope: str, empty: S, jumped: Callable[[], Iterable[Effect]] = lambda: ()):
        self.topic = topic(namespace, scope, "ledger").name
        self.pieces = topic(namespace, scope, "checkpoints").name
        self.ledger: Ledger[S] = Ledger(empty)
        self.origin = 0
        self.listeners: list[Heard] = []
        """Told of each record that is folded, before the processor acts on it: for those who watch. They change nothing."""
        self._jumped = jumped
        self._kind: type[S] = type(empty)
        self._doing: _Looking | _Fetching | None = None
        """None: folding."""
        self._end: int | None = None
        self._asked = 0
        self._attempts = 0
        self._why = ""

    @property
    def state(self) -> S:
        return self.ledger.state

    @property
    def caught_up(self) -> bool:
        """Is all folded that the ledger held when reading began?"""
        return self._end is not None and self.state.position >= self._end

    def start(self) -> Iterator[Effect]:
        yield self._follow(self.state.position)
        yield Ends(("reading", self.topic, "end"), self.topic)

    def record(self, record: Record) -> Generator[Effect, None, tuple[Message | None, str] | None]:
        """A record of the ledger; returns (fact, void) once it is folded, None while a checkpoint is looked for."""
        match self._doing:
            case None:
                self._attempts, before = 0, self.ledger.state
                fact, void = self.ledger.feed(record)
                for tell in self.listeners:
                    tell(before, fact, void, record)
                return fact, void
            case _Looking() as looking:
                yield from self._look(looking, record)
        return None

    def answer(self, answer: Answer) -> list[Effect] | None:
        """What comes of an answer; None if this reading did not ask."""
        match answer.tag:
            case ("reading", self.topic, "end"):
                if answer.error:
                    raise Gone(answer.error)
                self._end = max(self._end or 0, answer.value[0])
            case ("reading", self.topic, int(n)):
                if n == self._asked:  # else it is about what is not wanted any more
                    return list(self._answered(answer))
            case _:
                return None
        return []

    # ------------------------------------------------------------------ where the log does not begin where it should

    def _tag(self) -> tuple[str, str, int]:
        self._asked += 1
        return ("reading", self.topic, self._asked)

    def _follow(self, offset: int) -> Follow:
        return Follow(self.topic, 0, offset, self._tag())

    def _answered(self, answer: Answer) -> Iterator[Effect]:
        match self._doing:
            case _Fetching() as fetching:
                yield from self._fetched(fetching, answer)
            case doing:
                start, end = answer.value
                wanted = self.state.position if doing is None else doing.start
                if end < wanted:
                    raise Gone(
                        f"{self.topic} ends at {end}, and {wanted} was wanted: records are lost. Bring the topic back "
                        "as it was (another replica, a backup); this goes on when it is started again"
                    )
                self._end = max(self._end or 0, end)
                self._doing = _Looking(start, end)
                if start < end:
                    yield self._follow(start)
                else:
                    yield from self._again(self._doing)

    def _look(self, looking: _Looking, record: Record) -> Iterator[Effect]:
        try:
            fact = decode(record.value, (Checkpoint,), record.headers)
        except Malformed:  # most records are other facts
            fact = None
        if fact and looking.start <= fact.offset <= record.offset:
            self._doing = _Fetching(looking, record.offset, fact)
            yield Unfollow(self.topic, 0)
            yield Fetch(self._tag(), self.pieces, fact.places)
        elif record.offset + 1 >= looking.end:
            yield from self._again(looking)

    def _again(self, looking: _Looking) -> Iterator[Effect]:
        """It is read to its end without a checkpoint to begin from; by now it may hold another."""
        self._attempts += 1
        if self._attempts >= ATTEMPTS:
            raise Gone(
                f"{self.topic} begins at {looking.start}, and there is no checkpoint in it to begin from"
                f"{self._why and f' ({self._why})'}: bring back {self.topic} or {self.pieces} from a backup"
            )
        self._doing = None
        yield self._follow(self.state.position)

    def _fetched(self, fetching: _Fetching, answer: Answer) -> Iterator[Effect]:
        looking, fact = fetching.looking, fetching.fact
        try:
            if answer.error:
                raise Malformed(answer.error)
            state = _assemble(fact, answer.value, self._kind)
        except Malformed as e:
            self._why = f"that of offset {fact.offset}, at {fetching.at}: {e}"
            if fetching.at + 1 < looking.end:
                self._doing = looking
                yield self._follow(fetching.at + 1)
            else:
                yield from self._again(looking)
            return
        known_rules(state.ledger, state.rules)
        self.ledger.state, self.ledger.marks = state, {fact.offset: state}
        self.origin, self._doing, self._why = fact.offset, None, ""
        yield self._follow(fact.offset)
        yield from self._jumped()


# ------------------------------------------------------------------ pieces


def pieces(data: bytes, ledger: str, offset: int) -> Iterator[FoldBlock]:
    """What the checkpoints topic carries of the snapshot of a fold."""
    for i, at in enumerate(range(0, len(data), PIECE)):
        yield FoldBlock(ledger, offset, i, memoryview(data)[at : at + PIECE])


def _assemble(fact: Checkpoint, found: Mapping[str, bytes], kind: type[S]) -> S:
    """The state that a checkpoint names, from its pieces. Raises `Malformed`, which says what is not as it was written."""
    parts = []
    for i, place in enumerate(fact.places):
        try:
            piece = decode(found.get(place.key), (FoldBlock,))
        except Malformed as e:
            raise Malformed(f"piece {i} ({place.key}): {e if place.key in found else 'not there'}") from None
        if (piece.offset, piece.block, checksum(piece.data)) != (fact.offset, i, place.checksum):
            raise Malformed(f"piece {i} ({place.key}) is not what was written")
        parts.append(piece.data)
    data = b"".join(parts)
    if checksum(data) != fact.hash:
        raise Malformed("its pieces together do not have its hash")
    state = restore(data, kind)
    if state.position != fact.offset:
        raise Malformed(f"its pieces are the fold of what lies below {state.position}")
    return state
