"""Cutting a model into blocks."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.blocks import BLOCK, STATISTICS, Layout, Tensor, layout, slices
from schemas.wire import encode

shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
models = st.lists(
    st.builds(Tensor, name=st.just("t"), shape=shapes, group=st.sampled_from(["", "a", "b"])), max_size=12
).map(tuple)
models = models.filter(lambda tensors: any(t.size for t in tensors))  # a model has at least one value


def tensor(*shape: int, group: str = "") -> Tensor:
    return Tensor(name="t", shape=shape, group=group)


@given(models, st.integers(1, 50))
def test_layout_covers_keeps_groups_apart_and_wastes_no_block(tensors, block):
    cut = layout(tensors, block)
    assert cut.tensors == tensors
    expected = []
    for _, group in groupby((t for t in tensors if t.size), key=lambda t: t.group):  # what is empty parts no one
        n = sum(t.size for t in group)
        expected += [block] * (n // block) + [n % block] * (n % block > 0)
    if all(t.size for t in tensors):
        assert list(cut.sizes) == expected
    assert sum(cut.sizes) == sum(t.size for t in tensors)
    assert all(0 < n <= block for n in cut.sizes)
    edges = {s.stop for s in slices(cut.sizes)} | {0}
    at = 0
    for before, t in zip((None, *tensors), tensors, strict=False):
        if before and before.group != t.group:
            assert at in edges, "a block spans two groups"
        at += t.size


@given(models, st.integers(1, 50))
def test_slices_lie_end_to_end(tensors, block):
    sizes = layout(tensors, block).sizes
    at = 0
    for s, n in zip(slices(sizes), sizes, strict=True):
        assert (s.start, s.stop, s.step) == (at, at + n, None)
        at = s.stop


def test_sizes():
    assert tensor().size == 1
    assert tensor(3, 0).size == 0
    assert tensor(2, 3, 4).size == 24
    with pytest.raises(ValueError, match="at least one value"):
        layout((tensor(3, 0),))
    assert layout((tensor(BLOCK + 1),)).sizes == (BLOCK, 1)
    assert layout((tensor(3), tensor(3)), 4).sizes == (4, 2)
    assert layout((tensor(3, group="a"), tensor(3, group="b"), tensor(2, group="b")), 4).sizes == (3, 4, 1)


@pytest.mark.parametrize("sizes", [(), (5,), (7,), (3, 2), (3, 3, 1)])
def test_blocks_that_do_not_cover_are_refused(sizes):
    with pytest.raises(ValueError, match="do not cover"):
        Layout(tensors=(tensor(2, 3),), sizes=sizes)


@pytest.mark.parametrize("sizes", [(BLOCK + 1,), (0, BLOCK, 1), (BLOCK, 1, 0), (-1, BLOCK, 2)])
def test_blocks_of_no_size_are_refused(sizes):
    with pytest.raises(ValueError, match="a block holds"):
        Layout(tensors=(tensor(BLOCK + 1),), sizes=sizes)


@pytest.mark.parametrize("width", [4, 8])
def test_a_block_fits_a_record_with_every_default(width):
    """A sum is twice a delta; Kafka's default for the largest record is a little over 1 MB."""
    assert len(encode({"data": bytes(BLOCK * width), "rest": "x" * 1000})) < 1_000_000


def test_blocks_of_statistics_are_plain_and_no_others():
    tensors = (tensor(5), tensor(2), tensor(3, group=STATISTICS), tensor(4, group=STATISTICS))
    assert layout(tensors, block=4).sizes == (4, 3, 4, 3)
    assert layout(tensors, block=4).plain == {2, 3}
    assert layout(tensors[:2], block=4).plain == set()
    assert layout(tensors[2:], block=4).plain == {0, 1}
    assert Layout(tensors, (6, 8)).plain == set()  # cut by somebody else: a block that holds weights, too
