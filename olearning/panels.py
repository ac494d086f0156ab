"""The panels of the terminal view, from a snapshot: what `screen.py` and `tables.py` show, and more. Pure functions.

Every state is a sign and a word, as there. `narrow` leaves what a filter asks for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from olearning.figures import clock, span
from olearning.happenings import Event
from olearning.screen import (
    BAD,
    GOOD,
    QUIET,
    WARN,
    letters_table,
    rounds_table,
    said,
    schedule_tables,
    shards_table,
    titled,
    traffic_tables,
    waits_text,
)
from olearning.snapshot import Snapshot
from olearning.tables import queue_table, tenants_table
from olearning.words import adds_up, equation, event_say, light, live, local_say, phase_say, problems, shard_say

WIDE = 150
"""Columns from which on the overview stands in two."""
ROOMY = 110
"""Columns from which on what a task waits for stands beside it."""
BARS = "▁▂▃▄▅▆▇█"
SPARK = 12
"""Characters of a curve."""
MOST_EVENTS = 12
"""Events in the overview."""


# ------------------------------------------------------------------ the first lines


def head(s: Snapshot, where: str, held: bool = False) -> Text:
    """Three lines: how old this is and of which namespace, whether all adds up, what to look at first. `held`: the
    screen stands still."""
    line = Text(f"■ held at {clock(s.at)}, space goes on", WARN) if held else said(live(s))
    line.append("  ").append(s.namespace, "bold").append(f" at {where}, led by {s.leader or 'nobody'}")
    line.append("\nadds up: ")
    line.append_text(
        Text("  ").join([Text(f"{z.zone} ").append_text(said(adds_up(z.identity, headed=True))) for z in s.zones])
    )
    if not s.zones:
        line.append("no zone joined yet", QUIET)
    bad = problems(s)
    if bad and s.caught_up:
        more = f"; {len(bad) - 1} more: key 1" if len(bad) > 1 else ""
        return line.append(f"\n▲ to look at: {bad[0]}{more}", BAD)
    return line.append("\n").append_text(said(light(s, bad)))


# ------------------------------------------------------------------ panels


def spark(values: Sequence[float], width: int = SPARK) -> str:
    """A curve in one line, from its least to its most; of more values than `width`, the last of each stretch."""
    if len(values) > width:
        values = [values[(i + 1) * len(values) // width - 1] for i in range(width)]
    if not values:
        return ""
    least, most = min(values), max(values)
    step = (most - least) / (len(BARS) - 1)
    return "".join(BARS[round((v - least) / step)] if step > 0 else BARS[0] for v in values)


def tasks_panel(s: Snapshot, width: int = WIDE) -> RenderableType:
    """Each task with its curves: accuracy and loss of the global models on held-out data, by epoch. What it waits for has a table of its
    own where there is little room."""
    names, roomy = ("task", "tenant", "state", ">epoch", "accuracy", "loss"), width >= ROOMY
    table = titled("Tasks", *names, "waits for") if roomy else titled("Tasks", *names)
    below = titled("\nTasks wait", "task", "waits for")
    for t in s.tasks:
        waits = waits_text(t.waits, t.since, s.at) if t.waits else Text(t.why, QUIET)
        epoch = f"{t.epoch}/{t.epochs}" if t.epochs else "–"
        row = (t.task, t.tenant, said(phase_say(t)), epoch, curve(t.accuracy), curve(t.losses))
        table.add_row(*row, *([waits] if roomy else []))
        if waits.plain and not roomy:
            below.add_row(t.task, waits)
    if not s.tasks:
        table.add_row(Text("none", QUIET))
    return Group(table, below) if below.row_count else table


def curve(by_epoch: dict[int, float]) -> Text:
    """A curve and its last value."""
    if not by_epoch:
        return Text("–", QUIET)
    values = [by_epoch[n] for n in sorted(by_epoch)]
    return Text.assemble((spark(values), GOOD), f" {values[-1]:.3f}")


def zones_panel(s: Snapshot) -> RenderableType:
    """Zones and their time of day; rounds, what they wait for, and how those before them went; what the scheduler says of their order,
    and why."""
    return Group(places_table(s), rounds_table(s), past_table(s), *schedule_tables(s))


def places_table(s: Snapshot) -> Table:
    """By zone its time of day, and who leads it."""
    table = titled("Places", "zone", "time of day", ">devices seen", "led by")
    for z in s.zones:
        if z.leader_silent or not z.leader:
            leader = Text(f"? {z.leader}, silent" if z.leader else "✗ nobody", BAD)
        else:
            leader = Text(z.leader)
        table.add_row(z.zone, said(local_say(z)), "–" if z.seen is None else f"{z.seen:,}", leader)
    if not s.zones:
        table.add_row(Text("none joined yet", QUIET))
    return table


def past_table(s: Snapshot) -> Table:
    """Of each task in each zone, the rounds that are over: their loss on the devices, and how long they take."""
    table = titled(
        "\nRounds that are over", "zone", "task", "devices' loss by round", ">devices in the last", ">usually takes"
    )
    for z in s.zones:
        for r in (r for r in z.rounds if r.curve):
            losses = curve({p.round: p.loss for p in r.curve if p.loss is not None})
            usual = span(r.usual_ms) if r.usual_ms else "–"
            table.add_row(z.zone, r.task, losses, str(r.curve[-1].devices), usual)
    if not table.row_count:
        table.add_row(Text("none yet", QUIET))
    return table


def shards_panel(s: Snapshot) -> RenderableType:
    """Every shard: who holds it by which token, what lies unread, and up to where each task's commits cover it."""
    table = titled("Shards", "zone", ">shard", "status", "holder", ">token", ">unread", "committed up to")
    for z in s.zones:
        for x in z.shards:
            upto = "  ".join(f"{task} {n:,}" for task, n in sorted(x.next.items()))
            table.add_row(
                z.zone,
                str(x.shard),
                said(shard_say(x.word)),
                Text(x.holder or "nobody", "" if x.holder else BAD),
                str(x.token),
                f"{x.unread:,}",
                upto,
            )
    if not table.row_count:
        table.add_row(Text("none", QUIET))
    return table


def blocks_panel(s: Snapshot) -> RenderableType:
    """Devices by state, what became of every block, and the sum that must hold; dead letters by reason."""
    sums = titled("\nOffsets that commits cover", "zone", "adds up", "why")
    for z in s.zones:
        i = z.identity
        sums.add_row(z.zone, said(adds_up(i, headed=True)), equation(i) if i.ok else Text(i.problem, BAD))
    parts: list[RenderableType] = [traffic_tables(s), sums]
    return Group(*parts, letters_table(s)) if s.letters else Group(*parts)


def tenants_panel(s: Snapshot) -> RenderableType:
    """Whose share of the devices is how large, beside what its weight would give it; and its quotas."""
    table = titled("Shares", "tenant", ">weight", "by weight", ">at work", "of all at work")
    for t in s.tenants:
        table.add_row(t.tenant, f"{t.weight:g}", bar(t.share), str(t.devices), bar(t.share_now))
    return Group(table, Text(), tenants_table(s)) if s.tenants else tenants_table(s)


def bar(share: float | None, width: int = 10) -> Text:
    """A share of a whole, as a bar and in percent."""
    if share is None:
        return Text("–", QUIET)
    full = round(width * share)
    return Text.assemble(("█" * full, GOOD), ("░" * (width - full), QUIET), f" {share:4.0%}")


def events_panel(events: Sequence[Event], most: int | None = None) -> RenderableType:
    """What happened, the newest first."""
    table = Table(title="Events", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0), expand=True)
    table.show_header = False
    table.add_column(no_wrap=True, style=QUIET)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for e in list(reversed(events))[:most]:
        say = event_say(e)
        table.add_row(clock(e.at), said(replace(say, text=e.kind)), Text(say.text))
    if not events:
        table.add_row("", "", Text("none yet", QUIET))
    return table


def overview(s: Snapshot, events: Sequence[Event], width: int) -> RenderableType:
    """All of it in short, in two columns where there is room."""
    first: list[RenderableType] = []
    if bad := problems(s) if s.caught_up else []:
        first += [Text("\n".join(f"▲ {text}" for text in bad) + "\n", BAD)]
    first += [tasks_panel(s, width if width < WIDE else width // 2), zones_panel(s)]
    second: list[RenderableType] = [
        shards_table(s),
        traffic_tables(s),
        Text(),
        tenants_table(s),
        Text(),
        events_panel(events, MOST_EVENTS),
    ]
    if width < WIDE:
        return Group(*first, *second)
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(Group(*first), Group(*second))
    return grid


@dataclass(frozen=True)
class Panel:
    """One of the screen's panels. `draw` is given the snapshot, the events, and the width in columns."""

    name: str
    draw: Callable[[Snapshot, Sequence[Event], int], RenderableType]


PANELS = (
    Panel("all", overview),
    Panel("tasks", lambda s, events, width: tasks_panel(s, width)),
    Panel("zones", lambda s, events, width: zones_panel(s)),
    Panel("shards", lambda s, events, width: shards_panel(s)),
    Panel("blocks", lambda s, events, width: blocks_panel(s)),
    Panel("tenants", lambda s, events, width: tenants_panel(s)),
    Panel("queue", lambda s, events, width: queue_table(s)),
    Panel("events", lambda s, events, width: events_panel(events)),
)


# ------------------------------------------------------------------ filter


def narrow(s: Snapshot, words: str) -> Snapshot:
    """What has all these words, in whatever order: in its names, its state, or what it waits for. A zone of that name stays whole."""
    if not words.split():
        return s
    tenant = {t.task: t.tenant for t in s.tasks}
    zones = []
    for z in s.zones:
        rounds = tuple(r for r in z.rounds if fits(words, z.zone, r.task, tenant.get(r.task, ""), r.state, r.waits))
        shards = tuple(x for x in z.shards if fits(words, z.zone, x.holder, x.word, f"shard {x.shard}", *x.next))
        if fits(words, z.zone):
            zones.append(z)
        elif rounds or shards:
            order = tuple(t for t in z.schedule.order if fits(words, z.zone, t)) if z.schedule else ()
            schedule = replace(z.schedule, order=order) if z.schedule else None
            zones.append(replace(z, rounds=rounds, shards=shards, schedule=schedule))
    tasks = tuple(t for t in s.tasks if fits(words, t.task, t.tenant, t.phase, t.waits, *t.rounds))
    tenants = tuple(t for t in s.tenants if fits(words, t.tenant, *t.tasks))
    letters = {reason: n for reason, n in s.letters.items() if fits(words, reason)}
    return replace(s, zones=tuple(zones), tasks=tasks, tenants=tenants, letters=letters)


def chosen(events: Sequence[Event], words: str) -> list[Event]:
    """The events that have all these words."""
    return [e for e in events if fits(words, e.zone, e.kind, e.text)]


def fits(words: str, *among: str) -> bool:
    text = " ".join(among).lower()
    return all(w in text for w in words.lower().split())
