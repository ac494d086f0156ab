"""Codecs: what a device wrote is what is added, bit for bit; and no bytes do more harm than a `ValueError`."""

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from learning.aggregation import largest_in_units, quantise, within
from learning.codecs import Values, read_values, write_values
from processors.oracle import plain
from schemas.blocks import BLOCK, CODECS, codec

UNIT, LARGEST = -24, 65536.0
MOST = largest_in_units(LARGEST, UNIT)
SIZE = 12

names = st.sampled_from(sorted(CODECS))
values = st.lists(
    st.one_of(
        st.floats(-LARGEST, LARGEST, width=32),
        st.floats(-1, 1, width=32),
        st.sampled_from([0.0, LARGEST, -LARGEST, 1e-9]),
    ),
    min_size=SIZE,
    max_size=SIZE,
).map(np.array)


def dice(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def units(v: Values, exponent: int, size: int = SIZE) -> list[int]:
    """What a block adds, in Python's integers."""
    out = [0] * size
    for i, n in zip(range(size) if v.at is None else v.at.tolist(), v.q.tolist(), strict=True):
        out[i] += n << exponent
    return out


# ------------------------------------------------------------------ names


def test_the_names():
    assert len(CODECS) == 12
    assert codec("top-k+int16+zstd") == ("top-k+int16+zstd", 16, True, True)
    assert codec("int32") == ("int32", 32, False, False)
    for name in ("", "int64", "zstd", "int8+top-k", "INT8", "int8+zstd+zstd", "float32"):
        with pytest.raises(ValueError, match="is not known; known: int32, int16, int8, int32"):
            codec(name)


# ------------------------------------------------------------------ there and back


@given(names, values, st.floats(0.01, 1), st.integers(0, 9))
def test_what_is_written_is_what_is_added(name: str, v: np.ndarray, keep: float, seed: int):
    c = codec(name)
    data, exponent = write_values(v, c, UNIT, LARGEST, dice(seed), keep)
    got = read_values(c, data, SIZE)
    assert within(got.q, exponent, MOST)
    acc = np.zeros(SIZE, np.int64)
    got.add(acc, exponent)
    assert acc.tolist() == units(got, exponent)
    step = Fraction(2) ** (UNIT + exponent)
    for i, x in enumerate(v.tolist()):
        there = Fraction(int(acc[i])) * Fraction(2) ** UNIT
        if got.at is None or i in got.at:
            assert abs(there - Fraction(x)) <= (step / 2 if c.bits == 32 else step)
        else:
            assert there == 0


@given(names, values, st.integers(0, 9))
def test_the_exponent_is_the_smallest_that_fits(name: str, v: np.ndarray, seed: int):
    c = codec(name)
    _, exponent = write_values(v, c, UNIT, LARGEST, dice(seed), 1.0)
    if exponent:
        edge, finer = 2 ** (c.bits - 1), [Fraction(x) / Fraction(2) ** (UNIT + exponent - 1) for x in v.tolist()]
        up, down = (round, round) if c.bits == 32 else (lambda x: -(-x // 1), lambda x: x // 1)
        assert up(max(finer)) >= edge or down(min(finer)) < -edge


blocks = st.tuples(names, values, st.integers(0, 9)).map(
    lambda x: (x[0], *write_values(x[1], codec(x[0]), UNIT, LARGEST, dice(x[2]), 0.3))
)


@given(st.lists(blocks, min_size=1, max_size=8), st.data())
def test_order_and_grouping_change_no_bit_whatever_the_codecs(parts: list[Any], data: Any):
    def total(some: list[Any]) -> np.ndarray:
        acc = np.zeros(SIZE, np.int64)
        for name, raw, exponent in some:
            read_values(codec(name), raw, SIZE).add(acc, exponent)
        return acc

    whole = [sum(col) for col in zip(*(units(read_values(codec(n), raw, SIZE), e) for n, raw, e in parts), strict=True)]
    shuffled = data.draw(st.permutations(parts))
    cut = data.draw(st.integers(0, len(parts)))
    assert total(shuffled).tolist() == whole
    assert (total(shuffled[cut:]) + total(shuffled[:cut])).tolist() == whole


@pytest.mark.parametrize("name", CODECS)
def test_a_whole_block_of_every_codec_fits_a_record(name: str):
    v = dice().standard_normal(BLOCK)
    data, exponent = write_values(v, codec(name), UNIT, LARGEST, dice(), 1.0)
    assert len(data) <= 400_000
    assert units(read_values(codec(name), data, BLOCK), exponent, BLOCK)[-1] != 0


@pytest.mark.parametrize("name", [n for n in CODECS if not CODECS[n].packed])
def test_what_is_not_packed_is_read_without_a_copy(name: str):
    data, _ = write_values(dice().standard_normal(SIZE), codec(name), UNIT, LARGEST, dice(), 0.5)
    raw = bytearray(data)
    before = read_values(codec(name), raw, SIZE).q
    last = int(before[-1])
    raw[-1] ^= 1
    assert int(before[-1]) != last
    assert not read_values(codec(name), bytes(raw), SIZE).q.flags.writeable


@pytest.mark.parametrize("name", CODECS)
def test_the_same_dice_give_the_same_bytes(name: str):
    v = dice(3).standard_normal(1000)
    one, two, other = (bytes(write_values(v, codec(name), UNIT, LARGEST, dice(s), 0.1)[0]) for s in (1, 1, 2))
    assert one == two
    assert (one == other) == (codec(name).bits == 32)  # which draws none


# ------------------------------------------------------------------ rounding by chance, and the largest alone


@pytest.mark.parametrize("bits", [8, 16])
def test_rounding_by_chance_is_right_in_the_mean(bits: int):
    """4,000 throws of 200 values: the mean of each lies within 5 standard errors (at most 0.5 / sqrt 4,000), and is not
    that of rounding to nearest."""
    v, throws = dice(1).uniform(-1, 1, 200), 4_000
    v[0] = 1.0
    rng = dice(2)
    parts = [quantise(v, UNIT, LARGEST, bits, rng) for _ in range(throws)]
    (exponent,) = {e for _, e in parts}
    exact = v * 2.0 ** (-UNIT - exponent)
    found = sum(q.astype(np.int64) for q, _ in parts) / throws
    assert np.abs(found - exact).max() < 5 * 0.5 / np.sqrt(throws)
    assert np.abs(np.rint(exact) - exact).max() > 0.4
    assert {(abs(q - exact) < 1).all() for q, _ in parts} == {True}


def test_what_is_exact_stays_exact():
    v = np.array([127, -128, 0, 5]) * 2.0**UNIT
    for seed in range(50):
        q, exponent = quantise(v, UNIT, LARGEST, 8, dice(seed))
        assert (q.tolist(), exponent) == ([127, -128, 0, 5], 0)


@given(st.floats(1e-6, 1e9), st.integers(-40, 0), st.floats(-1, 1), st.sampled_from([8, 16, 32]), st.integers(0, 99))
def test_chance_lifts_no_value_above_the_largest(largest: float, unit: int, fraction: float, bits: int, seed: int):
    if not 1 <= largest * 2.0**-unit < 2**62:
        return
    most = largest_in_units(largest, unit)
    for v in (largest, -largest, largest * fraction):
        q, exponent = quantise(np.array([v]), unit, largest, bits, dice(seed))
        assert within(q, exponent, most)


@given(names.filter(lambda n: codec(n).sparse), values, st.floats(0.001, 1))
def test_the_largest_are_kept(name: str, v: np.ndarray, keep: float):
    at = read_values(codec(name), write_values(v, codec(name), UNIT, LARGEST, dice(), keep)[0], SIZE).at
    assert at is not None
    assert len(at) == max(1, int(np.ceil(round(keep * SIZE, 6))))
    kept, rest = np.abs(v[at]), np.abs(np.delete(v, at))
    assert not len(rest) or kept.min() >= rest.max()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2 * LARGEST])
def test_what_diverged_is_refused(name: str, bad: float):
    v = np.zeros(1000)
    v[500] = bad
    with pytest.raises(ValueError, match=r"NaN or infinite|more than the largest"):
        write_values(v, codec(name), UNIT, LARGEST, dice(), 0.01)


# ------------------------------------------------------------------ whatever bytes come


def z(data: bytes, **more: Any) -> bytes:
    return zstandard.ZstdCompressor(**more).compress(data)


def sparse(steps: list[int], q: list[int], form: str = "<i1") -> bytes:
    return np.array(steps, "<u2").tobytes() + np.array(q, form).tobytes()


def unsized(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return packer.compress(data) + packer.flush()


SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
BAD = {
    "short": ("int16", b"\0" * 2 * SIZE + b"\0", "12 values of 2 bytes are 24 bytes, not 25"),
    "empty": ("int32", b"", "12 values of 4 bytes are 48 bytes, not 0"),
    "another width": ("int8", b"\0" * 2 * SIZE, "12 values of 1 bytes are 12 bytes, not 24"),
    "half a pair": ("top-k+int8", b"\0" * 4, "which 4 bytes are not"),
    "nothing kept": ("top-k+int8", b"", "1 to 12 steps"),
    "more than all": ("top-k+int8", sparse([0] + [1] * 12, [1] * 13), "1 to 12 steps"),
    "a position twice": ("top-k+int8", sparse([3, 0], [1, 1]), "comes twice"),
    "a position beyond": ("top-k+int8", sparse([3, 9], [1, 1]), "position 12 is not in"),
    "positions that wrap": ("top-k+int8", sparse([1] + [65535] * 3, [1] * 4), "position 196606 is not in"),
    "a bomb": ("int8+zstd", z(b"\0" * 10**8), "holds 1 to 12 bytes and says so, not 100000000"),
    "a bomb, sparse": ("top-k+int32+zstd", z(b"\0" * 10**8), "holds 1 to 72 bytes"),
    "no size": ("int8+zstd", unsized(b"\0" * SIZE), "says so, not -1"),
    "an empty frame": ("top-k+int8+zstd", z(b""), "not 0"),
    "another length": ("int8+zstd", z(b"\0" * 11), "12 values of 1 bytes are 12 bytes, not 11"),
    "cut": ("int8+zstd", z(bytes(range(SIZE)))[:-1], "not one zstd frame"),
    "trailing": ("int8+zstd", z(b"\0" * SIZE) + b"x", "not one zstd frame"),
    "two frames": ("int8+zstd", z(b"\0" * SIZE) * 2, "not one zstd frame"),
    "a frame to skip": ("int8+zstd", SKIPPED + z(b"\0" * SIZE), "says so, not 0"),
    "not packed": ("int8+zstd", b"\0" * SIZE, "not one zstd frame"),
    "a wrong checksum": (
        "int8+zstd",
        bytes([*(good := z(bytes(range(SIZE)), write_checksum=True))[:-1], good[-1] ^ 1]),
        "not one zstd frame",
    ),
    "a dictionary": (
        "int8+zstd",
        z(b"abcdefghijkl", dict_data=zstandard.train_dictionary(1024, [b"abcdefghijkl%d" % i for i in range(999)])),
        "not one zstd frame",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_bytes_are_refused_in_words(case: str):
    name, data, words = BAD[case]
    with pytest.raises(ValueError, match=re.escape(words)):
        read_values(codec(name), data, SIZE)
    with pytest.raises(ValueError, match=r"."):
        plain(name, memoryview(data), SIZE)


@settings(max_examples=500)
@given(names, st.binary(max_size=80), st.integers(1, SIZE))
@example("top-k+int8", sparse([0, 11], [1, 1]), SIZE)
def test_any_bytes_are_read_alike_or_refused_by_both_readings(name: str, data: bytes, size: int):
    alike(name, data, size)
    if codec(name).packed:
        alike(name, z(data), size)


@settings(max_examples=500)
@given(blocks, st.integers(0, 10**6), st.integers(0, 255), st.integers(-3, 3))
def test_a_block_with_a_byte_changed_is_read_alike_or_refused(block: Any, at: int, byte: int, cut: int):
    name, data, _ = block
    raw = bytearray(data)
    raw[at % len(raw)] = byte
    alike(name, bytes(raw) + b"\0" * cut if cut >= 0 else bytes(raw[:cut]), SIZE)


def alike(name: str, data: bytes, size: int) -> None:
    """The aggregator's reading and the auditor's agree."""
    try:
        acc = np.zeros(size, np.int64)
        read_values(codec(name), data, size).add(acc, 3)
        right: Any = acc.tolist()
    except ValueError:
        right = None
    try:
        found: Any = (plain(name, memoryview(data), size) * 8).tolist()
    except ValueError:
        found = None
    assert found == right


def test_who_only_looks_needs_no_size():
    v = dice().standard_normal(SIZE)
    for name in CODECS:
        data, _ = write_values(v, codec(name), UNIT, LARGEST, dice(), 0.5)
        assert read_values(codec(name), data).q.tolist() == read_values(codec(name), data, SIZE).q.tolist()
    with pytest.raises(ValueError, match="not 100000000"):
        read_values(codec("int8+zstd"), z(b"\0" * 10**8))
