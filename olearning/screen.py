"""A snapshot's tables for the terminal, which `status` and `watch` share.

The words are those of all views (`words.py`); colours repeat their tones, in blue and orange, which all eyes can tell apart.
"""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from olearning.figures import listed, size, span
from olearning.snapshot import (
    SHARD_WORDS,
    ShardView,
    Snapshot,
)
from olearning.words import Say, adds_up, shard_say
from schemas.messages import DEVICE_STATES

GOOD, WARN, BAD, QUIET = "bright_blue", "orange1", "bold orange_red1", "dim"
STYLES = {"good": GOOD, "warn": WARN, "bad": BAD, "quiet": QUIET, "": ""}
"""Of tones."""
MOST_LETTERS = 5


def said(say: Say) -> Text:
    return Text(str(say), STYLES[say.tone])


def titled(title: str, *columns: str) -> Table:
    """Left-aligned columns; those that begin with '>' hold numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), expand=True)
    for c in columns:
        wide = c in ("waits for", "why", "reason", "open tasks")
        table.add_column(
            c.removeprefix(">"),
            justify="right" if c.startswith(">") else "left",
            header_style=QUIET,
            overflow="fold",
            ratio=1 if wide else None,
            no_wrap=not wide,
        )
    return table


def waits_text(words: str, since: int, now: int) -> Text:
    text = Text(words.removeprefix("waiting for "))
    if words and since:
        text.append(f", since {span(now - since)}", QUIET)
    return text


def rounds_table(s: Snapshot) -> Table:
    table = titled("\nZones", "zone", "task", ">round", "state", ">devices", ">slots", ">left", "waits for")
    for z in s.zones:
        for r in z.rounds:
            left = "–" if r.deadline_left is None else span(max(0, r.deadline_left))
            devices = f"{r.devices}/{r.demand}"
            slots = str(r.registered - r.lapsed)
            waits = waits_text(r.waits, r.since, s.at)
            table.add_row(z.zone, r.task, str(r.round), r.state, devices, slots, left, waits)
        if not z.rounds:
            table.add_row(z.zone, Text("no task", QUIET))
    if not s.zones:
        table.add_row(Text("none joined yet", QUIET))
    return table


def schedule_tables(s: Snapshot) -> list[RenderableType]:
    """Whose blocks are added first, and how many aggregators that takes; nothing without a scheduler."""
    heard = [(z.zone, z.schedule) for z in s.zones if z.schedule]
    if not heard:
        return []
    table = titled("\nOrder", "zone", ">place", "task", "why")
    number = titled("\nAggregators", "zone", ">there", ">wanted", "why")
    for zone, x in heard:
        for place, task in enumerate(x.order, 1):
            table.add_row(zone, str(place), task, Text(x.order_why[task], QUIET))
        if x.silent:
            table.add_row(zone, "", "", Text(f"{x.scheduler} is silent: nobody goes by this any more", WARN))
        wanted = Text(f"{'✓' if x.wanted == x.workers else '▲'} {x.wanted}", GOOD if x.wanted == x.workers else WARN)
        number.add_row(zone, str(x.workers), wanted, Text(x.wanted_why, QUIET))
    return [table, number]


def shards_table(s: Snapshot) -> Table:
    """One line for the shards of a zone that have the same holder and the same word."""
    table = titled("\nShards", "zone", "holder", "status", "shards", ">token", ">unread")
    for z in s.zones:
        groups: dict[tuple[int, str], list[ShardView]] = {}
        for shard in z.shards:
            groups.setdefault((-SHARD_WORDS.index(shard.word), shard.holder), []).append(shard)
        for (_, holder), group in sorted(groups.items()):
            tokens = sorted({x.token for x in group})
            table.add_row(
                z.zone,
                Text(holder or "nobody", "" if holder else BAD),
                said(shard_say(group[0].word)),
                listed([x.shard for x in group]),
                ", ".join(map(str, tokens)),
                f"{sum(x.unread for x in group):,}",
            )
    return table


def traffic_tables(s: Snapshot) -> Group:
    """Devices by state; and what became of each block, which must add up."""
    devices = titled("\nDevices", "zone", *(f">{x}" for x in DEVICE_STATES), ">busy", ">seen", ">fleets", ">sent")
    blocks = titled(
        "\nBlocks",
        "zone",
        ">in log",
        ">unread",
        ">counted",
        ">again",
        ">late",
        ">invalid",
        ">incomplete",
        ">held",
        ">lost",
        "adds up",
    )
    blocks.padding = (0, 1, 0, 0)  # else its heads are cut at 80 columns
    for z in s.zones:
        silent = sum(f.silent for f in z.fleets)
        seen = "–" if z.seen is None else f"{z.seen:,}"
        fleets = Text(f"{len(z.fleets)}" + (f" ({silent} silent)" if silent else ""), WARN if silent else "")
        devices.add_row(
            z.zone, *(str(z.devices.get(x, 0)) for x in DEVICE_STATES), str(z.busy), seen, fleets, size(z.sent_bytes)
        )
        i = z.identity
        outcomes = (z.blocks, z.unread, i.counted, i.duplicate, i.late, i.invalid, i.incomplete, i.held, i.lost)
        blocks.add_row(z.zone, *(f"{n:,}" for n in outcomes), said(adds_up(i, headed=True)))
    return Group(devices, blocks)


def letters_table(s: Snapshot) -> Table:
    table = titled(f"\nDead letters: {sum(s.letters.values()):,}", ">how many", "reason")
    for reason, n in list(s.letters.items())[:MOST_LETTERS]:
        table.add_row(f"{n:,}", Text(reason))
    if len(s.letters) > MOST_LETTERS:
        table.add_row("…", Text(f"and {len(s.letters) - MOST_LETTERS} more reasons", QUIET))
    return table
