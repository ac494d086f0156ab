"""What both ledgers have: founding, rules, seats, checkpoints; and how a fact is void.

A fact names what it follows and is accepted iff that is still the last of its chain when it lands.
"""

from typing import Any

from msgspec.structs import replace

from schemas.facts import LEADERSHIP, RULES, Checkpoint, Claimed, Founded, Rules
from streams.ledger.states import Holder, Mark, S, Zone

MARKS = 4
"""A checkpoint's offset is at most so many times `every` behind: so many folds of its own a reader keeps to compare."""


class Void(Exception):
    """The fact does not follow the last of its chain; the text says why."""


class UnknownRules(RuntimeError):
    """The ledger is folded by rules that this version does not know: stop, and install a newer one."""


class Diverged(RuntimeError):
    """This reader's fold is not the one that the leader's checkpoint names: stop, nothing it decides can be trusted."""


def require(holds: bool, reason: str) -> None:
    """The guard of every fact: raises `Void` with the reason if it does not hold."""
    if not holds:
        raise Void(reason)


def put(items: tuple, i: int, x: Any) -> tuple:
    """The items with another at i."""
    return (*items[:i], x, *items[i + 1 :])


def known_rules(ledger: str, rules: int) -> None:
    """Raises `UnknownRules` if this version cannot fold a ledger by these."""
    if rules > RULES:
        raise UnknownRules(f"ledger {ledger} follows rules {rules}; this version knows {RULES}: install a newer one")
    if rules < RULES:
        raise UnknownRules(
            f"ledger {ledger} follows rules {rules} of an older version, and this one folds by {RULES}: let the older one finish its "
            "tasks, or begin anew under another --namespace"
        )


def founded(s: S, at: int, time: int, f: Founded) -> S:
    require(not s.ledger, "already founded")
    known_rules(f.ledger, f.rules)
    require(f.every != 1, "a checkpoint is a record: one for each record would never end")
    new = replace(s, ledger=f.ledger, zone=f.zone, partitions=f.partitions, rules=f.rules, every=f.every)
    if isinstance(new, Zone):
        new = replace(new, shards=(Holder(),) * f.partitions, registrations=(0,) * f.partitions)
    return new


def rules(s: S, at: int, time: int, f: Rules) -> S:
    require(f.n > s.rules, f"rules {s.rules} are followed already")
    if f.n > RULES:
        raise UnknownRules(f"from offset {at} on ledger {s.ledger} follows rules {f.n}; this version knows {RULES}")
    return replace(s, rules=f.n)


def claimed(s: S, at: int, time: int, f: Claimed) -> S:
    """Judged seat by seat; the claim's own offset becomes the token of those it gets."""
    mine, gained = Holder(holder=f.holder, life=f.life, token=at), False
    for seat, replaces in f.seats.items():
        if seat == LEADERSHIP and s.leader.token == replaces:
            s, gained = replace(s, leader=mine), True
        elif isinstance(s, Zone) and 0 <= seat < len(s.shards) and s.shards[seat].token == replaces:
            s, gained = replace(s, shards=put(s.shards, seat, mine)), True
    require(gained, "someone else claimed since")
    return s


def lead(s: S, token: int) -> None:
    """Only who leads may say this."""
    require(token == s.leader.token != 0, f"token {token} is not the leader's ({s.leader.token})")


def checkpoint(s: S, at: int, time: int, f: Checkpoint) -> S:
    """One at most for each multiple of `every`, and soon after it, so that every reader still has its own fold of that
    offset to compare (`Ledger.feed` does)."""
    lead(s, f.token)
    last = s.checkpoints[-1].offset if s.checkpoints else 0
    require(s.every > 0 and f.offset % s.every == 0 and last < f.offset <= at, f"no checkpoint is due at {f.offset}")
    require(at - f.offset < MARKS * s.every, f"the checkpoint of {f.offset} comes too late")
    known = {0, *(m.offset for m in s.checkpoints)}
    require(s.cut <= f.cut and f.cut in known, f"the ledger cannot be cut at {f.cut}")
    require(not s.checkpoints or f.cut <= last, f"the checkpoint of {last} must stay")
    marks = (*s.checkpoints, Mark(offset=f.offset, hash=f.hash, places=f.places))
    return replace(s, checkpoints=tuple(m for m in marks if m.offset >= f.cut), cut=f.cut)
