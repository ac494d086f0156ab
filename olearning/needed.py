"""Which versions of models a namespace still needs: those that its ledgers name."""

from collections.abc import Iterable, Iterator, Mapping

from schemas.blocks import Manifest, Place
from schemas.topics import GLOBAL, Topic
from streams.ledger import GlobalOver, Globe, Zone
from streams.models import beside


def manifests(globe: Globe, zones: Iterable[Zone]) -> Iterator[Manifest]:
    """All that the folds name of tasks that are not over: what they have come to, what zones are to be merged, what open rounds begin
    from."""
    for g in globe.tasks.values():
        yield from filter(None, (g.manifest, g.optimiser, *(u.manifest for u in g.updates.values())))
    for zone in zones:
        for t in zone.tasks.values():
            yield from filter(None, (t.manifest, t.optimiser, *(r.opened.base for r in t.rounds.values() if r.opened)))


def places(topic: Topic, named: Iterable[Manifest], over: Iterable[GlobalOver]) -> Iterator[Place]:
    """Where in a topic of models these versions lie, and the differences beside them; and where what came of these tasks begins, which are
    over in the globe."""
    for m in named:
        if m.topic == topic.name:
            yield from m.blocks
            yield from filter(None, (beside(m, i) for i in range(len(m.blocks))))
    for x in over if topic.zone == GLOBAL else ():
        yield from (Place(p, offset, x.model.key, 0) for p, offset in x.model.starts)


def first(places: Iterable[Place]) -> Mapping[int, Place]:
    """By partition, the first of them."""
    found: dict[int, Place] = {}
    for place in places:
        if place.partition not in found or place.offset < found[place.partition].offset:
            found[place.partition] = place
    return found
