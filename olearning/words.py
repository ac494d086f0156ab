"""What every view says of a snapshot, in the same words with the same signs: `status`, `watch` and the live page. Pure functions.

Every state is told by a sign and a word; a tone only repeats it, as the terminal's colour (`screen.py`) and the page's class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from olearning.figures import clock, listed, span
from olearning.happenings import EVALUATION, LETTER, LOSS, OBJECTION, VOID, Event
from olearning.snapshot import (
    BEHIND,
    COUNTS,
    NOBODY,
    OK,
    SILENT,
    STALLED,
    Identity,
    ShardView,
    Snapshot,
    TaskView,
    ZoneView,
)
from olearning.waiting import PAUSED, STANDS_STILL


@dataclass(frozen=True, slots=True)
class Say:
    """Words with their sign and tone: good, warn, bad, quiet or none."""

    text: str
    tone: str = ""
    sign: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.text}".strip()


# ------------------------------------------------------------------ whether a person is needed


def light(s: Snapshot, bad: Sequence[str]) -> Say:
    """The one line that says whether a person is needed. `bad`: the snapshot's `problems`."""
    if s.away:
        return Say(f"no answer from the log for {span(s.away)}", "bad", "✗")
    if not s.caught_up:
        return Say("still reading the past", "warn", "…")
    if bad:
        return Say(f"{len(bad):,} to look at", "bad", "▲")
    return Say("nothing to look at", "good", "✓")


def live(s: Snapshot) -> Say:
    """Whether what is shown is of now."""
    if s.away:
        return Say(f"as of {clock(s.at)}", "bad", "✗")
    return Say(f"live {clock(s.at)}", "good", "●") if s.caught_up else Say(f"reading, {clock(s.at)}", "warn", "…")


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
        if r.waits.startswith(STANDS_STILL) and not r.waits.startswith(PAUSED):  # a pause somebody wanted
            out.append(f"{r.task} stands still: {r.waits.removeprefix(STANDS_STILL)}")
    for word in (NOBODY, SILENT, STALLED):
        if bad := [x for x in z.shards if x.word == word]:
            said = {NOBODY: "held by nobody", SILENT: f"held by {_holders(bad)}, silent", STALLED: "stand still"}
            out.append(f"{_numbers(bad)} {said[word]} ({_start('aggregator', z)})")
    return out


def _start(role: str, z: ZoneView) -> str:
    """What brings somebody who takes over."""
    return f"olearning run {role} --zone {z.zone}"


def _numbers(shards: list[ShardView]) -> str:
    return ("shard " if len(shards) == 1 else "shards ") + listed([x.shard for x in shards])


def _holders(shards: list[ShardView]) -> str:
    return ", ".join(sorted({x.holder for x in shards}))


# ------------------------------------------------------------------ what is so

SHARDS = {OK: ("✓", "good"), BEHIND: ("▲", "warn"), STALLED: ("■", "bad"), SILENT: ("?", "bad"), NOBODY: ("✗", "bad")}


def shard_say(word: str) -> Say:
    sign, tone = SHARDS[word]
    return Say(word, tone, sign)


def adds_up(i: Identity, headed: bool = False) -> Say:
    """The light of the identity (design §6). `headed`: a heading says of what it is, and why has a place of its own."""
    if i.ok:
        return Say("yes" if headed else "adds up", "good", "✓")
    return Say("NO" if headed else f"does not add up: {i.problem}", "bad", "✗")


def equation(i: Identity) -> str:
    """The identity in numbers: what is 0 and seldom anything else is left out."""
    parts = [f"{getattr(i, n):,} {n}" for n in COUNTS[1:] if getattr(i, n) or n not in ("held", "lost")]
    return f"{i.offsets:,} offsets {'=' if i.ok else '≠'} {' + '.join(parts)}"


def phase_say(t: TaskView) -> Say:
    match t.phase:
        case "ended":
            return Say("ended", "quiet", "✓")
        case "refused":
            return Say("refused", "bad", "✗")
        case "paused" | "stopping":
            return Say(t.phase, "warn", "‖")
    return Say(t.phase, "", "●")


def local_say(z: ZoneView) -> Say:
    if z.local is None:
        return Say("no local time", "quiet")
    return Say(f"{z.local.clock} {'night' if z.local.night else 'day'}", "", "☾" if z.local.night else "☀")


EVENTS = {
    EVALUATION: ("✓", "good"),
    LOSS: ("■", "bad"),
    LETTER: ("▲", "warn"),
    OBJECTION: ("▲", "warn"),
    VOID: ("∅", "quiet"),
}


def event_say(e: Event) -> Say:
    sign, tone = EVENTS.get(e.kind, ("·", ""))
    if e.values.get("step") == "refused":
        sign, tone = "✗", "bad"
    elif e.values.get("model") is False:  # a round that failed
        sign, tone = "▲", "warn"
    return Say(e.text, tone, sign)
