"""What the page says beside the words of all views (`olearning/words.py`), as pure functions of a snapshot; no widget, no clock.

Where there is more than fits, what needs a person comes first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import nsmallest

from olearning.figures import many, span
from olearning.happenings import Event
from olearning.snapshot import COUNTS, OK, SHARD_WORDS, Identity, RoundView, Snapshot, TaskView, ZoneView
from olearning.waiting import PAUSED
from olearning.words import Say, adds_up, light, problems, shard_say, zone_problems
from schemas.messages import DEVICE_STATES

SLOW_FACTOR, SLOW_LEAST, SLOW_UNKNOWN = 3, 10_000, 120_000
"""A wait is slow after so many of its usual rounds, but not before so many ms; or, where none is known, after so many ms."""
MOST_PROBLEMS = 6
STATES = tuple(reversed(DEVICE_STATES))
"""Of a device, those at work first."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure with its name, and a line that explains it."""

    label: str
    value: Say
    note: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A task that waits for something somewhere, since `ms` (0: not known)."""

    task: str
    zone: str
    say: Say
    ms: int
    others: bool = False
    """It is done, and waits for other zones."""


def states(devices: dict[str, int]) -> list[tuple[str, int]]:
    """Devices by state, those at work first, and states that nobody here knows last."""
    return [(x, devices.get(x, 0)) for x in (*STATES, *sorted(devices.keys() - set(STATES)))]


def states_words(z: ZoneView) -> str:
    words = ", ".join(f"{n:,} {x}" for x, n in states(z.devices) if n) or "no fleet reports any"
    return words + (f"; {z.busy:,} busy with other work" if z.busy else "")


def ago(ms: int) -> str:
    """A span that does not break over two lines."""
    return span(ms).replace(" ", "\N{NO-BREAK SPACE}")


class Facts:
    """A snapshot with what the page looks up in it."""

    def __init__(self, s: Snapshot):
        self.s = s
        self.zones = {z.zone: z for z in s.zones}
        self.rounds: dict[str, list[tuple[ZoneView, RoundView]]] = {}
        self._waits: dict[str, list[Wait]] = {}
        for z in s.zones:
            for r in z.rounds:
                self.rounds.setdefault(r.task, []).append((z, r))

    @cached_property
    def problems(self) -> list[str]:
        return problems(self.s)

    @cached_property
    def zone_bad(self) -> dict[str, list[str]]:
        return {z.zone: zone_problems(z) for z in self.s.zones}

    @cached_property
    def identity(self) -> Identity:
        """All zones together; the first problem of any."""
        all_ = {z.zone: z.identity for z in self.s.zones}
        sums = {n: sum(getattr(i, n) for i in all_.values()) for n in COUNTS}
        return replace(Identity(**sums), problem=next((f"{z}: {i.problem}" for z, i in all_.items() if i.problem), ""))

    @cached_property
    def devices(self) -> dict[str, int]:
        out: dict[str, int] = {}
        for z in self.s.zones:
            for x, n in z.devices.items():
                out[x] = out.get(x, 0) + n
        return out

    @property
    def light(self) -> Say:
        return light(self.s, self.problems)

    @property
    def problems_shown(self) -> list[str]:
        """As many as a person reads."""
        all_ = self.problems
        return (
            all_
            if len(all_) <= MOST_PROBLEMS
            else [*all_[: MOST_PROBLEMS - 1], f"and {len(all_) - MOST_PROBLEMS + 1:,} more"]
        )

    def tiles(self, arriving: float | None, folding: float | None) -> list[Tile]:
        """`arriving`, `folding`: delta blocks a second; None: not known yet."""
        s, i = self.s, self.identity
        by_phase: dict[str, int] = {}
        for t in s.tasks:
            by_phase[t.phase] = by_phase.get(t.phase, 0) + 1
        over = {x: by_phase.get(x, 0) for x in ("paused", "stopping", "ended", "refused")}
        running = len(s.tasks) - sum(over.values())
        at_work = self.devices.get("training", 0)
        words = [x.word for z in s.zones for x in z.shards]
        worst = max(words, key=SHARD_WORDS.index, default=OK)
        n, say = words.count(worst), shard_say(worst)
        sums = adds_up(i)
        unread = sum(z.unread for z in s.zones)
        rate = "–" if arriving is None else f"{arriving:,.1f}/s"
        return [
            Tile("Tasks", Say(f"{running:,} running"), ", ".join(f"{k} {x}" for x, k in over.items() if k) or "none over"),
            Tile("Devices", Say(f"{at_work:,} training"), f"of {sum(self.devices.values()):,}: {self._others()}"),
            Tile("Delta blocks", Say(rate), "arriving" + ("" if folding is None else f"; {folding:,.1f}/s folded")),
            Tile("Unread", Say(f"{unread:,}"), "blocks no commit covers yet"),
            Tile("Every offset", replace(sums, text=sums.text.partition(":")[0]), i.problem or f"{i.offsets:,} accounted for"),
            Tile("Shards", replace(say, text=f"{n:,} {worst}" if words else "none yet"), f"of {len(words):,} in {many(len(s.zones), 'zone')}"),
        ]  # fmt: skip

    def _others(self) -> str:
        return ", ".join(f"{n:,} {x}" for x, n in states(self.devices) if n and x != "training") or "none else"

    # ------------------------------------------------------------------ zones

    def zone_light(self, z: ZoneView) -> Say:
        bad = self.zone_bad[z.zone]
        return (
            Say(bad[0] + (f" (+{len(bad) - 1})" if len(bad) > 1 else ""), "bad", "▲") if bad else Say("OK", "good", "✓")
        )

    @cached_property
    def zones_ranked(self) -> list[ZoneView]:
        """Those that need a person first, then by name."""
        return sorted(self.s.zones, key=lambda z: (not self.zone_bad[z.zone], z.zone))

    # ------------------------------------------------------------------ tasks

    def wait_say(self, z: ZoneView, r: RoundView) -> Say:
        """What a task waits for in a zone; bad where the zone needs a person, a warning where it lasts longer than is usual here."""
        ms = self.s.at - r.since if r.since else 0
        text = r.waits + (f", since {ago(ms)}" if ms else "")
        if self.zone_bad[z.zone]:
            return Say(text, "bad", "▲")
        if r.waits.startswith(PAUSED):
            return Say(text, "quiet", "‖")
        if for_others(r):
            return Say(text, "", "◔")
        if (n := failed(r)) > 1:
            return Say(f"{text}; the last {n} rounds failed for want of devices", "warn", "▲")
        usual = r.usual_ms
        asleep = z.devices.get("asleep", 0) == sum(z.devices.values()) > 0
        if not asleep and ms > (max(SLOW_FACTOR * usual, SLOW_LEAST) if usual else SLOW_UNKNOWN):
            often = f": nothing moved, and a round here usually takes {ago(usual)}" if usual else ": nothing moved"
            return Say(text + often, "warn", "▲")
        return Say(text, "", "◔")

    def task_waits(self, task: str) -> list[Wait]:
        """What a task waits for in its zones, the most urgent first."""
        if task not in self._waits:
            here = [(z, r) for z, r in self.rounds.get(task, ()) if r.waits]
            out = [
                Wait(task, z.zone, self.wait_say(z, r), self.s.at - r.since if r.since else 0, for_others(r))
                for z, r in here
            ]
            self._waits[task] = sorted(out, key=_urgent)
        return self._waits[task]

    def waits(self, most: int) -> tuple[list[Wait], int]:
        """The most urgent waits of all tasks in all zones, and how many there are."""
        all_ = [w for t in self.s.tasks for w in self.task_waits(t.task)]
        return nsmallest(most, all_, key=_urgent), len(all_)

    def task_say(self, t: TaskView) -> Say:
        """One line for a task: what is most urgent of what it waits for, or how it ended."""
        waits = self.task_waits(t.task)
        if waits:
            w = waits[0]
            more = f" (+{len(waits) - 1} more)" if len(waits) > 1 else ""
            return replace(w.say, text=f"{w.zone}: {w.say.text}{more}")
        if t.waits:
            return Say(t.waits + (f", since {ago(self.s.at - t.since)}" if t.since else ""), "", "◔")
        return Say(t.why, "bad" if t.phase == "refused" else "quiet", "✗" if t.phase == "refused" else "")

    @cached_property
    def tasks_ranked(self) -> list[TaskView]:
        """Those that need a person, those that run, those refused, those over."""
        return sorted(self.s.tasks, key=self._rank)

    def _rank(self, t: TaskView) -> tuple[int, str]:
        if t.phase == "ended":
            return 4, t.task
        if t.phase == "refused":
            return 3, t.task
        tones = {w.say.tone for w in self.task_waits(t.task)}
        return (0 if "bad" in tones else 1 if "warn" in tones else 2), t.task


def for_others(r: RoundView) -> bool:
    """Has the zone done its part of the epoch? What it waits for is then said where that happens."""
    return r.state not in ("open", "closed") and 0 < r.rounds_goal <= r.rounds_done


def failed(r: RoundView) -> int:
    """How many of its last rounds failed, one after the other."""
    n = 0
    for p in reversed(r.curve):
        if p.loss is not None:
            break
        n += 1
    return n


def _urgent(w: Wait) -> tuple[int, bool, int, str, str]:
    return {"bad": 0, "warn": 1}.get(w.say.tone, 2), w.others, -w.ms, w.task, w.zone


# ------------------------------------------------------------------ the clock of zones


@dataclass(frozen=True, slots=True)
class Hand:
    """Zones on the 24-hour dial that stand so close that one mark is theirs. `hours`: of the first."""

    zones: tuple[str, ...]
    hours: float
    tone: str

    @property
    def label(self) -> str:
        return self.zones[0] if len(self.zones) == 1 else f"{self.zones[0]} +{len(self.zones) - 1}"


def hands(f: Facts, apart: float = 1.2) -> list[Hand]:
    """The zones that have a local time, those less than `apart` hours after another's together."""
    out: list[Hand] = []
    timed = sorted((z.local.hours, z.zone) for z in f.s.zones if z.local)
    for hours, zone in timed:
        tone = "bad" if f.zone_bad[zone] else "good"
        if out and hours - out[-1].hours < apart:
            last = out[-1]
            out[-1] = Hand((*last.zones, zone), last.hours, "bad" if "bad" in (tone, last.tone) else tone)
        else:
            out.append(Hand((zone,), hours, tone))
    return out


# ------------------------------------------------------------------ events


def matching(events: Iterable[Event], kinds: Sequence[str], text: str) -> list[Event]:
    """Those of these kinds (none named: all) with this text, the newest first."""
    text = text.lower()
    return [e for e in reversed(list(events)) if (not kinds or e.kind in kinds) and text in e.text.lower()]
