"""What a log holds, as `Record`s, whatever strangers wrote into it: aiokafka's consumer, made to leave nothing out.

Anyone may write to the topics that devices write to. Left to itself, aiokafka hides the markers that end a transaction,
so that offsets seem lost; it fails for a whole batch at a header key that is not UTF-8, and at a batch compressed by
what is not installed, again at each attempt. Here every offset of a topic that is not compacted comes exactly once, in
order: what is no record, or none that can be read, comes as an empty one. A codec that is missing is another thing: the
record may well be good, so an `Unreadable` comes in its place, and no further.

This touches private attributes of aiokafka 0.14, of these consumers alone; `tests/streams/test_kafka.py` looks whether
they still mean the same.
"""

import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint_py
from crc32c import crc32c

from schemas.topics import compacted
from schemas.wire import Headers
from streams.processor import Record
from streams.stranded import Stranded

log = logging.getLogger(__name__)

BROKEN = (ValueError, IndexError, EOFError, OSError, zlib.error, CorruptRecordException)
"""What a batch raises whose checksum is right, but not what it holds."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a batch that can be read elsewhere, but not here: from `offset` to before `end`."""

    topic: str
    partition: int
    offset: int
    end: int
    error: str

    def __str__(self) -> str:
        return (
            f"{self.topic}-{self.partition}: the batch at offset {self.offset} cannot be read here: {self.error}. "
            "Install it (`pip install cramjam`) and start again; with the topic's setting "
            "compression.type=uncompressed no more of the kind can come"
        )


class Consumer(AIOKafkaConsumer):
    """Of no group. Its `getmany` hands over `Record` and `Unreadable` instead of aiokafka's records."""

    def __init__(self, **settings: Any):
        super().__init__(**settings, group_id=None, enable_auto_commit=False, auto_offset_reset="none")

    async def start(self) -> None:
        await super().start()
        self._fetcher._proc_fetch_request = MethodType(_PROC, self._fetcher)
        self._stranded = Stranded(self._client)

    def check(self) -> None:
        """Raises `KafkaError` if nothing can come of reading on: aiokafka would go on without a word."""
        if self._fetcher.error_future.done():
            raise KafkaError("the fetcher ended")
        if self._stranded():
            raise KafkaError("no broker that it knows answers")


class _Batches:
    """The batches in the answer to a fetch, each with its bytes."""

    def __init__(self, data: bytes):
        self._data, self._at, self._batches = data, 0, MemoryRecords(data)

    def has_next(self) -> bool:
        return self._batches.has_next()

    def size_in_bytes(self) -> int:
        return len(self._data)

    def next(self) -> tuple[Any, memoryview]:
        start = self._at
        self._at += 12 + int.from_bytes(self._data[start + 8 : start + 12], "big")
        return self._batches.next_batch(), memoryview(self._data)[start : self._at]


class _Records:
    """The records in the answer to a fetch; takes the place of aiokafka's `PartitionRecords`."""

    def __init__(self, tp: TopicPartition, batches: _Batches, aborted: Any, offset: int, *_: Any):
        self.next_fetch_offset = offset  # of what comes next; the consumer takes its position from here
        self._tp, self._batches = tp, batches
        self._records = self._unpack()

    def __iter__(self) -> Iterator[Record | Unreadable]:
        return self._records

    def _unpack(self) -> Iterator[Record | Unreadable]:
        topic, partition = self._tp
        holes = compacted(topic)
        while self._batches.has_next():
            batch, data = self._batches.next()
            if not _intact(batch, data):
                raise CorruptRecordException(f"wrong checksum in {topic}-{partition} from {self.next_fetch_offset} on")
            end, empty = batch.next_offset, batch.is_control_batch
            try:
                found = [] if empty else _read(batch, data)
            except UnsupportedCodecError as e:
                yield Unreadable(topic, partition, self.next_fetch_offset, end, e.args[0])
                return
            except BROKEN as e:
                log.warning("%s-%d: nothing to be read before offset %d: %r", topic, partition, end, e)
                found, empty = [], True
            named: Any = None
            headers: Headers = ()  # of the record before: most have the same
            for r in found:
                offset = r.offset
                if not self.next_fetch_offset <= offset < end:
                    continue  # before what was asked for; or out of order, which brokers let pass
                if offset > self.next_fetch_offset and not holes:
                    yield from self._nothing(offset, batch)
                self.next_fetch_offset = offset + 1
                key, value = r.key, r.value
                if r.headers != named:
                    named = r.headers
                    headers = tuple([(k, v or b"") for k, v in named])
                yield Record(
                    topic,
                    partition,
                    offset,
                    None if key is None else key.decode("utf-8", "replace"),
                    value if value is None or type(value) is bytes else bytes(value),
                    r.timestamp,
                    headers,
                )
            if holes:  # what is gone was superseded
                self.next_fetch_offset = max(self.next_fetch_offset, batch.base_offset if empty else end)
            yield from self._nothing(end, batch)

    def _nothing(self, end: int, batch: Any) -> Iterator[Record]:
        for offset in range(self.next_fetch_offset, end):
            self.next_fetch_offset = offset + 1
            yield Record(self._tp.topic, self._tp.partition, offset, None, None, batch.max_timestamp)


def _intact(batch: Any, data: memoryview) -> bool:
    """Whether the batch's checksum is right: from format 2 on by the processor's own instruction, 15 times as fast."""
    if data[16] < 2:
        return bool(batch.validate_crc())
    return crc32c(data[21:]) == int.from_bytes(data[17:21], "big")


def _read(batch: Any, data: memoryview) -> list[Any]:
    try:
        return list(batch)
    except (UnicodeDecodeError, CorruptRecordException):  # a header's key, the only text there is, is none
        again = _DefaultRecordBatchPy(data)
        again._maybe_uncompress()
        again._buffer = _Lenient(again._buffer)
        return [again._read_msg(decode_varint_py) for _ in range(again._num_records)]


class _Lenient(bytearray):
    """Bytes whose every slice can be decoded."""

    def __getitem__(self, at: Any) -> Any:
        got = super().__getitem__(at)
        return _Lenient(got) if isinstance(at, slice) else got

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


_theirs = Fetcher._proc_fetch_request
_PROC = FunctionType(_theirs.__code__, {**_theirs.__globals__, "MemoryRecords": _Batches, "PartitionRecords": _Records})
"""What the fetcher does with an answer, with these classes in place of aiokafka's."""
