"""A round as one trace: from its announcement by registration, admission and delta to the commits and the result.

Which trace and which step is computed (`schemas/tracing.py`), so roles need no memory of it. `Traced` stands around a processor: it reads
what comes, puts `traceparent` into the headers of what goes, and ends spans whose beginning it saw. Processors know nothing of it, and
without it nothing is done or sent.

| span | by | from – to | parent |
|---|---|---|---|
| round | the zone's leader | `Opened` – `Finalised` | – |
| gather, finalise | the zone's leader | `Opened` – `Closed` – `Finalised` | round |
| register | the edge (a fleet, a gateway) | the announcement – the registration | round |
| admit | the zone's leader | the registration – the admission | register |
| deliver | the edge | the admission – the delta's last block | admit |
| commit | the aggregator | offered – accepted, or refused | round; linked to the deltas that are whole with it |
"""

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from olearning.telemetry.own import Own
from olearning.telemetry.spans import Span, Spans, about
from processors.aggregator import Aggregator
from processors.zone import ZoneCoordinator
from schemas import sets, tracing
from schemas.blocks import DeltaBlock
from schemas.facts import ZONE_FACTS, Closed, Committed, Finalised, Opened
from schemas.messages import Admission, Announcement, Registration
from schemas.topics import parse, read
from schemas.tracing import ADMIT, COMMIT, DELIVER, FINALISE, GATHER, REGISTER, ROUND, Step, step, trace_parent
from schemas.wire import Malformed, Message, decode
from streams.ledger import leads
from streams.processor import Effect, Input, Processor, Record, Send

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
STEPS = ("zone", "aggregator", "fleet", "gateway")
"""The kinds of roles that take steps of a round."""
MOST_LINKS = 128
KEPT, MOST = 64, 200_000
"""Rounds of a task that are remembered, and steps that began, of all."""
log = logging.getLogger(__name__)
Key = tuple[str, str, int, str]
"""Zone, task, round, and who."""


class Traced:
    """A processor, and the steps of rounds that it takes part in."""

    def __init__(self, inner: Processor, spans: Spans):
        self.inner, self.spans = inner, spans
        self.name, self.membership, self.tick = inner.name, inner.membership, inner.tick
        self.ledgers: dict[tuple[str, str], tuple[str, int]] = {}
        """Of a fleet: by zone and task, the zone's ledger and the number of the task's blocks."""
        self.since: dict[Key, tuple[int, Step | None]] = {}
        """When (ms) a step began, and what it said of what it comes from."""
        self.last: dict[Key, int] = {}
        """Of slots that owe a part of the model: the last block that they send."""
        if isinstance(inner, ZoneCoordinator):
            inner.reading.listeners.append(lambda *heard: self._leader(inner, *heard))
        elif isinstance(inner, Aggregator):
            own = Own(inner)
            inner.reading.listeners.append(lambda *heard: self._verdict(inner, own, *heard))

    def start(self, now: int) -> Iterable[Effect]:
        return self._marked(self.inner.start(now), now)

    def handle(self, event: Input, now: int) -> Iterable[Effect]:
        if isinstance(event, Record):
            self._heard(event)
        return self._marked(self.inner.handle(event, now), now)

    def _marked(self, effects: Iterable[Effect], now: int) -> Iterator[Effect]:
        for effect in effects:
            yield self._sent(effect, now) if isinstance(effect, Send) else effect

    @property
    def ledger(self) -> str:
        """Of a zone's role: the ledger's ID."""
        p = self.inner
        return p.zone.ledger if isinstance(p, ZoneCoordinator | Aggregator) else ""

    # ------------------------------------------------------------------ what comes

    def _heard(self, record: Record) -> None:
        """Note when what begins a step came."""
        t = parse(record.topic)
        leader, what = isinstance(self.inner, ZoneCoordinator), t.kind.what
        if what not in (("registrations",) if leader else ("announcements", "admissions")):
            return
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed:
            return  # the processor says so
        said = record.timestamp, tracing.parent(record.headers)
        match message:
            case Registration():
                self._note((t.zone, message.task, message.round, message.device), said)
            case Announcement(over=True):
                self.ledgers.pop((t.zone, message.task), None)
                self._forget(t.zone, message.task, message.round + KEPT)
            case Announcement():
                key = t.zone, message.task, message.round, ""
                first = key not in self.since
                self.ledgers[key[:2]] = message.cause.ledger, len(message.sizes)
                self._note(key, said)
                if first:  # it is said again every few seconds
                    self._forget(t.zone, message.task, message.round)
            case Admission():
                key = t.zone, message.task, message.round, str(message.slot)
                self._note(key, said)
                known = self.ledgers.get(key[:2])
                if message.blocks and known and not sets.flaw(message.blocks, known[1]):
                    self.last[key] = sets.members(message.blocks, known[1])[-1]

    def _note(self, key: Key, said: tuple[int, Step | None]) -> None:
        """When a step began, the first time that is said. Of what never ends the oldest is forgotten: strangers may say much."""
        self.since.setdefault(key, said)
        if len(self.since) > MOST:
            oldest = next(iter(self.since))
            del self.since[oldest]
            self.last.pop(oldest, None)

    def _forget(self, zone: str, task: str, round: int) -> None:
        for kept in (self.since, self.last):
            for key in [k for k in kept if k[:2] == (zone, task) and k[2] <= round - KEPT]:
                del kept[key]

    # ------------------------------------------------------------------ what goes

    def _sent(self, send: Send, now: int) -> Send:
        """The same with the header of the step it comes of, which may be over with it."""
        t = parse(send.topic)
        match t.kind.what:
            case "announcements" | "registrations" | "admissions" | "deltas" | "ledger":
                try:
                    types = ZONE_FACTS if t.kind.what == "ledger" else t.kind.carries
                    at = self._step(decode(send.value, types), t.zone, now)
                except Malformed:
                    at = None
                if at:
                    header = trace_parent(at, self.spans.sampled(at.trace))
                    return Send(send.topic, send.value, send.key, send.partition, send.tag, (*send.headers, header))
        return send

    def _step(self, message: Message, zone: str, now: int) -> Step | None:
        match message:
            case Announcement(task=task, round=n, cause=cause):
                return step(cause.ledger, task, n)
            case Registration(task=task, round=n, device=device) if known := self.ledgers.get((zone, task)):
                at, root = step(known[0], task, n, REGISTER, device), step(known[0], task, n)
                began, _ = self.since.get((zone, task, n, ""), (now, None))
                self._over(Span(REGISTER, at, root, began, now, about(zone, task, n)))
                return at
            case Admission(task=task, round=n, slot=slot, device=device, cause=cause):
                at = step(cause.ledger, task, n, ADMIT, str(slot))
                if said := self.since.pop((zone, task, n, device), None):
                    wish = said_of(at, said[1]) or step(cause.ledger, task, n, REGISTER, device)
                    self._over(Span(ADMIT, at, wish, said[0], now, about(zone, task, n, slot=slot)))
                return at
            case DeltaBlock(task=task, round=n, slot=slot) if known := self.ledgers.get((zone, task)):
                at, key = step(known[0], task, n, DELIVER, str(slot)), (zone, task, n, str(slot))
                if message.block == self.last.get(key, known[1] - 1) and (said := self.since.pop(key, None)):
                    given = said_of(at, said[1]) or step(known[0], task, n, ADMIT, str(slot))
                    self._over(Span(DELIVER, at, given, said[0], now, about(zone, task, n, slot=slot)))
                return at
            case Committed(task=task, round=n):
                at = self._commit(message)
                self._note((zone, task, n, _where(message)), (now, None))
                return at
            case Opened(task=task, round=n):
                return step(self.ledger, task, n)
            case Closed(task=task, round=n):
                return step(self.ledger, task, n, GATHER)
            case Finalised(task=task, round=n):
                return step(self.ledger, task, n, FINALISE)
        return None

    def _over(self, span: Span) -> None:
        if self.spans.sampled(span.at.trace):
            self.spans.take(span)

    # ------------------------------------------------------------------ what ledgers say

    def _leader(self, p: ZoneCoordinator, before: Any, fact: Message | None, void: str, record: Record) -> None:
        """The round's own steps, when they are over."""
        if void or not isinstance(fact, Closed | Finalised):
            return
        r, where = before.tasks[fact.task].rounds[fact.round], (p.scope, fact.task, fact.round)
        closed, at = (*where, ""), record.timestamp
        if isinstance(fact, Closed):
            self.since[closed] = at, None
            for key in [k for k in self.since if k[1:3] == where[1:] and k[3]]:
                del self.since[key]  # registrations that came to nothing
        else:
            began, _ = self.since.pop(closed, (at, None))
        if not (p.reading.caught_up and leads(before, p.name, p.life)):
            return
        root, ids = step(p.zone.ledger, fact.task, fact.round), (p.zone.ledger, fact.task, fact.round)
        if isinstance(fact, Closed):
            self._over(Span(GATHER, step(*ids, GATHER), root, r.opened_time, at, about(*where, why=fact.why)))
            return
        failed = "" if fact.manifest else "too few devices"
        self._over(Span(FINALISE, step(*ids, FINALISE), root, began, at, about(*where), error=failed))
        got = about(*where, devices=fact.devices, samples=fact.samples)
        self._over(Span(ROUND, root, None, r.opened_time, at, got, error=failed))

    def _verdict(self, p: Aggregator, own: Own, before: Any, fact: Message | None, void: str, record: Record) -> None:
        """A commit of its own is accepted or refused."""
        if not isinstance(fact, Committed) or not own.made(fact):
            return
        where = p.zone_name, fact.task, fact.round
        began, _ = self.since.pop((*where, _where(fact)), (record.timestamp, None))
        done = fact.done[:MOST_LINKS]
        links = tuple(step(p.zone.ledger, fact.task, d.round, DELIVER, str(d.slot)) for d in done)
        at, root = self._commit(fact), step(p.zone.ledger, fact.task, fact.round)
        held = about(*where, blocks=fact.counts.total())
        self._over(Span(COMMIT, at, root, began, record.timestamp, held, links, void))

    def _commit(self, fact: Committed) -> Step:
        return step(self.ledger, fact.task, fact.round, COMMIT, _where(fact))


def _where(fact: Committed) -> str:
    """Where a commit begins, which no other accepted one does."""
    return ",".join(f"{s}:{x.token}:{x.start}" for s, x in fact.stretches.items())


def said_of(at: Step, said: Step | None) -> Step | None:
    """What a record's headers say it comes of, if that is of this trace."""
    return said if said and said.trace == at.trace else None


# ------------------------------------------------------------------ OpenTelemetry


def traced(processor: Processor, kind: str) -> Processor:
    """The processor, traced if the environment names where traces go (`ENDPOINTS`) and olearning[trace] is installed."""
    if (
        kind not in STEPS
        or not any(map(os.environ.get, ENDPOINTS))
        or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    ):
        return processor
    try:
        from olearning.telemetry.otel import OpenTelemetry, provider
    except ModuleNotFoundError as e:
        if not (e.name or "").startswith("opentelemetry"):
            raise
        log.warning("%s is set, and olearning[trace] is not installed: there are no traces", ENDPOINTS[0])
        return processor
    return Traced(processor, OpenTelemetry(provider(kind, processor.name)))
