"""A block's values as bytes: what a device sends, and how an aggregator reads it.

A codec's name (`schemas.blocks.CODECS`) says what the bytes are, from left to right as they are made:

    [top-k+] int32 | int16 | int8 [+zstd]

dense      the values, little-endian, one after the other
top-k+     the k largest alone: k steps as uint16, then k values. A step leads from one position to the next, the first one
           from 0; they take a third of the bytes that positions would take when zstd packs them. 1 ≤ k ≤ the block's size
+zstd      these bytes as one zstd frame, which says how long they are

int32 is rounded to nearest; the short ones are rounded up or down by chance, so that a mean over devices is right
(QSGD: Alistarh et al., NeurIPS 2017). Top-k with what was left out added the next time: Stich et al., NeurIPS 2018; DGC: Lin et al., ICLR 2018.

Both sides are pure functions. Whatever bytes come in, `read_values` returns or raises `ValueError`, and makes nothing longer
than the block's own values and steps.
"""

from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard

from learning.aggregation import Int64, Ints, add, quantise
from schemas.blocks import BLOCK, Codec

_LEVEL = 3
_STEP = np.dtype("<u2")
_idle: list[zstandard.ZstdDecompressor] = []
"""Not in use: making one takes a quarter of a decompression; taking it out keeps it from a second thread."""


class Values(NamedTuple):
    """A block's integers: int32, int16 or int8, and their positions in it, rising; None: they are all there."""

    q: Ints
    at: npt.NDArray[np.intp] | None = None

    def add(self, acc: Int64, exponent: int, factor: int = 1) -> None:
        """acc += factor · q · 2^exponent where they belong: see `aggregation.add`."""
        add(acc, self.q, exponent, factor, self.at)


# ------------------------------------------------------------------ the device's side


def write_values(
    values: npt.NDArray[np.floating],
    codec: Codec,
    unit: int,
    largest: float,
    dice: np.random.Generator | None = None,
    keep: float = 1.0,
) -> tuple[memoryview, int]:
    """A block of w·δ (n,), in model units, as bytes; and the exponent: integer i stands for i · 2^(unit + exponent).

    With top-k, ⌈keep · n⌉ of the values are sent. `dice` is drawn from where the codec rounds by chance, and must be there then. Raises `ValueError`
    for values that are not finite or larger than `largest`.
    """
    steps = b""
    if codec.sparse:
        k = max(1, ceil(round(keep * len(values), 6)))  # 0.07 × 100 is 7.000000000000001
        at = np.sort(
            np.argpartition(np.abs(values), -k)[-k:]
        )  # NaN counts as the largest: it is sent, and refused below
        steps, values = np.diff(at, prepend=0).astype(_STEP).tobytes(), values[at]
    if codec.bits < 32 and dice is None:
        raise ValueError(f"integers of {codec.bits} bits are rounded by chance: give dice")
    q, exponent = quantise(values, unit, largest, codec.bits, None if codec.bits == 32 else dice)
    data: bytes | memoryview = q.astype(_form(codec), copy=False).data.cast("B")
    if steps:
        data = steps + data
    return memoryview(pack(data) if codec.packed else data), exponent


def pack(data: bytes | memoryview) -> bytes:
    """As one zstd frame that says how long `data` is."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


# ------------------------------------------------------------------ the aggregator's side


def read_values(codec: Codec, data: memoryview | bytes, size: int = 0) -> Values:
    """The integers of a block of `size` values: a view of `data`, or of what zstd unpacked. Raises `ValueError`.

    Without a size, for who only looks at the block, any that a block may have will do. The bound on the values is another
    matter: see `aggregation.within`.
    """
    form = _form(codec)
    each = form.itemsize + (_STEP.itemsize if codec.sparse else 0)
    if codec.packed:
        data = unpack(data, each * (size or BLOCK))
    have = memoryview(data).nbytes
    size = size or (BLOCK if codec.sparse else have // each)
    if not codec.sparse:
        if have != each * size:
            raise ValueError(f"{size} values of {each} bytes are {each * size} bytes, not {have}")
        return Values(np.frombuffer(data, form))
    k, rest = divmod(have, each)
    if rest or not 1 <= k <= size:
        raise ValueError(f"1 to {size} steps and values take {each} bytes each, which {have} bytes are not")
    steps, q = np.frombuffer(data, _STEP, k), np.frombuffer(data, form, k, k * _STEP.itemsize)
    at = np.cumsum(steps, dtype=np.intp)
    if not steps[1:].all():
        raise ValueError("a position comes twice")
    if at[-1] >= size:
        raise ValueError(f"position {at[-1]} is not in a block of {size} values")
    return Values(q, at)


def _form(codec: Codec) -> np.dtype[np.signedinteger]:
    return np.dtype(f"<i{codec.bits // 8}")


def unpack(data: memoryview | bytes, most: int) -> bytes:
    """What a zstd frame holds, at most `most` bytes: nothing is made before it has said so."""
    try:
        says = zstandard.frame_content_size(data)
        if not 0 < says <= most:
            raise ValueError(f"a zstd frame here holds 1 to {most} bytes and says so, not {says}")
        z = _idle.pop() if _idle else zstandard.ZstdDecompressor()
        out = z.decompress(data, allow_extra_data=False)
        _idle.append(z)
        return out
    except zstandard.ZstdError as e:
        raise ValueError(f"not one zstd frame: {e}") from None
