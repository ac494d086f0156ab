"""The device registry (OLearning §4.1: the Configurator's "device management"): how many devices each zone has, from their check-ins.

Devices are pseudonyms, another one in every zone, so nobody can follow one. A device that moves says goodbye where it was and checks
in where it is; one that is not heard of for a day is forgotten. It is what was seen, no decision: whoever leads reads the check-ins
again, as far as they are kept.
"""

from collections.abc import Iterator

from schemas.messages import CheckIn, Presence, RegistryReport
from schemas.topics import DAY, GLOBAL, parse, read, topic
from schemas.wire import Malformed
from streams.letters import dead_letter
from streams.processor import Effect, Follow, Record, Send, Unfollow, send

EVERY = 5_000
"""ms between two reports, if something changed."""


class Registry:
    """`zones` with their numbers of partitions are followed from `begin` on."""

    def __init__(self, namespace: str, name: str):
        self.namespace, self.name = namespace, name
        self.metrics = topic(namespace, GLOBAL, "metrics")
        self.partitions: dict[str, int] = {}
        """By zone that is followed."""
        self.seen: dict[str, dict[str, int]] = {}
        """By zone and device, when it was heard of last (ms)."""
        self.moved: dict[str, tuple[int, int]] = {}
        """By zone, how many devices checked in that were not there, and how many said goodbye."""
        self.said: tuple[int, RegistryReport | None] = (0, None)

    def follow(self, zone: str, partitions: int) -> Iterator[Effect]:
        """Read a zone's check-ins."""
        if zone not in self.seen:
            self.partitions[zone], self.seen[zone], self.moved[zone] = partitions, {}, (0, 0)
            name = topic(self.namespace, zone, "checkins").name
            yield from (Follow(name, p, 0, ("checkins", name, p)) for p in range(partitions))

    def end(self) -> Iterator[Effect]:
        """Somebody else leads: forget all, since who does not report forgets nobody."""
        for zone, partitions in self.partitions.items():
            yield from (Unfollow(topic(self.namespace, zone, "checkins").name, p) for p in range(partitions))
        self.partitions, self.seen, self.moved, self.said = {}, {}, {}, (0, None)

    def skip(self, name: str, p: int, log: tuple[int, int]) -> Iterator[Effect]:
        """What came before is not kept any more."""
        if parse(name).zone in self.seen:
            yield Follow(name, p, log[0], ("checkins", name, p))

    def checkin(self, record: Record) -> Iterator[Effect]:
        zone = parse(record.topic).zone
        if zone not in self.seen:
            return  # it was under way when this one's leadership ended
        try:
            message = read(record.topic, record.value, record.headers)
            assert isinstance(message, CheckIn)
            if record.key != message.device:
                raise Malformed(f"the key is not the device's ({message.device})")
        except Malformed as e:
            yield dead_letter(self.namespace, record, str(e), self.name)
            return
        here, (came, left) = self.seen[zone], self.moved[zone]
        if message.gone:
            if here.pop(message.device, None) is not None:
                self.moved[zone] = came, left + 1
        else:
            if message.device not in here:
                self.moved[zone] = came + 1, left
            here[message.device] = max(record.timestamp, here.get(message.device, 0))

    def report(self, now: int) -> Iterator[Send]:
        """How things stand, if that changed since it was said last."""
        at, last = self.said
        if now - at < EVERY:
            return
        for here in self.seen.values():
            for device in [d for d, heard in here.items() if heard < now - DAY]:
                del here[device]
        zones = {z: Presence(len(here), *self.moved[z]) for z, here in self.seen.items()}
        if last is None or zones != last.zones:
            last = RegistryReport(self.name, now, zones)
            yield send(self.metrics, last, self.name)
        self.said = now, last
