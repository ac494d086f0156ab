"""What happened in a simulation, round by round, read off its zones' ledgers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from device_sim.fleet import Manner
from device_sim.pseudonym import pseudonym
from experiments.asked import Epoch
from schemas.facts import Closed, Finalised, Opened
from streams.ledger import Zone
from streams.processor import Answer, Effect, Input, Membership, Record
from streams.reading import Reading

NAMESPACE = "sim"
"""A simulation's."""


@dataclass(frozen=True)
class Round:
    """A round that is over. `opened`, `closed`: virtual ms; by pseudonym who was `admitted`, and whose delta `counted`, with how many
    `samples` together; `progress`, eq. 2, as it was announced."""

    zone: str
    task: str
    epoch: int
    opened: int
    closed: int
    reward: float
    demand: int
    admitted: tuple[str, ...]
    counted: tuple[str, ...]
    samples: int = 0
    progress: float = 1.0

    @property
    def took(self) -> int:
        """ms until it was collected."""
        return self.closed - self.opened

    @property
    def wasted(self) -> int:
        """Slots that gave no counted delta."""
        return len(self.admitted) - len(self.counted)

    @property
    def starved(self) -> bool:
        """Fewer devices came than were wanted."""
        return len(self.admitted) < self.demand


class Rounds:
    """Notes every round that these zones finish, in `done`."""

    name = "rounds"
    membership: Membership | None = None
    tick = 1_000

    def __init__(self, zones: Sequence[str]):
        readings = (Reading(NAMESPACE, zone, Zone()) for zone in zones)
        self.readings = dict(zip(zones, readings, strict=True))
        self.zone_of = {r.topic: zone for zone, r in self.readings.items()}
        self.times: dict[tuple[str, str], list[int]] = {}
        """By zone and task, when its last round was opened, and closed."""
        self.done: list[Round] = []

    def start(self, now: int) -> Iterator[Effect]:
        for reading in self.readings.values():
            yield from reading.start()

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                zone = self.zone_of[event.topic]
                got = yield from self.readings[zone].record(event)
                if got and not got[1]:
                    self._note(zone, got[0], event.timestamp)
            case Answer():
                for reading in self.readings.values():
                    yield from reading.answer(event) or ()

    def _note(self, zone: str, fact: object, at: int) -> None:
        match fact:
            case Opened():
                self.times[zone, fact.task] = [at]
            case Closed():
                self.times[zone, fact.task].append(at)
            case Finalised():
                r = self.readings[zone].state.tasks[fact.task].rounds[fact.round]
                assert r.opened
                opened, closed = self.times[zone, fact.task]
                counted = tuple(r.devices[slot] for slot in sorted(r.done))
                o = r.opened
                done = Round(
                    zone=zone,
                    task=fact.task,
                    epoch=o.epoch,
                    opened=opened,
                    closed=closed,
                    reward=o.worth.reward,
                    demand=o.demand,
                    admitted=r.devices,
                    counted=counted,
                    samples=fact.samples,
                    progress=o.worth.progress,
                )
                self.done.append(done)


def names(devices: Mapping[str, Sequence[str]], zone: str, tenant: str = "default") -> dict[str, str]:
    """By its pseudonym in a zone, the place where each device lives. `devices`: by place their IDs."""
    salt = Manner().salt
    return {pseudonym(d, zone, tenant, salt): place for place, ids in devices.items() for d in ids}


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness (Jain, Chiu, Hawe 1984): (Σx)² / (n Σx²), 1 if all have the same, 1/n if one has all."""
    squares = sum(x * x for x in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def scores(epochs: Iterable[Epoch], day_s: float) -> list[tuple[float, float]]:
    """When each of these epochs was merged, in days, and its accuracy."""
    return [(round(e.at / day_s / 1000, 3), round(e.accuracy or 0.0, 4)) for e in epochs]


def accuracy_at(points: Sequence[Sequence[float]], day: float) -> float:
    """Of the last global model by then, as `scores` has them."""
    return [a for at, a in points if at <= day][-1]
