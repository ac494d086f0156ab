"""The shard of a device is the partition that any Kafka client would pick."""

import random

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as theirs
from hypothesis import given
from hypothesis import strategies as st

from schemas.partitioner import murmur2, shard_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [  # Kafka's own: UtilsTest.testMurmur2
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_kafkas_own_vectors(key, signed):
    assert murmur2(key.encode()) == theirs(key.encode()) == signed % 2**32


@given(st.binary(max_size=70))
def test_murmur2_is_aiokafkas(data):
    assert murmur2(data) == theirs(data)


@given(st.text(max_size=40), st.integers(1, 200))
def test_shard_is_the_producers_partition(key, partitions):
    everywhere = list(range(partitions))
    assert shard_of(key, partitions) == DefaultPartitioner()(key.encode(), everywhere, everywhere)


def test_devices_spread():
    rng = random.Random(1)
    counts = [0] * 8
    for _ in range(8000):
        counts[shard_of(f"{rng.getrandbits(64):016x}", 8)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150
