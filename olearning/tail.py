"""Any topic of a namespace, for a person: one line a record, shapes and norms in place of tensors; or as JSON lines.

What cannot be read is shown as such, with the reason and its first bytes.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from learning.codecs import read_values
from olearning.happenings import clean
from schemas.blocks import DeltaBlock, Manifest, ModelBlock, SumBlock, codec
from schemas.topics import read
from schemas.wire import Malformed
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Starts, Stop

LONGEST = 96
"""Characters of a field in a line."""
PREFIX = 16
"""Bytes shown of what has no better form."""


class Tail:
    """Shows the records of a topic. Where it begins, by partition: `offsets`, else the `last` so many, else the first if
    `from_start`, else the end there is now. It stops at the end that was there at the start, unless told to `follow`, and
    in any case after `limit` records; 0 is no limit."""

    membership: Membership | None = None
    tick = 1_000

    def __init__(
        self,
        topic_name: str,
        emit: Callable[[str], None],
        *,
        from_start: bool = True,
        offsets: Mapping[int, int] | None = None,
        last: int = 0,
        follow: bool = False,
        as_json: bool = False,
        limit: int = 0,
        name: str = "tail",
    ):
        self.topic, self.emit, self.name = topic_name, emit, name
        self.from_start, self.offsets, self.last = from_start, dict(offsets or {}), last
        self.follow, self.as_json, self.limit = follow, as_json, limit
        self.shown = 0
        self._starts: dict[int, int] = {}
        self._left: dict[int, int] = {}
        """By partition, the end that is still to be reached."""

    def start(self, now: int) -> Iterator[Effect]:
        yield Starts("starts", self.topic)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Answer(error=error) if error:
                yield Stop(f"{self.topic}: {error}")
            case Answer("starts", starts):
                self._starts = starts
                yield Ends("ends", self.topic)
            case Answer("ends", ends):
                yield from self._begin(ends)
            case Record():
                yield from self._show(event)

    def _begin(self, ends: Mapping[int, int]) -> Iterator[Effect]:
        for p, end in sorted(ends.items()):
            begin = self._from(p, end)
            if begin < end:
                self._left[p] = end
            if begin < end or self.follow:
                yield Follow(self.topic, p, begin)
        yield from self._over()

    def _from(self, p: int, end: int) -> int:
        low = max(self.offsets.get(p, 0), self._starts.get(p, 0))
        if self.last:
            return max(low, end - self.last)
        return low if self.from_start or p in self.offsets else end

    def _show(self, record: Record) -> Iterator[Effect]:
        if self.limit and self.shown >= self.limit:
            return
        if not self.follow and record.offset >= self._left.get(record.partition, 0):
            return  # it came after the end that was asked for
        self.shown += 1
        self.emit(as_line(record) if not self.as_json else json.dumps(as_map(record), ensure_ascii=False))
        if record.offset + 1 >= self._left.get(record.partition, 0):
            self._left.pop(record.partition, None)
        yield from self._over()

    def _over(self) -> Iterator[Effect]:
        full = bool(self.limit) and self.shown >= self.limit
        if full or (not self.follow and not self._left):
            yield Stop(f"{self.shown} records of {self.topic}", ok=True)


# ------------------------------------------------------------------ a record as text


def as_map(record: Record) -> dict[str, Any]:
    """A record in plain values, its message's under "fields": what is large is told by its shape and norm."""
    out: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": record.key,
        "bytes": len(record.value or b""),
    }
    if cause := next((v for k, v in record.headers if k == "cause"), b""):
        out["cause"] = cause.decode(errors="replace")
    if record.value is None:
        return out | {"type": "tombstone"}
    try:
        message = read(record.topic, record.value, record.headers)
    except Malformed as e:
        return out | {"type": "unreadable", "reason": str(e), "hex": record.value[:PREFIX].hex()}
    fields = {n: _plain(getattr(message, n)) for n in message.__struct_fields__}
    if isinstance(message, DeltaBlock | ModelBlock | SumBlock):
        fields["data"] = _tensor(message)
    return out | {"type": message.__struct_config__.tag, "fields": fields}


def as_line(record: Record) -> str:
    """A record in one line: time (UTC), partition@offset, key, type, fields."""
    m = as_map(record)
    when = datetime.fromtimestamp(m["timestamp"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    head = [when, f"{m['partition']}@{m['offset']}", clean(m["key"]) if m["key"] is not None else "–", m["type"]]
    rest = {k: m[k] for k in ("reason", "hex", "cause") if k in m} | m.get("fields", {})
    return " ".join([*head, *(f"{k}={_short(v)}" for k, v in rest.items())])


def _plain(value: Any) -> Any:
    match value:
        case Manifest():
            return {"topic": value.topic, "version": value.version, "blocks": len(value.blocks)}
        case msgspec.Struct():
            return {n: _plain(getattr(value, n)) for n in value.__struct_fields__}
        case dict():
            return {str(k): _plain(v) for k, v in value.items()}
        case tuple() | list() | frozenset():
            return [_plain(v) for v in value]
        case bytes() | memoryview():
            raw = bytes(value[:PREFIX])
            return {"bytes": len(value), "hex": raw.hex()}
        case float() if not np.isfinite(value):
            return str(value)  # JSON has no word for it
    return value


def _tensor(m: DeltaBlock | ModelBlock | SumBlock) -> dict[str, Any]:
    """Type, length and Euclidean norm. A delta's is in units of 2^unit: the unit stands in `Opened`, not in the block."""
    values: np.ndarray
    try:
        match m:
            case DeltaBlock():
                values, scale = (
                    read_values(codec(m.codec), m.data).q,
                    2.0 ** min(m.exponent, 1023),
                )  # it may be anything
            case ModelBlock():
                values, scale = np.frombuffer(m.data, "<f4"), 1.0
            case SumBlock():
                values, scale = np.frombuffer(m.data, "<i8"), 1.0
    except ValueError:
        return _plain(m.data)
    with np.errstate(all="ignore"):
        norm = float(np.sqrt(np.sum(np.square(values, dtype=np.float64))) * scale)
    return {"dtype": values.dtype.name, "length": len(values), "l2": norm if np.isfinite(norm) else str(norm)}


def _short(value: Any) -> str:
    match value:
        case {"dtype": dtype, "length": n, "l2": norm}:
            return f"{dtype}[{n}] |{norm:.6g}|" if isinstance(norm, float) else f"{dtype}[{n}] |{norm}|"
        case {"bytes": n, "hex": first}:
            return f"{n} bytes {first}{'…' if n > PREFIX else ''}"
        case dict():
            text = "{" + " ".join(f"{k}:{_short(v)}" for k, v in value.items()) + "}"
        case list():
            text = "[" + " ".join(map(_short, value)) + "]"
        case float():
            text = f"{value:.6g}"
        case None:
            text = "–"
        case _:
            text = clean(str(value))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
