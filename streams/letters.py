"""Letters to a person: dead ones, of what could not be read or was refused, which goes there and never into state; and objections, of
what a role cannot do for a task."""

from schemas.messages import DeadLetter, Objection
from schemas.topics import GLOBAL, topic
from streams.processor import Record, Send, send

LONGEST, LONGEST_KEY, LONGEST_REASON = 65_536, 1_024, 500
"""What a dead letter keeps of value and key (bytes) and of the reason (characters): it must fit a record itself."""


def dead_letter(namespace: str, record: Record, reason: str, by: str) -> Send:
    """The record with the reason and where it came from; its key is that place, so a repeated one is seen to be one."""
    where = f"{record.topic}/{record.partition}/{record.offset}"
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=reason[:LONGEST_REASON],
        by=by,
        key=record.key.encode()[:LONGEST_KEY] if record.key is not None else None,
        value=record.value[:LONGEST] if record.value is not None else None,
    )
    return send(topic(namespace, GLOBAL, "dead-letters"), letter, where)


def objection(namespace: str, source: str, task: str, reason: str, now: int) -> Send:
    """That `source` cannot do its part for a task, and why: on the metrics."""
    said = Objection(source, now, task, reason[:LONGEST_REASON])
    return send(topic(namespace, GLOBAL, "metrics"), said, source)
