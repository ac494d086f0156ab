"""A snapshot's tables for the terminal, and its problems in words: what `status`, `watch` and the page have in common.

Every state is told by a sign and a word; the colour only repeats it, in blue and orange, which all eyes can tell apart.
"""

from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from olearning.snapshot import (
    BEHIND,
    NOBODY,
    OK,
    SHARD_WORDS,
    SILENT,
    STALLED,
    Identity,
    ShardView,
    Snapshot,
    TaskView,
    ZoneView,
)
from olearning.waiting import STANDS_STILL
from schemas.messages import DEVICE_STATES

GOOD, WARN, BAD, QUIET = "bright_blue", "orange1", "bold orange_red1", "dim"
SIGNS = {OK: ("✓", GOOD), BEHIND: ("▲", WARN), STALLED: ("■", BAD), SILENT: ("?", BAD), NOBODY: ("✗", BAD)}
MOST_LETTERS = 5


def problems(s: Snapshot) -> list[str]:
    """What a person should look at."""
    if s.away:
        return [f"the log has given no answer for {span(s.away)}: all this is how things stood then"]
    out = [] if s.leader_token else ["nobody leads the globe (olearning run global)"]
    return out + [f"{z.zone}: {text}" for z in s.zones for text in zone_problems(z)]


def zone_problems(z: ZoneView) -> list[str]:
    """What a person should look at in a zone."""
    out = [] if z.leader_token else [f"nobody leads the zone ({_start('zone', z)})"]
    if not z.identity.ok:
        out.append(f"offsets do not add up: {z.identity.problem}")
    if z.leader_silent:
        out.append(
            f"{z.leader} leads the zone and is silent: nobody admits devices or closes rounds ({_start('zone', z)})"
        )
    for r in z.rounds:
        if r.waits.startswith(STANDS_STILL):
            out.append(f"{r.task} stands still: {r.waits.removeprefix(STANDS_STILL)}")
    for word in (NOBODY, SILENT, STALLED):
        if bad := [x for x in z.shards if x.word == word]:
            said = {NOBODY: "held by nobody", SILENT: f"held by {_holders(bad)}, silent", STALLED: "stand still"}
            out.append(f"{_numbers(bad)} {said[word]} ({_start('aggregator', z)})")
    return out


def _start(role: str, z: ZoneView) -> str:
    """What brings somebody who takes over."""
    return f"olearning run {role} --zone {z.zone}"


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


def phase_text(t: TaskView) -> Text:
    return {"ended": Text("✓ ended", GOOD), "refused": Text("✗ refused", BAD)}.get(t.phase, Text(f"● {t.phase}"))


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
            sign, style = SIGNS[group[0].word]
            tokens = sorted({x.token for x in group})
            table.add_row(
                z.zone,
                Text(holder or "nobody", "" if holder else BAD),
                Text(f"{sign} {group[0].word}", style),
                _runs([x.shard for x in group]),
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
        blocks.add_row(z.zone, *(f"{n:,}" for n in outcomes), adds_up(i))
    return Group(devices, blocks)


def adds_up(i: Identity) -> Text:
    return Text("✓ yes", GOOD) if i.ok else Text("✗ NO", BAD)


def letters_table(s: Snapshot) -> Table:
    table = titled(f"\nDead letters: {sum(s.letters.values()):,}", ">how many", "reason")
    for reason, n in list(s.letters.items())[:MOST_LETTERS]:
        table.add_row(f"{n:,}", Text(reason))
    if len(s.letters) > MOST_LETTERS:
        table.add_row("…", Text(f"and {len(s.letters) - MOST_LETTERS} more reasons", QUIET))
    return table


def _numbers(shards: list[ShardView]) -> str:
    return ("shard " if len(shards) == 1 else "shards ") + _runs([x.shard for x in shards])


def _holders(shards: list[ShardView]) -> str:
    return ", ".join(sorted({x.holder for x in shards}))


def _runs(numbers: list[int]) -> str:
    """0, 1, 2, 5 -> "0–2, 5"."""
    out: list[list[int]] = []
    for n in sorted(numbers):
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in out)


def clock(ms: int) -> str:
    """A time by this machine's clock."""
    return datetime.fromtimestamp(ms / 1000).strftime("%H:%M:%S")


def span(ms: int) -> str:
    """Milliseconds as a person says them."""
    s = max(0, ms) / 1000
    if s < 10:
        return f"{s:.1f} s"
    if s < 120:
        return f"{s:.0f} s"
    return f"{s / 60:.0f} min" if s < 7200 else f"{s / 3600:.1f} h"


def size(n: int) -> str:
    return f"{n / 1e6:,.1f} MB" if n >= 1e5 else f"{n / 1e3:,.1f} kB"
