"""What a fact means to a person: one line of text for each notable thing that a ledger says.

Pure functions of the fold before and after a record. `values` holds the same in a form for machines.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from olearning.figures import many
from processors.wisher import said as said_of
from schemas.facts import (
    Abandoned,
    Claimed,
    Closed,
    EpochClosed,
    EpochOpened,
    Finalised,
    Lost,
    Merged,
    Opened,
    Retired,
    Scored,
    SharingSet,
    TaskAdmitted,
    TaskEnded,
    TaskRefused,
    TaskUpdated,
    TenantSet,
    WishRefused,
    ZoneJoined,
)
from schemas.messages import DeadLetter, Evaluation, Objection
from schemas.sharing import SHARING
from schemas.topics import GLOBAL
from schemas.wire import Message, kebab
from streams.ledger import Globe, Holder, Zone

Value = str | int | float | bool
TASK, EPOCH, ROUND, SHARD, LEADER, VOID, EVALUATION, LETTER, OBJECTION, LOSS, TENANT = (
    "task", "epoch", "round", "shard", "leader", "void", "evaluation", "letter", "objection", "loss", "tenant",
)  # fmt: skip


def clean(text: str) -> str:
    """No control characters: keys, reasons and wishes are anybody's, and a terminal obeys them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened at `at` (ms, the log's time) in a zone, or in the globe. `text` is one line, and clean."""

    at: int
    zone: str
    kind: str
    text: str
    values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean(self.text))


def kind_of(fact: Message | None) -> str:
    """The name of a fact's type, as it travels."""
    return kebab(type(fact).__name__) if fact is not None else "unreadable"


def happened(
    before: Zone | Globe, after: Zone | Globe, fact: Message | None, void: str, zone: str, at: int
) -> Iterator[Event]:
    """What the record at `before.position`, written at `at`, brought about."""
    for e in _happened(before, after, fact, void, zone, at):
        yield replace(e, text=f"{e.zone}: {e.text}")


def _happened(
    before: Zone | Globe, after: Zone | Globe, fact: Message | None, void: str, zone: str, at: int
) -> Iterator[Event]:
    if void:
        what = kind_of(fact)
        yield Event(at, zone, VOID, f"{what} is void: {void}", {"fact": what, "reason": void})
    elif isinstance(fact, Claimed):
        yield from _claimed(before, after, zone, at)
    elif isinstance(after, Zone):
        yield from _zone(after, fact, zone, at)
    else:
        yield from _globe(after, fact, at)


def _zone(z: Zone, fact: Message | None, zone: str, at: int) -> Iterator[Event]:
    match fact:
        case Opened(task=task, round=n):
            w = fact.worth
            why = f"contribution {w.contribution:.3g} × progress {w.progress:.3g}"
            if w.starved:
                why += f", raised after {many(w.starved, 'round')} with too few devices"
            text = f"{task} round {n} opened (epoch {fact.epoch}): {fact.demand} devices wanted, reward {w.reward:.3g} ({why})"
            yield Event(at, zone, ROUND, text, {
                "step": "opened", "task": task, "round": n, "epoch": fact.epoch, "reward": w.reward,
                "contribution": w.contribution, "progress": w.progress, "starved": w.starved,
            })  # fmt: skip
        case Closed(task=task, round=n, why=why):
            said = {"demand": "the demand is met", "deadline": "the deadline is over"}.get(why, why)
            text = f"{task} round {n} closed: {said}"
            yield Event(at, zone, ROUND, text, {"step": "closed", "task": task, "round": n, "why": why})
        case Finalised(task=task, round=n):
            loss = fact.mean_loss
            if fact.manifest:
                text = f"{task} round {n} finalised: {many(fact.devices, 'device')}, {many(fact.samples, 'sample')}, mean loss {loss:.4f}"
            else:
                text = f"{task} round {n} failed: only {many(fact.devices, 'device')}"
            yield Event(at, zone, ROUND, text, {
                "step": "finalised", "task": task, "round": n, "epoch": z.tasks[task].epoch, "devices": fact.devices,
                "samples": fact.samples, "loss": loss, "model": fact.manifest is not None,
            })  # fmt: skip
        case Lost(task=task, what=what):
            yield Event(
                at, zone, LOSS, f"{task} stands still: {what}", {"step": "lost", "task": task, "at": z.position - 1}
            )
        case Abandoned(task=task, by=by, reason=reason):
            text = f"{task} goes on without what was lost at {fact.lost}: {by} gave it up{reason and f' ({reason})'}"
            yield Event(
                at, zone, LOSS, text, {"step": "abandoned", "task": task, "at": fact.lost, "by": by, "reason": reason}
            )
        case Retired(task=task):
            yield Event(at, zone, TASK, f"{task} is over here", {"step": "retired", "task": task})


_WHY = {
    "rounds": "all zones did their rounds",
    "deadline": "the deadline is over",
    "window": "its time is over",
    "enough": "enough zones did their rounds",
    "stop": "the task is to stop",
}


def _globe(g: Globe, fact: Message | None, at: int) -> Iterator[Event]:
    match fact:
        case ZoneJoined(zone=zone):
            yield Event(at, zone, TASK, "the zone joined", {"step": "joined"})
        case TaskAdmitted():
            task, zones = fact.spec.task, ", ".join(fact.zones)
            yield Event(at, GLOBAL, TASK, f"{task} admitted to {zones}", {"step": "admitted", "task": task})
        case TaskRefused(task=task, reason=reason):
            what = "the change of " if task in g.tasks else ""
            yield Event(at, GLOBAL, TASK, f"{what}{task} refused: {reason}", {"step": "refused", "task": task})
        case TaskUpdated(task=task, wanted=wanted, by=by):
            said = {"run": "runs", "pause": "is paused", "stop": "is to stop"}[wanted]
            text = f"{task} {said} with the settings of submission {fact.submission}{by and f' ({by})'}"
            yield Event(at, GLOBAL, TASK, text, {"step": "updated", "task": task, "wanted": wanted, "by": by})
            for zone, n in fact.enough.items():
                text = f"{task} round {n} is to end with what came{by and f' ({by})'}"
                yield Event(at, zone, ROUND, text, {"step": "enough", "task": task, "round": n, "by": by})
        case TenantSet(tenant=x):
            yield Event(at, GLOBAL, TENANT, f"{said_of(x)}{x.by and f' ({x.by})'}", {"step": "set", "tenant": x.tenant})
        case SharingSet(sharing=x):
            yield Event(
                at,
                GLOBAL,
                TENANT,
                f"{said_of(x)}{x.by and f', as {x.by} said'}",
                {"step": "shared", "policy": x.policy},
            )
        case WishRefused(key=key, reason=reason):
            what = "another sharing policy" if key == SHARING else f"what tenant {key} is to have"
            yield Event(at, GLOBAL, TENANT, f"{what} refused: {reason}", {"step": "refused", "key": key})
        case EpochOpened(task=task, epoch=n):
            t = g.tasks[task]
            where = f" in {', '.join(t.part)}" if set(t.part) < set(t.zones) else ""
            text = f"{task} epoch {n} of {t.spec.epochs.count} opened{where}"
            yield Event(at, GLOBAL, EPOCH, text, {"step": "opened", "task": task, "epoch": n})
        case EpochClosed(task=task, epoch=n, why=why):
            said = _WHY.get(why, why)
            yield Event(
                at, GLOBAL, EPOCH, f"{task} epoch {n} closed: {said}", {"step": "closed", "task": task, "epoch": n}
            )
        case Merged(task=task, epoch=n):
            zones = ", ".join(sorted(g.tasks[task].updates))
            got = f"merged from {zones}, {many(fact.samples, 'sample')}" if fact.manifest else "brought nothing"
            values: dict[str, Value] = {"step": "merged", "task": task, "epoch": n, "samples": fact.samples}
            if len(fact.contributions) > 1:
                got += f"; contributions {', '.join(f'{z} {c:.3g}' for z, c in sorted(fact.contributions.items()))}"
            yield Event(at, GLOBAL, EPOCH, f"{task} epoch {n} {got}", values)
        case Scored(task=task, epoch=n):
            text = f"{task} epoch {n} scored: accuracy {fact.accuracy:.4f}, loss {fact.loss:.4f}"
            values = {"step": "scored", "task": task, "epoch": n, "accuracy": fact.accuracy, "loss": fact.loss}
            yield Event(at, GLOBAL, EPOCH, text, values)
        case TaskEnded(task=task, why=why):
            yield Event(at, GLOBAL, TASK, f"{task} ended: {why}", {"step": "ended", "task": task})


def _claimed(before: Zone | Globe, after: Zone | Globe, zone: str, at: int) -> Iterator[Event]:
    """Who took what from whom; shards together by the one they came from."""
    token = before.position
    if after.leader.token == token:
        text = f"{after.leader.holder} leads {_from(before.leader, after.leader)}"
        values: dict[str, Value] = {"holder": after.leader.holder, "from": before.leader.holder, "token": token}
        yield Event(at, zone, LEADER, text, values)
    if not isinstance(after, Zone) or not isinstance(before, Zone):
        return
    taken: dict[Holder, list[int]] = {}
    for s, (old, new) in enumerate(zip(before.shards, after.shards, strict=True)):
        if new.token == token:
            key = Holder(holder=old.holder, life=old.life)
            taken.setdefault(key, []).append(s)
            mine = new
    for old, shards in taken.items():
        names = ", ".join(map(str, shards))
        which = f"{'shard' if len(shards) == 1 else 'shards'} {names}"
        text = f"{mine.holder} took {which} {_from(old, mine)}" if mine.holder else f"{old.holder} gave back {which}"
        yield Event(at, zone, SHARD, text, {"holder": mine.holder, "from": old.holder, "shards": names, "token": token})


def _from(old: Holder, new: Holder) -> str:
    if not old.holder:
        return "(nobody's before)"
    return "(its own before it restarted)" if old.holder == new.holder else f"from {old.holder}"


def evaluated(e: Evaluation) -> Event:
    what = "untrained model" if e.epoch == 0 else f"global model of epoch {e.epoch}"
    text = f"{e.task}: the {what} has accuracy {e.accuracy:.4f} on {many(e.samples, 'sample')}"
    values: dict[str, Value] = {"task": e.task, "epoch": e.epoch, "accuracy": e.accuracy, "loss": e.loss}
    return Event(e.at, GLOBAL, EVALUATION, text, values)


def objected(o: Objection) -> Event:
    text = f"{o.task}: {o.source} cannot do its part: {o.reason}"
    return Event(o.at, GLOBAL, OBJECTION, text, {"task": o.task, "source": o.source, "reason": o.reason})


def dead(letter: DeadLetter, at: int) -> Event:
    parts = letter.topic.split(".")
    zone = parts[1] if len(parts) > 2 else GLOBAL
    where = f"{letter.topic}/{letter.partition}/{letter.offset}"
    return Event(at, zone, LETTER, f"dead letter: {letter.reason} ({where})", {"reason": letter.reason, "from": where})
