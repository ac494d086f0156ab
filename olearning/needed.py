"""Which versions of models a namespace still needs: those that its ledgers name."""

from collections.abc import Iterable, Iterator, Mapping

from schemas.blocks import Manifest, Place
from streams.ledger import Globe, Zone
from streams.models import beside


def manifests(globe: Globe, zones: Iterable[Zone]) -> Iterator[Manifest]:
    """All that the folds name: what tasks have come to, what zones are to be merged, what open rounds begin from. Of a task that is over
    in a zone nothing is needed there; what came of it is the globe's."""
    for g in globe.tasks.values():
        yield from filter(None, (g.manifest, g.optimiser, *(u.manifest for u in g.updates.values())))
    for zone in zones:
        for t in zone.tasks.values():
            if not t.retired:
                yield from filter(
                    None, (t.manifest, t.optimiser, *(r.opened.base for r in t.rounds.values() if r.opened))
                )


def places(topic: str, named: Iterable[Manifest]) -> Iterator[Place]:
    """Where in a topic these versions lie, and the differences beside them."""
    for m in named:
        if m.topic == topic:
            yield from m.blocks
            yield from filter(None, (beside(m, i) for i in range(len(m.blocks))))


def first(places: Iterable[Place]) -> Mapping[int, Place]:
    """By partition, the first of them."""
    found: dict[int, Place] = {}
    for place in places:
        if place.partition not in found or place.offset < found[place.partition].offset:
            found[place.partition] = place
    return found
