"""The operators' tables, from a snapshot: tenants, what waits for devices, and which devices there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from olearning.figures import size, span
from olearning.places import place_words
from olearning.screen import BAD, GOOD, QUIET, WARN, titled
from olearning.snapshot import Place, Snapshot, TenantView
from schemas.messages import DEVICE_STATES


def tenants_table(s: Snapshot) -> RenderableType:
    """What each tenant has of what it may have, its share of the devices by weight and now, and which of its tasks wait for devices."""
    out = titled(
        "Tenants", "tenant", ">weight", ">share", ">at work", ">share now", ">tasks", ">bytes today", "open tasks"
    )
    out.padding = (0, 1, 0, 0)  # else the last has no room at 80 columns
    for t in s.tenants:
        out.add_row(
            t.tenant,
            f"{t.weight:g}",
            percent(t.share),
            _of(t.devices, t.most_devices),
            percent(t.share_now),
            _of(len(t.tasks), t.most_tasks),
            _of(t.bytes, t.most_bytes, size),
            tenant_tasks(t) or Text("none", QUIET),
        )
    if not s.tenants:
        out.add_row(Text("none yet", QUIET))
    return Group(out, _policy(s))


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}".replace("%", " %")


def tenant_tasks(t: TenantView) -> str:
    """Its open tasks, and where each waits for devices."""
    waits = {task: f" (waits in {', '.join(zones)})" for task, zones in t.waits.items()}
    return ", ".join(task + waits.get(task, "") for task in t.tasks)


def _of(has: int, most: int, word: Any = str) -> Text:
    """So much of so much; all of it is worth a look."""
    return Text(f"{word(has)}/{word(most)}" if most else f"{word(has)}", WARN if most and has >= most else "")


def _policy(s: Snapshot) -> Text:
    args = ", ".join(f"{k}={v}" for k, v in sorted(s.policy_args.items()))
    return Text(f"\ndevices are shared by {s.policy}{args and f' ({args})'}", QUIET)


@dataclass(frozen=True)
class Waiting:
    """A task that waits for devices in a zone. `slots` of `places` are taken, `deltas` of `demand` are there. `eligible` of `seen`
    devices can do it; None: not known. `since` in ms of the log's time, 0: not known. `place` in the sharing policy's plan."""

    zone: str
    task: str
    tenant: str
    round: int
    state: str
    slots: int
    places: int
    deltas: int
    demand: int
    eligible: int | None
    seen: int | None
    why: str
    since: int
    place: Place | None = None


def queue_rows(s: Snapshot) -> list[Waiting]:
    """Every task with a round open or waiting to open, in each of its zones; who waits longest comes first."""
    tenant = {t.task: t.tenant for t in s.tasks}
    rows = []
    for z in s.zones:
        for r in z.rounds:
            if not r.queued:
                continue
            open_ = r.state == "open"
            slots, deltas = (r.registered - r.lapsed, r.devices) if open_ else (0, 0)
            n = r.round if open_ else r.round + 1
            rows.append(
                Waiting(
                    zone=z.zone, task=r.task, tenant=tenant.get(r.task, ""), round=n, state="open" if open_ else "to come",
                    slots=slots, places=r.places, deltas=deltas, demand=r.demand, eligible=r.eligible, seen=z.seen,
                    why=r.waits.removeprefix("waiting for "), since=r.since,
                    place=r.place,
                )
            )  # fmt: skip
    return sorted(rows, key=lambda w: (w.since or s.at, w.task, w.zone))


def queue_table(s: Snapshot) -> RenderableType:
    """The same for a person."""
    out = titled(
        "What waits", "task", "zone", "tenant", ">round", ">slots", ">deltas", ">eligible", ">since", "waits for"
    )
    for w in queue_rows(s):
        able = "–" if w.eligible is None else f"{w.eligible:,}"
        out.add_row(
            w.task,
            w.zone,
            w.tenant,
            f"{w.round}" if w.state == "open" else f"({w.round})",
            f"{w.slots}/{w.places}",
            f"{w.deltas}/{w.demand}",
            Text(able, BAD if w.eligible == 0 and w.seen else ""),
            span(s.at - w.since) if w.since else "–",
            Text.assemble(f"{w.why}\n", (place_words(w.place, s.policy), QUIET)),
        )
    if not out.row_count:
        out.add_row(Text("nothing", QUIET))
    return Group(out, _policy(s))


def devices_table(s: Snapshot) -> RenderableType:
    """By zone, who checked in within a day, and what the fleets that report have."""
    states = [*DEVICE_STATES, *sorted({x for z in s.zones for x in z.devices} - set(DEVICE_STATES))]
    out = titled("Devices", "zone", ">seen within a day", *(f">{x}" for x in states), ">busy")
    for z in s.zones:
        out.add_row(z.zone, _count(z.seen), *(f"{z.devices.get(x, 0):,}" for x in states), f"{z.busy:,}")
    if not s.zones:
        out.add_row(Text("no zone joined yet", QUIET))
    return out


def _count(n: int | None) -> Text:
    return Text("not said yet", QUIET) if n is None else Text(f"{n:,}")


def eligible_rows(s: Snapshot, task: str) -> dict[str, dict[str, Any]]:
    """By zone of a task: how many devices were seen, how many meet its public needs, and by bound how many have less."""
    return {
        z.zone: {"seen": z.seen, "eligible": r.eligible, "below": r.below}
        for z in s.zones
        for r in z.rounds
        if r.task == task
    }


def eligible_table(rows: Mapping[str, Mapping[str, Any]], task: str, needs: Mapping[str, float]) -> Table:
    """The same for a person; a device may be below several bounds."""
    bounds = [f"{name} below {least:g}" for name, least in needs.items()]
    out = titled(f"Devices that can do {task}", "zone", ">seen within a day", ">eligible", *(f">{b}" for b in bounds))
    for zone, row in rows.items():
        able = row["eligible"]
        cell = _count(able) if able is None else Text(f"{able:,}", GOOD if able else BAD)
        out.add_row(zone, _count(row["seen"]), cell, *(f"{row['below'].get(name, 0):,}" for name in needs))
    return out
