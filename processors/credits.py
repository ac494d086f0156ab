"""How fast a zone's edges may send deltas: a burst is spread, so that it waits at the edges and not in the log.

With C the bytes a second that the zone's aggregators manage together, and B the bytes that lie unaggregated, edges may send

    rate = 2C - B / AIM_S,  but no less than C / 4

together: twice as much as is managed while nothing lies there, so that no aggregator waits and a C that has grown shows; as much
as is managed when AIM_S seconds' work lies there, which is where it settles under a lasting flood; and never nothing.

An edge that had deltas waiting when it reported gets a share by how many bytes these are, so that all are done at about the same
time; so does one of another zone whose devices travelled here, for as long as it says that theirs wait. Any other may begin with an (n + 1)th of the rate, n edges being known, until it reports: for about a second edges may send
more than the rate together, and B tells.

The capacity is known from the first time that aggregators had more to do than they could (`processors/loads.py`); before that there
are no credits, and edges send as they like. It may have been measured on a bad day, and what edges hold back overloads nobody, so that
it would not be measured again. Hence C is taken to be twice as much each time that for `CALM` words in a row deltas wait at edges while
next to nothing waits in the log, and half as much again, down to what was measured, when more lies there than the aim. Credits are no facts: whatever they say, a delta waits for them no longer than
`device_sim/outbox.py` allows.
"""

from dataclasses import dataclass, field

from processors.loads import SILENT
from processors.priorities import size
from schemas.messages import Credits, FleetReport

AIM_S = 2.0
LEAST = 0.25
CALM = 4
CALM_S = 0.25
"""Less than so many seconds' work in the log is next to nothing."""


def rate(capacity: float, backlog: int) -> int:
    """Bytes a second that edges may send together, where aggregators manage `capacity` and `backlog` bytes lie there."""
    return round(max(2 * capacity - backlog / AIM_S, LEAST * capacity))


@dataclass
class Edges:
    """Those of a zone."""

    zone: str
    names: dict[str, tuple[FleetReport, int]] = field(default_factory=dict)
    """By edge its last report, and when that was heard (ms); of other zones' edges if it says that something waits here."""
    scale: int = 1
    """How many times what was measured the capacity is taken to be."""
    calm: int = 0
    """How many words in a row found edges waiting and the log empty."""

    def hear(self, report: FleetReport, now: int) -> None:
        last, _ = self.names.get(report.source, (None, 0))
        if last is not None and report.at <= last.at:
            return
        if report.zone == self.zone or self.zone in report.elsewhere:
            self.names[report.source] = report, now
        else:
            self.names.pop(report.source, None)  # its visitors are done

    def _waiting(self, report: FleetReport) -> int:
        """Bytes that wait at an edge for credit here."""
        return report.waiting if report.zone == self.zone else report.elsewhere.get(self.zone, 0)

    def forget(self, now: int) -> None:
        """Leave out who said nothing for long."""
        self.names = {name: x for name, x in self.names.items() if now - x[1] < SILENT}

    def credits(self, source: str, capacity: float, backlog: int, now: int) -> Credits:
        """What `source` says of the zone, which looks anew at what it takes for its capacity."""
        waiting = {name: n for name, (report, _) in self.names.items() if (n := self._waiting(report))}
        total = sum(waiting.values())
        capacity = self._taken(capacity, backlog, total)
        whole = rate(capacity, backlog)
        return Credits(
            source=source,
            zone=self.zone,
            at=now,
            rate=whole,
            shares={name: whole * bytes // total for name, bytes in waiting.items()},
            other=whole // (len(self.names) + 1),
            why=f"{size(backlog)} to aggregate and {size(total)} at edges; aggregators do {size(capacity)}/s",
        )

    def _taken(self, capacity: float, backlog: int, waiting: int) -> float:
        """What to take the capacity for, that was measured."""
        self.calm = self.calm + 1 if waiting and backlog < CALM_S * self.scale * capacity else 0
        if self.calm == CALM:
            self.scale, self.calm = 2 * self.scale, 0
        elif backlog > AIM_S * self.scale * capacity:
            self.scale = max(1, self.scale // 2)
        return self.scale * capacity
