"""Checkpoints of a ledger: its leader writes the fold beside it, says so on it, and cuts what nobody needs any more.

1. when the fold has passed a multiple of `every` that is later than the last checkpoint, its snapshot goes to the checkpoints
   topic, in pieces at keys never used before;
2. when all pieces are acknowledged, `Checkpoint` is offered; it names the new `cut`, by the rule in `cut_at`;
3. when it is accepted, the ledger is cut there, and the checkpoints topic below the pieces that are still named.

A leader may end between any two of these: its successor begins anew at 1, and cuts again (twice does no harm).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic

from processors.offers import Offers
from schemas.blocks import Place
from schemas.facts import Checkpoint
from schemas.topics import topic
from schemas.wire import checksum
from streams.ledger import MARKS, Globe, Ledger, S, Zone, snapshot
from streams.processor import Cut, Effect, Requests, send
from streams.reading import pieces


@dataclass
class Writing:
    """A fold on its way to its places."""

    offset: int
    hash: int
    places: dict[str, Place] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    fact: Checkpoint | None = None


class Checkpoints(Generic[S]):
    def __init__(self, ledger: Ledger[S], namespace: str, scope: str, requests: Requests, offers: Offers):
        self.ledger: Ledger[S] = ledger
        self.requests, self.offers = requests, offers
        self.topics = topic(namespace, scope, "ledger"), topic(namespace, scope, "checkpoints")
        self.writing: Writing | None = None
        self.written = 0

    def forget(self) -> None:
        """The leadership changed."""
        self.writing = None

    def react(self, token: int, needed: int, now: int) -> Iterator[Effect]:
        """Whatever is due. `needed`: the first offset that someone may still want to read."""
        state = self.ledger.state
        last = state.checkpoints[-1].offset if state.checkpoints else 0
        job = self.writing
        if job and (job.offset <= last or state.position - job.offset >= MARKS * state.every):
            job = self.writing = None  # it is there; or it comes too late
        if job is None:
            newest = max(self.ledger.marks, default=0)
            if newest > last:
                yield from self._write(token, newest)
        elif not job.missing:
            places = tuple(job.places.values())
            job.fact = job.fact or Checkpoint(token, job.offset, job.hash, places, cut_at(state, needed))
            yield from self.offers.make(("checkpoint", job.offset), job.fact, now)

    def _write(self, token: int, offset: int) -> Iterator[Effect]:
        state = self.ledger.marks[offset]
        data = snapshot(state)
        job = self.writing = Writing(offset, checksum(data))
        self.written += 1
        for piece in pieces(data, state.ledger, offset):
            key = f"{token}/{self.written}/{piece.block}"
            job.places[key] = Place(0, 0, key, checksum(piece.data))
            job.missing.add(key)
            yield send(self.topics[1], piece, key, 0, self.requests.new(("piece", key)))

    def heard(self, asked: tuple | None, value: tuple[int, int]) -> bool:
        """Whether an answer was to one of these appends."""
        match asked:
            case ("piece", str(key)):
                if self.writing and key in self.writing.places:
                    self.writing.places[key] = Place(*value, key, self.writing.places[key].checksum)
                    self.writing.missing.discard(key)
                return True
        return False

    def cut(self) -> Iterator[Cut]:
        """Delete what the last accepted checkpoint says nobody needs."""
        state = self.ledger.state
        if state.cut:
            yield Cut(self.topics[0].name, 0, state.cut)
        if state.checkpoints:
            yield Cut(self.topics[1].name, 0, min(p.offset for m in state.checkpoints for p in m.places))


def cut_at(state: Zone | Globe, needed: int) -> int:
    """Where the ledger may be cut when one more checkpoint is accepted: behind the newest one there is, so that afterwards the
    last but one stays, but not above what is needed."""
    return max((m.offset for m in state.checkpoints if m.offset <= needed), default=state.cut)
