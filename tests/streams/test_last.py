"""What came of a task that is over is found again by the row that the globe keeps of it, and by nothing else."""

from functools import partial

import numpy as np
import pytest

from schemas.blocks import Last, Manifest, last
from schemas.topics import GLOBAL, topic
from streams.memory import Memory
from streams.models import Lost, Writing, look_up
from streams.processor import Record, Requests

MODELS = topic("n", GLOBAL, "models")
SIZES = (4, 4, 2)
VECTOR = np.arange(10, dtype=np.float32)


def written(memory: Memory, where: str, vector: np.ndarray, short: bool = False) -> Manifest:
    writing = Writing(MODELS, 4, "t", 3, where, vector, SIZES, {1: (7, b"short")} if short else {})
    requests = Requests()
    for send in writing.sends(requests, "block"):
        _, key = requests.close(send.tag)
        writing.stored(key, memory.append(send))
    return writing.manifest


@pytest.fixture
def world() -> tuple[Memory, Last]:
    memory = Memory()
    memory.create(MODELS.name, 4)
    written(memory, "1/1", VECTOR + 1)
    right = written(memory, "1/2", VECTOR, short=True)
    written(memory, "1/3", VECTOR + 2)  # the same version, by one who led no more
    return memory, last(right)


def test_it_is_the_version_that_was_named(world):
    memory, kept = world
    assert look_up(kept, partial(memory.records, MODELS.name)).tobytes() == VECTOR.tobytes()
    assert look_up(kept, lambda p, start: [*memory.records(MODELS.name, p, start)] * 2).tobytes() == VECTOR.tobytes()


def test_what_is_gone_or_another_is_said(world):
    memory, kept = world
    there = [r for p, start in kept.starts for r in memory.records(MODELS.name, p, start)]
    with pytest.raises(Lost, match=r"block 2 of the last version, 3, is not there"):
        look_up(kept, lambda p, start: [r for r in there if not (r.key or "").endswith("1/2/2")])
    strange = [Record(r.topic, r.partition, r.offset, "t/3/1/2/0", r.value, r.timestamp) for r in there[4:5]]
    with pytest.raises(Lost, match="is not what was written"):
        look_up(kept, lambda p, start: [*strange, *there])


def test_it_takes_no_more_room_however_many_blocks_there_are():
    memory = Memory()
    memory.create(MODELS.name, 4)
    writing = Writing(MODELS, 4, "t", 3, "1/1", np.zeros(3_000, np.float32), (1,) * 3_000)
    requests = Requests()
    for send in writing.sends(requests, "block"):
        writing.stored(requests.close(send.tag)[1], memory.append(send))
    kept = last(writing.manifest)
    assert (kept.blocks, len(kept.starts)) == (3_000, 1)
    assert look_up(kept, partial(memory.records, MODELS.name)).size == 3_000
