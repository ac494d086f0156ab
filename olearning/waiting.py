"""What a task waits for, in words for a person. Pure functions of the folds and of what was heard.

Where several things are missing, the one that a person can do something about comes first.
"""

from collections.abc import Mapping, Sequence

from olearning.snapshot import NOBODY, SILENT, STALLED, ShardView
from processors.early_exit import waits_until, why_over
from processors.plans import cost
from processors.quotas import Allowance
from schemas.messages import Presence
from streams.ledger import GlobalTask, Globe, Round, Zone, ZoneTask, places_taken

STANDS_STILL = "waiting for a person: "
"""A task that stands still on a loss waits for this, and goes on when somebody says so."""
PAUSED = "waiting for a person: paused"
LENIENT = 2_000
"""ms that a leader may take for a step before it is said that one waits for it."""


def zone_waits(
    g: GlobalTask,
    zone: Zone,
    name: str,
    shards: Sequence[ShardView],
    unread: Sequence[int],
    devices: Mapping[str, int],
    others: Mapping[str, Zone],
    now: int,
    lack: str = "",
    shared: str = "",
) -> str:
    """What a task waits for in a zone. `unread`: blocks of this task by shard; `others`: the folds of the task's zones; `lack`: why no
    device more can come (`shortage`); `shared`: with whom it shares those that do (`rivals`)."""
    if not zone.ledger:
        return f"waiting for zone {name} to start (olearning run zone)"
    if not zone.leader.token:
        return f"waiting for somebody to lead zone {name}"
    t = zone.tasks.get(g.spec.task)
    if t and t.loss:
        give_up = f"olearning abandon {g.spec.task} --zone {name} --reason WORDS"
        return f"{STANDS_STILL}{t.loss.what}. Bring it back, or go on without it: {give_up}"
    leader = zone.leader.holder
    if t and t.state == "open":
        return _open(t, t.rounds[t.round], shards, unread, devices, leader, now, lack, shared)
    if t and t.state == "closed":
        behind = [s for s, at in enumerate(t.at) if at <= t.round]
        return _shards(behind, shards, unread) if behind else f"waiting for {leader} to finalise the round"
    if g.wanted == "pause":
        return f"{PAUSED}: olearning resume {g.spec.task}"
    if g.state == "open" and name not in g.part:
        return f"takes no part in epoch {g.epoch}"
    if g.state == "open" and 0 < _left(g, now) < 1000 * g.spec.rounds.lease_s:
        return f"waiting for the epoch's window to end, in {_left(g, now) / 1000:.0f} s: no lease lasts so short"
    if not _over(g, now) and (t is None or t.epoch < g.epoch or not _done(zone, g, now)):
        if g.state == "open" and g.wanted == "run":
            return f"waiting for {leader} to open round {t.round + 1 if t else 1}"
    elif g.state == "open":
        slow = [z for z in g.part if z != name and not _done(others[z], g, now)]
        if slow:
            return f"waiting for {' and '.join(slow)} to finish {'its' if len(slow) == 1 else 'their'} rounds"
    return f"waiting for the globe: {_globe_step(g)}"


def shortage(g: GlobalTask, zone: Zone, presence: Presence | None, allowance: Allowance) -> str:
    """Why no device more can come to the round that a task has open in a zone, or "". `presence`: the devices seen there; `allowance`: what
    tenants may have there."""
    t = zone.tasks.get(g.spec.task)
    o = t.rounds[t.round].opened if t and t.state == "open" else None
    if t and o and places_taken(t) >= o.places:
        return ""  # all are at work
    if t and o and (why := allowance.over(g.spec.tenant, cost(g, t))[0]):
        return why
    eligible = presence.eligible.get(g.spec.task) if presence else None
    if presence and presence.devices and eligible and not eligible.devices:
        bounds = g.spec.needs.public
        less = ", ".join(f"{n:,} have {name} below {bounds[name]:g}" for name, n in eligible.below.items() if n)
        return f"none of the {presence.devices:,} devices seen within a day meets its needs ({less})"
    return ""


def short(zone: Zone) -> list[str]:
    """By name, the tasks of a zone that want more devices."""
    waiting = [n for n, t in zone.tasks.items() if t.state == "open" and not t.loss]
    return sorted(n for n in waiting if (r := zone.tasks[n].rounds[zone.tasks[n].round]).opened and r.met_at is None)


def rivals(task: str, short: Sequence[str], policy: str) -> str:
    """With which of the tasks that are `short` of devices it shares a zone's, and by what, if somebody said by what."""
    others = [n for n in short[:5] if n != task]
    return f", shared by {policy} with {', '.join(others[:3])}{', …' if len(others) > 3 else ''}" if others else ""


def phase(g: GlobalTask) -> str:
    """Where a task stands, in the paper's words for the stages of an epoch (§4.2), or what it is instead."""
    if g.wanted != "run":
        return {"pause": "paused", "stop": "stopping"}[g.wanted]
    return {"open": "execution", "closed": "finalisation"}.get(g.state, "preparation")


def task_waits(g: GlobalTask, globe: Globe, zones: Mapping[str, Zone], now: int) -> str:
    """What a task waits for in the globe."""
    if not globe.leader.token:
        return "waiting for somebody to lead the globe (olearning run global)"
    if g.wanted == "pause" and g.state != "closed":
        return f"{PAUSED}: olearning resume {g.spec.task}"
    if g.state == "open" and g.wanted == "run":
        if (left := _left(g, now)) > 0:
            return f"waiting for the epoch's window to end, in {left / 1000:.0f} s"
        slow = [z for z in g.part if not _done(zones[z], g, now)]
        if slow:
            return f"waiting for {' and '.join(slow)} to finish {'its' if len(slow) == 1 else 'their'} rounds"
    return f"waiting for {globe.leader.holder}: {_globe_step(g)}"


def _globe_step(g: GlobalTask) -> str:
    match g.state:
        case "open":
            return f"close epoch {g.epoch}"
        case "closed":
            return f"merge epoch {g.epoch}"
        case _ if waits_until(g):
            return f"hear from an evaluator how good epoch {g.epoch} is"
        case _ if not why_over(g):
            return f"open epoch {g.epoch + 1}"
    return "end the task"


def _left(g: GlobalTask, now: int) -> float:
    """ms that the window of the present epoch lasts; 0 or less if it is over, or epochs are of rounds."""
    window = g.spec.epochs.window_s
    return g.opened_time + 1000 * window - now if window else 0.0


def _over(g: GlobalTask, now: int) -> bool:
    return g.spec.epochs.window_s > 0 and _left(g, now) <= 0


def _done(zone: Zone, g: GlobalTask, now: int) -> bool:
    """Has the zone done its rounds of the task's epoch, or once its window is over the one that it had open?"""
    t = zone.tasks.get(g.spec.task)
    if _over(g, now):
        return t is None or t.state == "finalised" or t.loss is not None
    return bool(t and t.epoch == g.epoch and t.state == "finalised" and t.merged_rounds >= g.spec.epochs.rounds)


def _open(
    t: ZoneTask,
    r: Round,
    shards: Sequence[ShardView],
    unread: Sequence[int],
    devices: Mapping[str, int],
    leader: str,
    now: int,
    lack: str,
    shared: str,
) -> str:
    o = r.opened
    assert o
    if now > o.deadline + LENIENT:
        return f"waiting for {leader} to close the round: its deadline was {(now - o.deadline) // 1000} s ago"
    if r.met_at is not None:
        return f"the demand is met: waiting for the grace of {o.grace / 1000:g} s, then for {leader} to close"
    stuck = [s for s, n in enumerate(unread) if n and shards[s].word in (NOBODY, SILENT, STALLED)]
    if stuck:
        return _shards(stuck, shards, unread)
    words = f"waiting for {o.demand - r.contributors} of {o.demand} devices"
    if 0 < o.fill <= now:
        return f"{words}: it takes no more, and waits for the {places_taken(t)} at work"
    if lack:
        return f"{words}: {lack}"
    there = sum(devices.values())
    if not there:
        return f"{words}: no fleet reports any here"
    if devices.get("asleep", 0) == there:
        return f"{words}: all {there} devices are asleep"
    at_it = {"training": "training", "asking": "asking for a sub-model"}
    if some := [f"{n} {what}" for state, what in at_it.items() if (n := devices.get(state, 0))]:
        words += f" ({', '.join(some)})"
    return words + shared


def _shards(which: Sequence[int], shards: Sequence[ShardView], unread: Sequence[int]) -> str:
    """The worst of these shards, and how many more there are."""
    rank = {NOBODY: 0, SILENT: 1, STALLED: 2}
    first = min(which, key=lambda s: (rank.get(shards[s].word, 3), s))
    h = shards[first]
    why = {
        NOBODY: "nobody holds it",
        SILENT: f"{h.holder} holds it and is silent",
        STALLED: f"{h.holder} holds it and stands still",
    }.get(h.word, f"{h.holder} reads it")
    more = f" and {len(which) - 1} more" if len(which) > 1 else ""
    return f"waiting for shard {first}{more} ({why}; {sum(unread[s] for s in which)} unread)"
