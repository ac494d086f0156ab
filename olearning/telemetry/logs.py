"""Log lines of a role, as text or as JSON, one for each happening that an operator wants to know of.

A role speaks of its own part: who leads a ledger says what happens on it, an aggregator what becomes of its shards and commits. A line in JSON has `time`, `level`, `event`, `message`, `role`, `name`, and, where there is one, `zone`, `task`, `round`, `epoch` and what
else the event is about; it names no device. What happened before a role had read its ledgers is not said again.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from olearning.happenings import LEADER, SHARD, VOID, Event, happened
from olearning.telemetry.own import Own
from processors.aggregator import Aggregator
from processors.desk import Desk
from schemas.facts import Claimed, Committed
from schemas.wire import Message
from streams.ledger import leads, shards_of
from streams.processor import Processor, Record
from streams.reading import Reading

FORMAT_ENV, LEVEL_ENV = "OLEARNING_LOG_FORMAT", "OLEARNING_LOG_LEVEL"
log = logging.getLogger("olearning.events")


class Format(StrEnum):
    TEXT, JSON = "text", "json"


class Level(StrEnum):
    DEBUG, INFO, WARNING, ERROR = "debug", "info", "warning", "error"


class _Errors(logging.StreamHandler):
    """Writes to what standard error is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


_handler = _Errors()


class Json(logging.Formatter):
    """One object a line."""

    def __init__(self, about: Mapping[str, str]):
        super().__init__()
        self.about = dict(about)

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
        }
        fields |= self.about | getattr(record, "fields", {})
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def wanted() -> Format:
    """What the environment asks for; text for a word that is none."""
    said = os.environ.get(FORMAT_ENV, "")
    return Format(said) if said in set(Format) else Format.TEXT


def _level_wanted(default: str) -> str:
    """The same for the level."""
    said = os.environ.get(LEVEL_ENV, "")
    return said if said in set(Level) else default or Level.WARNING


def set_up(level: str = "", about: Mapping[str, str] | None = None) -> None:
    """Log to standard error, in the format that is wanted. `level`: the default, if the environment says none. `about`: fields that all
    lines have."""
    _handler.setFormatter(Json(about or {}) if wanted() is Format.JSON else logging.Formatter(TEXT))
    root = logging.getLogger()
    if _handler not in root.handlers:
        root.addHandler(_handler)
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it complains of is dealt with, and counted
        logging.getLogger("asyncio").addFilter(
            lambda r: "Unclosed AIOKafka" not in r.getMessage()
        )  # we were interrupted
        for loud in ("asyncio", "opentelemetry"):
            logging.getLogger(loud).setLevel(logging.WARNING)
    root.setLevel(_level_wanted(level).upper())


def tell(role: Processor, to: Callable[[int, Event], None] | None = None) -> None:
    """Have a role's happenings logged."""
    say = to or _say
    if isinstance(role, Desk):
        role.reading.listeners.append(lambda *heard: _leader(role, role.reading, say, *heard))
    elif isinstance(role, Aggregator):
        own = Own(role)
        role.reading.listeners.append(lambda *heard: _aggregator(role, own, say, *heard))


def _say(level: int, event: Event) -> None:
    log.log(level, event.text, extra=_extra(event))


def _extra(event: Event) -> dict[str, Any]:
    return {"event": event.kind, "fields": {"zone": event.zone, **event.values}}


def line(text: str, role: str, event: Event | None = None) -> str:
    """A line of JSON, as roles log it, of a command that tells on its standard output what it does (`event` None: its event is the role),
    or what happened."""
    level = _level(event) if event else logging.INFO
    extra = _extra(event) if event else {"event": role, "fields": {}}
    record = logging.getLogger(role).makeRecord(role, level, "", 0, text, (), None, extra=extra)
    return Json({"role": role}).format(record)


Say = Callable[[int, Event], None]


def _leader(p: Desk, reading: Reading, say: Say, before: Any, fact: Message | None, void: str, record: Record) -> None:
    """All that happens on the ledger it leads, and that it began or ceased to."""
    after = reading.state
    was, now = leads(before, p.name, p.life), leads(after, p.name, p.life)
    if not reading.caught_up or not (was or now):
        return
    if was and not now:
        text = f"{p.scope}: {p.name} leads no more: {after.leader.holder or 'nobody'} does"
        say(
            logging.WARNING,
            Event(record.timestamp, p.scope, LEADER, text, {"step": "lost", "holder": after.leader.holder}),
        )
        return
    for event in happened(before, after, fact, void, p.scope, record.timestamp):
        if event.kind != SHARD:
            say(_level(event), event)


def _aggregator(
    p: Aggregator, own: Own, say: Say, before: Any, fact: Message | None, void: str, record: Record
) -> None:
    """Shards that it took or lost, and commits of its own that were refused."""
    if isinstance(fact, Committed) and void and own.made(fact):
        text = f"{p.zone_name}: the commit for {fact.task} round {fact.round} is refused: {void}"
        values: dict[str, Any] = {"step": "refused", "task": fact.task, "round": fact.round, "reason": void}
        say(logging.WARNING, Event(record.timestamp, p.zone_name, VOID, text, values))
    elif isinstance(fact, Claimed) and p.reading.caught_up:
        after = p.reading.state
        if shards_of(before, p.name, p.life) != shards_of(after, p.name, p.life):
            for event in happened(before, after, fact, void, p.zone_name, record.timestamp):
                say(logging.INFO, event)


def _level(event: Event) -> int:
    """Refused commits, losses, refused tasks and rounds that gave no model are warnings; that another claimed first is not."""
    v = event.values
    bad = (
        v.get("fact") in ("committed", "unreadable") or v.get("step") in ("lost", "refused") or v.get("model") is False
    )
    return logging.WARNING if bad else logging.INFO
