"""Deleting versions of models that nobody needs any more. On Kafka no log of models ends by itself: a version is needed as long as a
ledger names it, however old it is.

Deleted is, of each partition of `global.models` and of every zone's, what lies below the first block that a ledger names and is
older than it was said. Younger versions stay, named or not: a leader may be about to name them, and a device to fetch them. The
broker's clock says how old they are.

What came of a task that is over stays with the rest, for good or for as long as it is said.

A result that the globe has not taken yet is named by a fact which the fold has passed. If it is as old as half that time, nothing of
its zone is deleted.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from olearning.needed import first, manifests, places
from olearning.view import View
from processors.desk import untaken
from schemas.topics import GLOBAL, topic
from streams.kafka import Kafka


@dataclass(frozen=True)
class Pruned:
    """A partition of a log of models: it begins at `start` and ends before `end`; below `cut` it is deleted, or would be.

    `held` says what keeps the rest, or ""; with `cut` at `start` nothing is deleted.
    """

    topic: str
    partition: int
    start: int
    cut: int
    end: int
    held: str


async def prune(
    kafka: Kafka, view: View, age: int, dry: bool = False, ended: int | None = None
) -> AsyncIterator[Pruned]:
    """What is deleted, or with `dry` would be, of versions older than `age` (ms). `view` has read the namespace's ledgers to their ends,
    and has done so just now. `ended`: what came of tasks that are over for so long (ms) is needed no more; None: of all it is."""
    now, namespace = kafka.clock(), view.namespace
    named = list(manifests(view.globe, view.zones.values()))
    over = [x for x in view.globe.over.values() if ended is None or x.time >= now - ended]
    for scope in (GLOBAL, *sorted(view.zones)):
        models = topic(namespace, scope, "models")
        name = models.name
        waits = "" if scope == GLOBAL else await _waits(kafka, view, scope, now - age // 2)
        log, needed = kafka.cluster(name), first(places(models, named, over))
        starts, young = await log.starts(name), await log.since(name, now - age)
        for p, start in sorted(starts.items()):
            cut, end = young[p]
            held = "" if cut == end else "what follows is younger"
            if p in needed and needed[p].offset < cut:
                task, version, _ = needed[p].key.split("/", 2)
                cut, held = needed[p].offset, f"a ledger names version {version} of {task}"
            if waits:
                cut, held = start, waits
            cut = max(cut, start)
            if cut > start and not dry:
                await log.cut(name, p, cut)
            yield Pruned(name, p, start, cut, end, held)


async def _waits(kafka: Kafka, view: View, zone: str, since: int) -> str:
    """Whose result has waited for the globe since before then, in words, or ""."""
    waiting = untaken(zone, view.zones[zone], view.globe)
    ledger = topic(view.namespace, zone, "ledger").name
    young, _ = (await kafka.cluster(ledger).since(ledger, since))[0] if waiting else (0, 0)
    return next((f"the globe has not taken {t}'s results" for t, at in sorted(waiting.items()) if at < young), "")
