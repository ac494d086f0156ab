"""Who contributed what to a round, and how the round went: `olearning explain`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from olearning.figures import listed, runs
from olearning.happenings import clean, happened
from olearning.verify import lines, verdict
from processors.audit import Audit
from processors.oracle import COUNTED, OUTCOMES, Seen
from schemas import sets
from schemas.partitioner import shard_of

QUIET = "dim"
LEAST = 24
"""Columns that a cell which may be folded has at least."""


@dataclass
class Part:
    """A slot and what came of it. Offsets are those of its shard of the deltas, commits those of the ledger."""

    round: int
    slot: int
    device: str
    shard: int
    admitted: int
    done_in: int | None = None
    """The commit in which its delta became whole."""
    blocks: dict[str, list[int]] = field(default_factory=dict)
    """By outcome, the offsets."""
    commits: list[int] = field(default_factory=list)
    """Those that counted a block of it."""
    reasons: list[str] = field(default_factory=list)
    weights: dict[int, int] = field(default_factory=dict)
    """By block that counted, what it weighs."""
    owes: tuple[int, ...] | None = None
    """Its blocks, where it trains a part of the model."""
    modules: dict[int, list[int]] | None = None
    """By stage of a modular model, the modules that these blocks are; the shared part is always there."""
    samples: int = 0
    loss: int = 0

    @property
    def weight(self) -> int | None:
        """What each of its blocks weighs; 0 if none counted, None if they do not weigh alike."""
        least, most = min(self.weights.values(), default=0), max(self.weights.values(), default=0)
        return most if least == most else None

    def add(self, s: Seen) -> None:
        self.blocks.setdefault(s.outcome, []).append(s.offset)
        if s.reason and s.reason not in self.reasons:
            self.reasons.append(s.reason)
        if s.outcome == COUNTED:
            self.weights[s.block], self.samples, self.loss = s.weight, s.samples, s.loss
            if s.commit not in self.commits:
                self.commits.append(s.commit)


def parts(a: Audit) -> tuple[list[Part], list[Seen]]:
    """The slots that had a part in the round, and the blocks that belong to no slot."""
    chapters, out, strangers = a.story.chapters, {}, []
    done = {(d.round, d.slot): e.offset for e in a.story.chapter.commits for d in e.fact.done}

    def part(n: int, slot: int) -> Part:
        if (n, slot) not in out:
            seat = chapters[n].seats[slot]
            shard = shard_of(seat.device, a.partitions)
            o = chapters[n].opened
            owes = sets.members(seat.blocks, len(o.sizes)) if o and seat.blocks else None
            names = by_stage(a.owners, owes) if a.owners and owes else None
            out[n, slot] = Part(
                n, slot, seat.device, shard, seat.admitted, done.get((n, slot)), owes=owes, modules=names
            )
        return out[n, slot]

    for slot in range(len(a.story.chapter.seats)):
        part(a.round, slot)
    for n, slot in done:
        part(n, slot)
    for s in a.seen:
        c = chapters.get(s.round)
        if c and 0 <= s.slot < len(c.seats) and c.seats[s.slot].device == s.device:
            part(s.round, s.slot).add(s)
        else:
            strangers.append(s)
    return [out[key] for key in sorted(out)], strangers


def by_stage(owners: Sequence[str], blocks: Iterable[int]) -> dict[int, list[int]]:
    """The modules that these blocks are, by their stage; what is no module's is left out."""
    out: dict[int, list[int]] = {}
    for name in dict.fromkeys(owners[b] for b in blocks if "/" in owners[b]):
        stage, n = map(int, name.split("/"))
        out.setdefault(stage, []).append(n)
    return out


def life(a: Audit) -> list[tuple[int, int, str]]:
    """(ledger offset, ms, words): what happened to the round, in the order of the ledger. Offset -1: no fact of its own."""
    c, out = a.story.chapter, []
    for t in a.story.told:
        for e in happened(t.before, t.after, t.fact, t.void, a.zone, t.time):
            out.append((t.offset, t.time, e.text.removeprefix(f"{a.zone}: ")))
        if t.offset == c.closed_at and c.closed:
            ends = " ".join(f"{s}:{end}" for s, end in sorted(c.closed.ends.items()))
            out.append((t.offset, t.time, f"the log's ends are {ends}: what lies below still counts"))
    if c.met is not None:
        at = next((i for i, (_, time, _) in enumerate(out) if time >= c.met and i), len(out))
        out.insert(at, (-1, c.met, "the demand is met"))
    return out


# ------------------------------------------------------------------ for a person


def screen(a: Audit) -> RenderableType:
    """Tables. Only lists and words are folded: where there is no room, lines run on past the edge, and ids stay whole."""
    mine, strangers = parts(a)
    told = _table(f"Round {a.round} of {a.task} in zone {a.zone}", ">ledger", "time (UTC)", "~what")
    for offset, time, text in life(a):
        told.add_row("" if offset < 0 else str(offset), _time(time), clean(text))
    commits = _table(
        "\nCommits", ">ledger", "time (UTC)", "holder", "~shards: offsets", ">counted", ">other", ">devices"
    )
    for e in a.story.chapter.commits:
        covers = " ".join(f"{s}:{x.start}–{x.end - 1}" for s, x in sorted(e.fact.stretches.items()))
        n, holder = e.fact.counts.counted, e.holder or "?"
        other = e.fact.counts.total() - n
        commits.add_row(str(e.offset), _time(e.time), holder, covers, str(n), str(other), str(len(e.fact.done)))
    slots = _table(
        "\nSlots", ">round", ">slot", "device", ">shard", "~blocks: offsets", ">weight", ">samples", ">loss", "in"
    )
    for p in mine:
        loss = f"{p.loss / 1e6 / p.samples:.4f}" if p.samples else "–"
        said = Text(_blocks(p))
        if p.owes is not None:
            said.append(f" (owes {len(p.owes)} of the model: {_owed(p)})", QUIET)
        if p.reasons:
            said.append(f" ({clean('; '.join(p.reasons))})", QUIET)
        where = ", ".join(map(str, p.commits or ([p.done_in] if p.done_in is not None else []))) or "–"
        figures = (_weight(p), str(p.samples or "–"), loss, where)
        slots.add_row(str(p.round), str(p.slot), clean(p.device), str(p.shard), said, *figures)
    out = [told, commits, slots]
    if strangers:
        others = _table("\nOf no slot", ">shard", ">offset", "device or key", "outcome", ">commit", "~reason")
        for s in strangers:
            outcome, reason = s.outcome, clean(s.reason)
            others.add_row(str(s.shard), str(s.offset), clean(s.device)[:60], outcome, str(s.commit), reason)
        out.append(others)
    for table in out:
        _keep_whole(table)
    return Group(*out, Text(), *map(Text, lines(a)))


def _blocks(p: Part) -> str:
    """What came of a slot: outcomes with their offsets."""
    if not p.blocks:
        return "whole" if p.done_in is not None else "nothing came"
    known = [o for o in (*OUTCOMES, *p.blocks) if o in p.blocks]
    return ", ".join(f"{len(p.blocks[o])} {o}: {listed(p.blocks[o], ' ')}" for o in dict.fromkeys(known))


def _owed(p: Part) -> str:
    """What it owes: of a modular model by stage and module, else by block."""
    if p.modules is None:
        return listed(p.owes or (), " ")
    stages = [f"stage {i} module{'s' * (len(ns) > 1)} {listed(ns, ' ')}" for i, ns in p.modules.items()]
    return "; ".join(["the shared part", *stages])


def _weight(p: Part) -> str:
    """What its blocks weigh; from the least to the most, if each has a weight of its own."""
    if p.weight is None:
        return f"{min(p.weights.values())}–{max(p.weights.values())}"
    return str(p.weight or "–")


def _table(title: str, *columns: str) -> Table:
    """Of each column its name: behind ">" if it is aligned to the right, behind "~" if its cells may be folded."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for c in columns:
        justify: Any = "right" if c.startswith(">") else "left"
        table.add_column(c.lstrip(">~"), justify=justify, header_style=QUIET, overflow="fold", no_wrap=c[0] != "~")
    return table


def _keep_whole(table: Table) -> None:
    """Give each column the room that its cells need, once they are all there."""
    for c in table.columns:
        c.min_width = max(cell_len(str(x)) for x in (c.header, *c.cells)) if c.no_wrap else LEAST


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3] if ms else "–"


# ------------------------------------------------------------------ for programs


def as_json(a: Audit) -> dict[str, Any]:
    """The same as plain maps and lists. Runs of offsets are [from, to)."""
    mine, strangers = parts(a)
    c = a.story.chapter
    return {
        "task": a.task,
        "zone": a.zone,
        "round": a.round,
        "ledger": a.ledger,
        "verdict": verdict(a),
        "differs": a.differs,
        "missing": a.missing,
        "life": [{"offset": o if o >= 0 else None, "at": at, "text": text} for o, at, text in life(a)],
        "opened": _moment(c.opened_at, c.opened_time, bool(c.opened)),
        "met": c.met,
        "closed": _moment(c.closed_at, c.closed_time, bool(c.closed), why=c.closed.why, ends=_keys(c.closed.ends))
        if c.closed
        else None,
        "finalised": _moment(c.finalised_at, c.finalised_time, bool(c.finalised)),
        "commits": [
            {
                "offset": e.offset,
                "at": e.time,
                "holder": e.holder,
                "stretches": {str(s): [x.start, x.end] for s, x in sorted(e.fact.stretches.items())},
                "counts": {n: getattr(e.fact.counts, n) for n in OUTCOMES},
                "devices": len(e.fact.done),
            }
            for e in c.commits
        ],
        "slots": [
            {
                "round": p.round,
                "slot": p.slot,
                "device": p.device,
                "shard": p.shard,
                "admitted": p.admitted,
                "whole": p.done_in is not None,
                "blocks": {o: runs(offsets) for o, offsets in p.blocks.items()},
                "commits": p.commits,
                "reasons": p.reasons,
                "weight": p.weight,
                "weights": {str(b): w for b, w in sorted(p.weights.items())},
                "owes": list(p.owes) if p.owes is not None else None,
                "modules": {str(i): ns for i, ns in p.modules.items()} if p.modules is not None else None,
                "samples": p.samples,
                "mean_loss": p.loss / 1e6 / p.samples if p.samples else None,
            }
            for p in mine
        ],
        "others": [
            {n: getattr(s, n) for n in ("shard", "offset", "device", "outcome", "commit", "reason")} for s in strangers
        ],
    }


def _moment(offset: int, at: int, there: bool, **more: Any) -> dict[str, Any] | None:
    return {"offset": offset, "at": at, **more} if there else None


def _keys(of: dict[int, int]) -> dict[str, int]:
    return {str(k): v for k, v in sorted(of.items())}
