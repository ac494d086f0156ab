"""What devices were offered whenever one of them bid, read off the zones' ledgers and registrations; and how much a part of the reward
had to say in it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from experiments.watched import NAMESPACE, Rounds
from learning.rewards import boosted, zone_reward
from schemas.facts import Worth
from schemas.messages import Registration
from schemas.topics import read, topic
from streams.processor import Effect, Follow, Input, Record


@dataclass(frozen=True)
class Bid:
    """A device of a zone registered for a task. `offers`: by task what the round is worth that was open there."""

    zone: str
    task: str
    offers: Mapping[str, Worth]

    def best(self, zones: int, without: Collection[str] = ()) -> str:
        """The task whose round is announced with the highest reward, by what it would be without some parts of it; the first by name of
        equals. `zones`: how many a task has."""

        def worth(task: str) -> float:
            w = self.offers[task]
            share = 1 / zones if "contribution" in without else w.contribution
            announced = zone_reward(share, 1.0 if "progress" in without else w.progress)
            return announced if "boost" in without else boosted(announced, w.starved)

        return max(sorted(self.offers), key=worth)


class Bids(Rounds):
    """Notes every bid, in `bids`, and every round, in `done`. `partitions` of registrations, each."""

    name = "bids"

    def __init__(self, zones: Sequence[str], partitions: int):
        super().__init__(zones)
        self.partitions = partitions
        self.registered = {topic(NAMESPACE, zone, "registrations").name: zone for zone in zones}
        self.bids: list[Bid] = []

    def start(self, now: int) -> Iterator[Effect]:
        yield from super().start(now)
        yield from (Follow(name, p, 0) for name in self.registered for p in range(self.partitions))

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if not (isinstance(event, Record) and event.topic in self.registered):
            yield from super().handle(event, now)
            return
        wish, zone = read(event.topic, event.value, event.headers), self.registered[event.topic]
        if isinstance(wish, Registration):
            self.bids.append(Bid(zone, wish.task, self._open(zone)))

    def _open(self, zone: str) -> dict[str, Worth]:
        tasks = self.readings[zone].state.tasks
        opened = {task: t.rounds[t.round].opened for task, t in tasks.items() if t.state == "open"}
        return {task: o.worth for task, o in opened.items() if o}


def changed(bids: Sequence[Bid], zones: int, without: Collection[str]) -> float:
    """The share of the bids with a choice, in which the best offer would be another without these parts; 0 if there are none."""
    chosen = [b.best(zones) != b.best(zones, without) for b in bids if len(b.offers) > 1]
    return sum(chosen) / len(chosen) if chosen else 0.0
