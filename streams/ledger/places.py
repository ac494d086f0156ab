"""Places and slots of a round: how many there may be, how many are taken, what a device of them moves. Pure questions to a state."""

from functools import lru_cache

from msgspec.structs import replace

from schemas import sets
from schemas.facts import Opened
from schemas.task import Upload
from streams.ledger.states import Round, ZoneTask

MOST_BITS = 2**22
"""Slots × blocks of a round: its bitmap then takes 512 KiB at most."""


def cost(o: Opened, blocks: bytes = sets.WHOLE) -> int:
    """Bytes that a device of the round moves at most which owes these blocks: them to it, and its delta of them back."""
    if not blocks or o.upload is None:
        return o.cost
    return sum(sets.chosen(blocks, _prices(o.sizes, o.upload)))


@lru_cache(maxsize=64)
def _prices(sizes: tuple[int, ...], upload: Upload) -> tuple[int, ...]:
    """The same by block. Each registration has its cost weighed, and each slot's is folded by every reader."""
    return tuple(4 * n + upload.bytes((n,)) for n in sizes)


def most_slots(largest: int, blocks: int, staleness: int = 0, fraction: int = 0) -> int:
    """How many slots a round may ever have: the sum of so many deltas of each round that may count here, each value at most
    `largest` units and weighed in multiples of 2^-fraction, fits 64 bits, and the bitmaps of all these slots a record."""
    return min((2**63 - 1) // (largest << fraction), MOST_BITS // blocks) // (staleness + 1)


def slots_of(o: Opened) -> int:
    """The same for a round as it was opened."""
    return most_slots(o.largest, len(o.sizes), o.staleness, o.fraction)


def places_taken(t: ZoneTask) -> int:
    """How many of a task's places are taken: by the round's cohort for its whole length; in an asynchronous task by every
    device at work for a round whose delta could still count."""
    r = t.rounds[t.round]
    assert r.opened
    if not r.opened.refill:
        return len(r.devices) - len(r.lapsed | r.voided if r.voided else r.lapsed)
    return _busy(t)


def at_work(t: ZoneTask) -> int:
    """How many devices hold a slot of the task, and are neither done nor given up."""
    return _busy(t) if has_devices(t) else 0


def has_devices(t: ZoneTask) -> bool:
    """Whether devices may be at work for it: in an open round; between two rounds of an asynchronous task, too."""
    r = t.rounds.get(t.round)
    return t.state == "open" or bool(r and r.opened and r.opened.refill)


def _busy(t: ZoneTask) -> int:
    return sum(len(r.devices) - len(r.done | r.lapsed | r.voided) for r in working(t))


def filled(t: ZoneTask) -> ZoneTask:
    """Free places are given from when `refill` of them are free until all are taken."""
    r = t.rounds.get(t.round)
    if r is None or r.opened is None or not r.opened.refill:
        return t if t.filling else replace(t, filling=True)
    free = r.opened.places - places_taken(t)
    filling = free > 0 and (t.filling or free >= r.opened.refill)
    return t if filling == t.filling else replace(t, filling=filling)


def working(t: ZoneTask) -> list[Round]:
    """The rounds whose devices' deltas could still count in the present one: it alone, but in an asynchronous task."""
    r = t.rounds[t.round]
    if r.opened is None or not r.opened.refill:
        return [r]
    return [x for n, x in sorted(t.rounds.items()) if t.round - r.opened.staleness <= n <= t.round]
