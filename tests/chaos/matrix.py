"""What a fault did, and the matrix of many: fault × stage × outcome × recovery time × bytes replayed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from schemas.facts import LEADERSHIP, Claimed, Committed
from schemas.messages import SchedulerReport
from schemas.topics import GLOBAL
from schemas.wire import Message
from streams.processor import Record
from tests.chaos.watch import SPEAKER, Seat, Watch, names

HELP = """\
stage: where the task that was aimed at stood when the signal was sent, by the ledger as read then.
outcome: what became of the seats that the victim held. "stood by": it held none.
seats: seconds until all of them were claimed anew; of brokers, until every partition had a leader again;
      of schedulers, until one spoke again.
work: seconds until the first accepted fact by whoever held them then: a commit over its shards, a step of the round or epoch.
      Where there was nothing to do (devices train), that includes the waiting. Of brokers: a fact in every zone.
void: facts offered under the victim's tokens after the fault, which the ledger refused.
replayed: bytes of delta blocks above the last commit when the seats were claimed that lay in the log when the fault came:
      what the victim may have read and its successor reads again. Bytes that came in meanwhile are read once, and not in it."""


@dataclass
class Fault:
    """One fault and what was seen of it. Times in s since it came."""

    number: int
    role: str
    how: str
    name: str
    zone: str
    task: str
    aim: str
    """The stage it was meant for."""
    stage: str
    """The stage it hit."""
    at: float
    """s since the faults began."""
    wall: int
    seats: dict[Seat, int] = field(default_factory=dict)
    """The seats that the victim held, with their tokens."""
    also: tuple[str, ...] = ()
    """Others of its kind that are hit at the same moment: nobody is left to take over."""
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    claimed: dict[Seat, tuple[str, float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    """Of brokers: by zone, when the first fact came."""
    led: float | None = None
    """Of brokers: when every partition had a leader."""
    work: float | None = None
    void: int = 0
    replayed: int = 0
    back: float | None = None
    """When the process went on, or its next life began."""
    over: float | None = None
    """When all that it held had a holder again; of brokers, when all replicas were in sync."""

    @property
    def group(self) -> str:
        """At most one at a time of each is under a fault."""
        return group(self.role, self.zone)

    def see(self, watch: Watch, scope: str, fact: Message | None, void: str, record: Record) -> None:
        """A fact came after it."""
        since = max(0, record.timestamp - self.wall) / 1000
        settled = self.over is not None  # who claims its seats from then on does so for a later fault
        mine = {seat: token for seat, token in self.seats.items() if seat[0] == scope}
        if void:
            self.void += not isinstance(fact, Claimed) and not names(fact).isdisjoint(mine.values())
        elif self.role == "broker":
            if record.timestamp > self.wall and scope != GLOBAL:
                self.first.setdefault(scope, since)
                if len(self.first) == len(watch.zones):
                    self.work = self.work or max(self.first.values())
        elif isinstance(fact, SchedulerReport):
            if (
                not settled
                and (seat := (GLOBAL, SPEAKER)) in mine
                and record.timestamp > self.wall
                and (fact.source not in self.victims or self.back)
            ):
                self.work = self.work or since
                self.claimed.setdefault(seat, (fact.source, since))
        elif isinstance(fact, Claimed) and not settled:
            for seat in mine.keys() - self.claimed.keys():
                if (h := watch.holder(seat)).token == record.offset and h.holder:  # else it was given back
                    self.claimed[seat] = h.holder, since
                    self.replayed += watch.replayed(seat, self.ends)
        elif self.work is None and self._works(scope, fact, mine):
            self.work = since

    def _works(self, scope: str, fact: Message | None, mine: dict[Seat, int]) -> bool:
        """Is it a step of the work that the victim had, under another token, or its own if it woke in time?"""
        if isinstance(fact, Committed):
            here = {(scope, s): x.token for s, x in fact.stretches.items()}
            return any(seat in mine and self._after(seat, token) for seat, token in here.items())
        seat = (scope, LEADERSHIP)
        return seat in mine and any(self._after(seat, token) for token in names(fact))

    def _after(self, seat: Seat, token: int) -> bool:
        return token != self.seats[seat] or self.back is not None

    @property
    def victims(self) -> set[str]:
        return {self.name, *self.also}

    @property
    def outcome(self) -> str:
        if self.role == "broker":
            return "went on" if self.work is not None else "no fact since"
        if not self.seats:
            return "stood by"
        holders = {holder for holder, _ in self.claimed.values()}
        if not holders:
            return "kept its seats"
        return "came back" if holders <= self.victims else "taken over"

    @property
    def recovery(self) -> float | None:
        if self.role == "broker":
            return self.led
        return max((at for _, at in self.claimed.values()), default=None)

    def line(self) -> str:
        by = ", ".join(sorted({h for h, _ in self.claimed.values()}))
        aim = "" if self.aim == self.stage else f" (meant for: {self.aim})"
        return (
            f"{self.at:6.1f} s  {self.how:8} {self.name:18} {self.zone:6} {self.task:9} {self.stage}{aim}: {self.outcome}"
            f"{f' by {by}' if by else ''}; seats {_s(self.recovery)}, work {_s(self.work)}, void {self.void}, replayed {self.replayed:,} B"
        )

    def as_json(self) -> dict[str, Any]:
        out = {k: v for k, v in asdict(self).items() if k not in ("seats", "ends", "claimed", "first", "wall")}
        held = [f"{scope}/{({LEADERSHIP: 'leadership', SPEAKER: 'speaker'}).get(n, n)}" for scope, n in self.seats]
        return out | {
            "held": held,
            "by": sorted({h for h, _ in self.claimed.values()}),
            "outcome": self.outcome,
            "seats": self.recovery,
        }


def group(role: str, zone: str) -> str:
    return f"{role}-{zone}" if role in ("aggregator", "zone") else role


def matrix(faults: Iterable[Fault]) -> list[str]:
    """A line for each fault × stage × outcome: how many, recovery and work (median, most), void facts, bytes replayed."""
    rows: dict[tuple[str, str, str], list[Fault]] = {}
    for f in faults:
        rows.setdefault((f"{f.role} {f.how}", f.stage, f.outcome), []).append(f)
    head = ("fault", "stage", "outcome", "n", "seats s", "most", "work s", "most", "void", "replayed B", "most")
    table = [head]
    for (fault, stage, outcome), here in sorted(rows.items()):
        seats, work = [f.recovery for f in here if f.recovery is not None], [f.work for f in here if f.work is not None]
        replayed = [f.replayed for f in here]
        table.append((
            fault, stage, outcome, str(len(here)), _s(median(seats) if seats else None), _s(max(seats, default=None)),
            _s(median(work) if work else None), _s(max(work, default=None)), str(sum(f.void for f in here)),
            f"{median(replayed):,.0f}", f"{max(replayed):,}",
        ))  # fmt: skip
    wide = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
        "  ".join(x.ljust(w) if i < 3 else x.rjust(w) for i, (x, w) in enumerate(zip(row, wide, strict=True)))
        for row in table
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _s(x: float | None) -> str:
    return "–" if x is None else f"{x:.1f}"
