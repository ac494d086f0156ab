"""Deleting topics that outlived their task. A task's topics are a zone's number of partitions each, and a broker holds some thousands.

A task's topics in a zone go once it is over there, by the zone's ledger, for as long as its deltas are kept, or for longer if that is
asked for. What that rests on:

- nobody follows them any more, nor ever will: the zone's fold takes no `Opened` and no `Committed` of it (`ZoneTask` is gone, its name
  is in `over` for good), so aggregators left them with `Retired`, no leader asks where they end, and none of their blocks can count;
- their deltas are gone by retention, so `verify` and `explain` lose nothing by it;
- a name is never used again: who submits one that is in the globe's `over` is refused, before its topics are made;
- a leader or an aggregator that was asleep all that time may ask for one, and stops with a word of it, as who lost its session may;
  started again it reads that the task is over;
- an edge that was asleep all that time and still has a delta drops it, and says so in its log (`Send.spare`); a phone that brings one to
  a gateway is told that the topic is not there. A topic that is there or not makes no difference to what counts.

A zone in which the task never opened a round keeps them: its ledger says nothing of it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from olearning.view import View
from schemas.topics import KEPT, task_topics
from streams.kafka import Kafka


@dataclass(frozen=True)
class Outlived:
    """A topic of a task that is over in a zone since `since` (ms since 1970): it is deleted, or would be."""

    topic: str
    zone: str
    task: str
    since: int


def over_before(now: int, age: int) -> int:
    """What is over since before then (ms) is so for `age` (ms), and for no less than deltas are kept."""
    return now - max(age, KEPT)


async def outlived(kafka: Kafka, view: View, age: int, dry: bool = False) -> AsyncIterator[Outlived]:
    """What is deleted, or with `dry` would be, of tasks that are over for `age` (ms), and no less than deltas are kept. `view` has read the
    namespace's ledgers to their ends."""
    until, there = over_before(kafka.clock(), age), await kafka.topics()
    for zone, fold in sorted(view.zones.items()):
        for task, over in sorted(fold.over.items()):
            for t in task_topics(view.namespace, zone, task) if over.time < until else ():
                if t.name in there:
                    if not dry:
                        await kafka.cluster(t.name).remove(t.name)
                    yield Outlived(t.name, zone, task, over.time)
