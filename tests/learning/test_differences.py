"""Differences between versions: the same bits come back, whatever they are, and whatever bytes are handed in."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.differences import WORTH, difference, differences, restore
from schemas.blocks import Manifest, Place, slices
from schemas.wire import checksum

WORDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40)


def floats(words: list[int]) -> np.ndarray:
    return np.array(words, np.uint32).view(np.float32)


@given(st.data())
def test_any_bits_come_back(data):
    base = data.draw(WORDS)
    new = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=len(base), max_size=len(base)))
    a, b = floats(base), floats(new)
    assert restore(a, difference(a, b)).tobytes() == b.tobytes()


@pytest.mark.parametrize("bits", [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 1, 0x80000001])
@pytest.mark.parametrize("other", [0, 0x80000000, 0x3F800000, 0xFFC00000])
def test_zeros_of_both_signs_infinities_and_nans_come_back(bits, other):
    a, b = floats([other] * 3), floats([bits] * 3)
    assert restore(a, difference(a, b)).tobytes() == b.tobytes()


@given(WORDS, st.binary(max_size=200))
def test_whatever_bytes_come_in_are_values_or_refused(words, data):
    base = floats(words)
    with suppress(ValueError):
        assert restore(base, data).shape == base.shape


def test_a_frame_that_would_swell_is_refused():
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(10**7))
    head = np.array([len(bomb), 0, 0, 0], "<u4").tobytes()
    with pytest.raises(ValueError, match="holds 1 to 4 bytes"):
        restore(np.zeros(4, np.float32), head + bomb)


def test_two_lengths_have_no_difference():
    with pytest.raises(ValueError, match="no difference"):
        difference(np.zeros(3, np.float32), np.zeros(4, np.float32))


def version(vector: np.ndarray, sizes: tuple[int, ...]) -> Manifest:
    return Manifest(
        "m", 1, tuple(Place(0, i, str(i), checksum(vector[p].tobytes())) for i, p in enumerate(slices(sizes)))
    )


def test_only_what_changed_a_little_is_worth_it():
    dice, sizes = np.random.default_rng(0), (3000, 3000, 3000)
    base = dice.standard_normal(9000).astype(np.float32)
    new = base.copy()
    new[:3000] *= 1 + 1e-3 * dice.standard_normal(3000).astype(np.float32)
    new[6000:] = floats(dice.integers(0, 2**32, 3000).tolist())
    found = differences(base, version(base, sizes), new, sizes)
    assert list(found) == [0]  # the second is the same, the third another altogether
    was, short = found[0]
    assert was == checksum(base[:3000].tobytes())
    assert len(short) <= WORTH * 12_000
    assert restore(base[:3000], short).tobytes() == new[:3000].tobytes()


def test_versions_of_other_blocks_have_none():
    base = np.ones(6, np.float32)
    assert differences(base, version(base, (3, 3)), base * 2, (6,)) == {}
