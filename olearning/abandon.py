"""Giving up what is lost, so that a task goes on without it: `olearning abandon`."""

from collections.abc import Iterator

from schemas.facts import Abandoned
from schemas.topics import topic
from streams.ledger import Loss, Zone, ZoneTask
from streams.processor import Answer, Effect, Input, Membership, Record, Stop, send
from streams.reading import WRONG, Reading

PATIENCE = 30_000
"""ms that a verdict may take."""


class Abandoner:
    """Finds what a task has lost, and stops: ok if there is something. With `lost`, the offset of that loss, it says in the
    ledger that it is given up, and stops with the verdict."""

    membership: Membership | None = None
    tick = 200

    def __init__(self, namespace: str, zone: str, task: str, lost: int | None = None, by: str = "", reason: str = ""):
        self.name, self.zone, self.task, self.lost = f"abandon-{task}", zone, task, lost
        self.fact = Abandoned(task, lost, by, reason) if lost is not None else None
        self.ledger = topic(namespace, zone, "ledger")
        self.reading = Reading(namespace, zone, Zone())
        self.sent = 0

    @property
    def known(self) -> ZoneTask | None:
        return self.reading.state.tasks.get(self.task)

    @property
    def loss(self) -> Loss | None:
        return self.known.loss if self.known else None

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.reading.start()

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            match event:
                case Record():
                    got = yield from self.reading.record(event)
                    if got and self.sent and got[0] == self.fact:
                        _, void = got
                        said = f"the ledger refuses it: {void}" if void else f"{self.task} goes on without it"
                        yield Stop(said, ok=not void)
                        return
                case Answer():
                    yield from self.reading.answer(event) or ()
        except WRONG as e:
            yield Stop(str(e))
            return
        if self.sent:
            if now - self.sent > PATIENCE:
                yield Stop(
                    f"no verdict within {PATIENCE // 1000} s; `olearning status` tells whether {self.task} goes on"
                )
        elif self.reading.caught_up:
            yield from self._act(now)

    def _act(self, now: int) -> Iterator[Effect]:
        zone, loss = self.reading.state, self.loss
        if self.known is None and self.task not in zone.over:
            there = ", ".join(sorted(zone.tasks)) or "none"
            yield Stop(f"zone {self.zone} has no task {self.task}; its tasks: {there}")
        elif loss is None:
            yield Stop(f"{self.task} has lost nothing in zone {self.zone}: there is nothing to give up")
        elif self.fact is None:
            yield Stop("found", ok=True)
        elif loss.at != self.lost:
            yield Stop(f"{self.task} has lost something else meanwhile: {loss.what}")
        else:
            self.sent = now
            yield send(self.ledger, self.fact)


def lines(task: str, t: ZoneTask, loss: Loss) -> list[str]:
    """What is lost and what giving it up means, for a person."""
    out = [f"{task} stands still since offset {loss.at} of the ledger: {loss.what}"]
    for s, (start, to) in sorted(loss.ranges.items()):
        if to < start:
            out.append(f"  shard {s}: the log ends at {to}, and commits cover it to {start}; it goes on at {to}")
        else:
            out.append(f"  shard {s}: offsets {start} to {to - 1} ({to - start} blocks); it goes on at {to}")
    for n, r in sorted(t.rounds.items()):
        for c in r.commits:
            if c.offset in loss.commits:
                counted, devices = c.fact.counts.counted, len(c.fact.done)
                out.append(f"  round {n}: the commit at {c.offset}, {counted} blocks, {devices} whole deltas")
    out.append(
        "  Given up, these blocks count in no model; the devices they came from have no part in the round any more."
    )
    return out
