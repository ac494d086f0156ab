"""`olearning status`: a snapshot on one screen, and the same facts as JSON."""

from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from olearning.screen import (
    BAD,
    QUIET,
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
from olearning.tables import tenants_table
from olearning.view import View
from olearning.words import light, phase_say, problems


def status_screen(view: View, now: int) -> RenderableType:
    """How things stand at `now` (ms), for 80 columns and more."""
    return render(view.snapshot(now))


def tasks_table(view: View, now: int) -> RenderableType:
    """The tasks alone."""
    return _tasks(view.snapshot(now))


def to_json(view: View, now: int) -> dict[str, Any]:
    """The same as plain maps and lists; `problems` says in words what is not as it should be."""
    s = view.snapshot(now)
    out: dict[str, Any] = msgspec.to_builtins(s, str_keys=True)
    for zone, plain in zip(s.zones, out["zones"], strict=True):
        plain["identity"] = msgspec.to_builtins(zone.identity) | {"ok": zone.identity.ok}
    return out | {"problems": problems(s)}


def render(s: Snapshot) -> RenderableType:
    """A snapshot on one screen."""
    parts: list[RenderableType] = [
        _head(s),
        Text(),
        _tasks(s),
        rounds_table(s),
        Text(),
        tenants_table(s),
        *schedule_tables(s),
        shards_table(s),
        traffic_tables(s),
    ]
    if s.letters:
        parts.append(letters_table(s))
    return Group(*parts)


def _head(s: Snapshot) -> Text:
    bad = problems(s)
    line = Text.assemble((s.namespace, "bold"), f"  led by {s.leader or 'nobody'}  ").append_text(said(light(s, bad)))
    if s.caught_up:
        for text in bad[:4]:
            line.append(f"\n  ▲ {text}", BAD)
        if len(bad) > 4:
            line.append(f"\n  … and {len(bad) - 4} more", BAD)
    return line


def _tasks(s: Snapshot) -> Table:
    table = titled("Tasks", "task", "state", ">epoch", "rounds by zone", "accuracy", "waits for")
    for t in s.tasks:
        rounds = "  ".join(f"{z} {n}/{m}" for z, (n, m) in sorted(t.rounds.items()))
        waits = waits_text(t.waits, t.since, s.at) if t.waits else Text(t.why, QUIET)
        table.add_row(
            t.task,
            said(phase_say(t)),
            f"{t.epoch}/{t.epochs}" if t.epochs else "–",
            rounds,
            _accuracy(t.accuracy),
            waits,
        )
    if not s.tasks:
        table.add_row(Text("none yet", QUIET))
    return table


def _accuracy(by_epoch: dict[int, float]) -> str:
    """The last, and where it began."""
    if not by_epoch:
        return "–"
    first, last = min(by_epoch), max(by_epoch)
    return f"{by_epoch[last]:.3f}" if first == last else f"{by_epoch[first]:.3f} → {by_epoch[last]:.3f}"
