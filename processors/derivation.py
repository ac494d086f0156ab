"""The derivation processor (ECLM §5.1): answers devices' profiles with the modules that they are to fetch.

An answer follows from the profile and the task's structure, which the global ledger has; so nothing is decided here, and nothing has to
be kept. The group over `<zone>.profiles` shares its partitions. An answer goes to the partition with the same number and says below which
profile all answers have landed: there the next holder begins, whatever became of the one before. So no profile stays without
an answer, and one that is answered twice is answered alike.

The solver is handed in (`Deriving`): processors know none.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from learning.modular.derivation import DoesNotFit, Importance, Limits
from processors.devices import heard
from schemas.modules import FRACTION, Choice, Profile, Structure, Submodel
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed
from streams.ledger import Globe
from streams.letters import dead_letter
from streams.processor import (
    Answer,
    Assigned,
    Effect,
    Ends,
    Follow,
    Input,
    Membership,
    Pause,
    Record,
    Requests,
    Resume,
    Stop,
    Unfollow,
    send,
)
from streams.reading import WRONG, Reading

FULL = 1_000
"""Profiles of a partition that wait in memory at most, for word of their task."""
AHEAD = 8
"""So many answers of a partition may be on their way to the log: who takes over answers them again at most."""
NEVER = 2**62
KEPT = 64
"""Tasks and sizes of batch whose answers are kept at most; what was used for longest ago goes first."""


class Derive(Protocol):
    """Derives the sub-models of one structure and size of batch. Raises `DoesNotFit`, or `ValueError` for what cannot be."""

    def __call__(self, importance: Importance, limits: Limits) -> Choice: ...


Deriving = Callable[[Structure, int], Derive]
"""What makes one: `learning.modular.derivation.Derivation`, or another solver's."""


@dataclass
class Part:
    """A partition of the profiles."""

    next: int | None = None
    """The profile to answer next; None while the last answer is looked for, in the answers below `end`."""
    end: int = 0
    waiting: deque[tuple[int, Profile]] = field(default_factory=deque)
    """Profiles by their offsets."""
    landing: dict[int, None] = field(default_factory=dict)
    """Profiles whose answers are sent and not yet in the log, ascending."""
    sure: tuple[int, int] = (0, 0)
    """Of profiles below the first, the task is there or is not, once the global ledger is read to the second."""
    paused: bool = False

    @property
    def below(self) -> int:
        """All profiles below this are answered for good."""
        return next(iter(self.landing), self.next or 0)


class Deriver:
    tick = 1_000

    def __init__(self, namespace: str, zone: str, name: str, deriving: Deriving):
        self.namespace, self.zone, self.name, self.deriving = namespace, zone, name, deriving
        self.profiles, self.submodels = topic(namespace, zone, "profiles"), topic(namespace, zone, "submodels")
        self.membership: Membership | None = Membership(f"{namespace}.{zone}.modules", self.profiles.name)
        self.reading = Reading(namespace, GLOBAL, Globe())
        self.requests = Requests()
        self.parts: dict[int, Part] = {}
        self.known: dict[tuple[str, int], Derive] = {}
        """By task and size of batch; what was used last is at the end."""

    def start(self, now: int) -> Iterator[Effect]:
        return self.reading.start()

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            yield from self._handle(event)
        except WRONG as e:
            yield Stop(str(e))

    def _handle(self, event: Input) -> Iterator[Effect]:
        match event:
            case Record(topic=self.profiles.name):
                yield from self._profile(event)
            case Record(topic=self.submodels.name):
                yield from self._last(event)
            case Record():
                yield from self.reading.record(event)
                yield from self._all()
            case Assigned(seats):
                yield from self._assigned(seats)
            case Answer() if (effects := self.reading.answer(event)) is not None:
                yield from effects
            case Answer(tag=("profiles", int(p)), value=(int(start), int(end))):
                yield from self._gone(p, start, end)
            case Answer(tag=("answers", int(p)), value=(int(start), int(end))):
                yield from self._look(p, start, end)
            case Answer(error=error) if error:
                yield Stop(f"{self.name}: {error}")
            case Answer(tag, value):
                match self.requests.close(tag):
                    case ("answers", frozenset() as seats):
                        for p in sorted(seats & self.parts.keys()):
                            yield from self._look(p, 0, value[p])
                    case ("ledger", int(p), int(below)) if p in self.parts:
                        self.parts[p].sure = below, value[0]
                        yield from self._answers(p, self.parts[p])
                    case ("landed", int(p), int(at)) if p in self.parts:
                        self.parts[p].landing.pop(at, None)
                        yield from self._answers(p, self.parts[p])

    # ------------------------------------------------------------------ which profiles are its own

    def _assigned(self, seats: frozenset[int]) -> Iterator[Effect]:
        for p in sorted(self.parts.keys() - seats):
            del self.parts[p]
            yield Unfollow(self.profiles.name, p)
            yield Unfollow(self.submodels.name, p)
        if new := frozenset(seats - self.parts.keys()):
            self.parts |= {p: Part() for p in sorted(new)}
            yield Ends(self.requests.new(("answers", new)), self.submodels.name)

    def _look(self, p: int, start: int, end: int) -> Iterator[Effect]:
        """Where to begin: behind the last answer that is there."""
        part = self.parts.get(p)
        if part is None or part.next is not None:
            return
        part.end = end
        if end > start:
            yield Follow(self.submodels.name, p, end - 1, ("answers", p))
        else:
            yield from self._begin(p, part, 0)

    def _last(self, record: Record) -> Iterator[Effect]:
        part = self.parts.get(record.partition)
        if part is None or part.next is not None or record.offset + 1 < part.end:
            return
        try:
            answer = read(record.topic, record.value, record.headers)
            assert isinstance(answer, Submodel)
            at = answer.below
        except Malformed as e:  # not ours: all that is still there is answered again
            yield dead_letter(self.namespace, record, str(e), self.name)
            at = 0
        yield Unfollow(self.submodels.name, record.partition)
        yield from self._begin(record.partition, part, at)

    def _begin(self, p: int, part: Part, at: int) -> Iterator[Effect]:
        part.next = at
        yield Resume(self.profiles.name, p)
        yield Follow(self.profiles.name, p, at, ("profiles", p))

    def _gone(self, p: int, start: int, end: int) -> Iterator[Effect]:
        """Profiles are not kept for long: their devices have asked again since."""
        if part := self.parts.get(p):
            part.waiting.clear()
            yield from self._begin(p, part, min(max(start, part.next or 0), end))

    # ------------------------------------------------------------------ answering

    def _profile(self, record: Record) -> Iterator[Effect]:
        part = self.parts.get(record.partition)
        if part is None or part.next is None:
            return
        try:
            part.waiting.append((record.offset, heard(record, Profile)))
        except Malformed as e:
            yield dead_letter(self.namespace, record, str(e), self.name)
        yield from self._answers(record.partition, part)

    def _all(self) -> Iterator[Effect]:
        for p, part in self.parts.items():
            if part.waiting:
                yield from self._answers(p, part)

    def _answers(self, p: int, part: Part) -> Iterator[Effect]:
        """Answer what waits, in its order, as far as it is known which tasks there are."""
        while part.waiting and len(part.landing) < AHEAD:
            at, profile = part.waiting[0]
            if not self.reading.state.knows(profile.task) and not self._sure(part, at):
                below = part.waiting[-1][0] + 1
                if part.sure[0] <= at and not self.requests.asked(("ledger", p, below)):
                    part.sure = below, NEVER
                    yield Ends(self.requests.new(("ledger", p, below)), self.reading.topic)
                break
            part.waiting.popleft()
            answer = self._answer(profile, at, part.below if part.landing else at)
            part.next = at + 1
            part.landing[at] = None
            yield send(self.submodels, answer, answer.device, p, self.requests.new(("landed", p, at)))
        if part.paused != (len(part.waiting) >= FULL):
            part.paused = not part.paused
            yield (Pause if part.paused else Resume)(self.profiles.name, p)

    def _sure(self, part: Part, at: int) -> bool:
        """Whether the global ledger is read beyond all that it held when the profile at this offset came."""
        below, until = part.sure
        return at < below and self.reading.state.position >= until

    def _answer(self, profile: Profile, at: int, below: int) -> Submodel:
        answer = Submodel(profile.device, profile.task, profile.asked, at, below)
        globe = self.reading.state
        t = globe.tasks.get(profile.task)
        if t is None or t.structure is None:
            what = "is over" if profile.task in globe.over else "is not there" if t is None else "is not modular"
            return replace(answer, why=f"task {profile.task} {what}")
        importance = [[share / 2**FRACTION for share in layer] for layer in profile.importance]
        try:
            derive = self._derive(profile.task, t.structure, profile.batch)
            return replace(answer, choice=derive(importance, Limits(profile.bytes, profile.memory, profile.macs)))
        except (DoesNotFit, ValueError) as e:
            return replace(answer, why=str(e))

    def _derive(self, task: str, structure: Structure, batch: int) -> Derive:
        found = self.known.pop((task, batch), None) or self.deriving(structure, batch)
        self.known[task, batch] = found
        if len(self.known) > KEPT:
            del self.known[next(iter(self.known))]
        return found
