"""The device registry (OLearning §4.1: the Configurator's "device management"): how many devices each zone has, and for which tasks,
from their check-ins.

Devices are pseudonyms, another one in every zone, so nobody can follow one. A device that moves says goodbye where it was and checks
in where it is; one that is not heard of for a day is forgotten. It is what was seen, no decision: whoever leads reads the check-ins
again, as far as they are kept.
"""

from collections.abc import Iterator, Mapping

from processors.devices import Devices, heard, met_by_none
from schemas.messages import CheckIn, Eligible, Presence, RegistryReport
from schemas.sharing import Bounds
from schemas.topics import DAY, GLOBAL, parse, topic
from schemas.wire import Malformed
from streams.ledger import GlobalTask
from streams.letters import dead_letter
from streams.processor import Effect, Ends, Follow, Record, Send, Unfollow, send

EVERY = 5_000
"""ms between two reports, if something changed."""
REPEAT = 600_000
"""After so many ms it is said again though nothing changed: metrics are not kept for ever."""


class Registry:
    """`zones` with their numbers of partitions are followed from `begin` on."""

    def __init__(self, namespace: str, name: str):
        self.namespace, self.name = namespace, name
        self.metrics = topic(namespace, GLOBAL, "metrics")
        self.partitions: dict[str, int] = {}
        """By zone that is followed."""
        self.seen: dict[str, Devices] = {}
        """By zone."""
        self.read: dict[str, dict[int, int]] = {}
        """By zone and partition, the next check-in."""
        self.ends: dict[str, dict[int, int]] = {}
        """By zone, where its check-ins ended when they were begun with."""
        self.moved: dict[str, tuple[int, int]] = {}
        """By zone, how many devices checked in that were not there, and how many said goodbye."""
        self.said: tuple[int, RegistryReport | None] = (0, None)

    def follow(self, zone: str, partitions: int) -> Iterator[Effect]:
        """Read a zone's check-ins."""
        if zone not in self.seen:
            self.partitions[zone], self.seen[zone], self.moved[zone] = partitions, Devices(), (0, 0)
            self.read[zone] = {}
            name = topic(self.namespace, zone, "checkins").name
            yield from (Follow(name, p, 0, ("checkins", name, p)) for p in range(partitions))
            yield Ends(("checkins end", name), name)

    def end(self) -> Iterator[Effect]:
        """Somebody else leads: forget all, since who does not report forgets nobody."""
        for zone, partitions in self.partitions.items():
            yield from (Unfollow(topic(self.namespace, zone, "checkins").name, p) for p in range(partitions))
        self.partitions, self.seen, self.moved, self.said = {}, {}, {}, (0, None)
        self.read, self.ends = {}, {}

    def skip(self, name: str, p: int, log: tuple[int, int]) -> Iterator[Effect]:
        """What came before is not kept any more."""
        if (zone := parse(name).zone) in self.seen:
            self.read[zone][p] = log[0]
            yield Follow(name, p, log[0], ("checkins", name, p))

    def ended(self, name: str, ends: dict[int, int]) -> None:
        """Where a zone's check-ins ended just now."""
        if (zone := parse(name).zone) in self.seen:
            self.ends[zone] = ends

    def checkin(self, record: Record) -> Iterator[Effect]:
        zone = parse(record.topic).zone
        if zone not in self.seen:
            return  # it was under way when this one's leadership ended
        self.read[zone][record.partition] = record.offset + 1
        try:
            message = heard(record, CheckIn)
        except Malformed as e:
            yield dead_letter(self.namespace, record, str(e), self.name)
            return
        here, (came, left) = self.seen[zone], self.moved[zone]
        if message.gone:
            self.moved[zone] = came, left + here.drop(message.device)
        else:
            self.moved[zone] = came + here.hear(message.device, message.abilities, record.timestamp), left

    def never(self, zones: tuple[str, ...], needs: Bounds) -> str | None:
        """Why no device seen in these zones can do a task with these needs, or ""; None: not all is read that was there."""
        if not needs:
            return ""
        if not all(self._read(z) for z in zones):
            return None
        return met_by_none({z: self.seen[z] for z in zones}, needs)

    def _read(self, zone: str) -> bool:
        done = self.read.get(zone, {})
        return zone in self.ends and all(done.get(p, 0) >= end for p, end in self.ends[zone].items())

    def report(self, now: int, tasks: Mapping[str, GlobalTask]) -> Iterator[Send]:
        """How things stand, if that changed since it was said last; of a zone not before all is read that was there when this one began
        to lead."""
        at, last = self.said
        known = [z for z in self.seen if self._read(z)]
        if now - at < EVERY or not known:
            return
        for here in self.seen.values():
            here.forget(now - DAY)
        zones = {z: self._presence(z, tasks) for z in known}
        if last is None or zones != last.zones or now - last.at >= REPEAT:
            last = RegistryReport(self.name, now, zones)
            yield send(self.metrics, last, self.name)
        self.said = now, last

    def _presence(self, zone: str, tasks: Mapping[str, GlobalTask]) -> Presence:
        here, found = self.seen[zone], dict[tuple, Eligible]()
        out: dict[str, Eligible] = {}
        for task, t in tasks.items():
            if zone in t.zones and (bounds := t.spec.needs.public):
                key = tuple(sorted(bounds.items()))
                if key not in found:
                    found[key] = Eligible(int(here.able(bounds).sum()), here.below(bounds))
                out[task] = found[key]
        return Presence(len(here), *self.moved[zone], out)
