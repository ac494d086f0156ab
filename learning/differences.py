"""A version of a model as its difference from another: the same bits, in fewer bytes.

A float32's bits, read as an integer that rises with the value, change little when training changes the value little. So a block is

    u = (order(new) - order(base)) mod 2^32, its sign moved to the last bit (0, -1, 1, -2 → 0, 1, 2, 3)
    four planes: byte 3 of every u (the highest), then byte 2, 1, 0
    each plane as a zstd frame, or as it is where that is no shorter; before them their four lengths, as uint32

Everything is little-endian and nothing is rounded: any bits come back, those of NaN and of -0.0 too. How short it gets is
measured in `docs/distribution.md`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import zstandard

from learning.codecs import unpack
from schemas.blocks import Manifest, slices
from schemas.wire import checksum

Float32 = npt.NDArray[np.float32]
WORTH = 0.8
"""A difference is written only if it takes no more than this share of the block's own bytes."""
_LEVEL = 1
"""Level 9 finds less than a hundredth more, and takes four times as long."""
_PLANES = 4
_HEAD = np.dtype("<u4")


def difference(base: Float32, new: Float32) -> bytes:
    """What makes `new` from `base`, both (n,). Raises `ValueError` for two lengths."""
    if base.shape != new.shape:
        raise ValueError(f"there is no difference between {base.shape} and {new.shape} values")
    step = _order(new) - _order(base)
    u = ((step << 1) ^ (step >> 31)).view(np.uint32)
    planes = np.ascontiguousarray(u.astype("<u4").view(np.uint8).reshape(-1, _PLANES).T[::-1])
    packer, pieces = zstandard.ZstdCompressor(level=_LEVEL), []
    for plane in planes:
        packed, plain = packer.compress(plane.data), plane.tobytes()
        pieces.append(packed if len(packed) < len(plain) else plain)
    return b"".join([np.array([len(p) for p in pieces], _HEAD).tobytes(), *pieces])


def restore(base: Float32, data: bytes | memoryview) -> Float32:
    """What `data` makes of `base` (n,). Whatever bytes come in, it returns n values or raises `ValueError`; whether they are those that
    were meant, their checksum says."""
    n, data = base.size, memoryview(data)
    head = _PLANES * _HEAD.itemsize
    lengths = np.frombuffer(data[:head], _HEAD).tolist() if len(data) >= head else []
    if head + sum(lengths) != len(data) or len(lengths) != _PLANES:
        raise ValueError(f"{len(data)} bytes are not four planes and their lengths")
    planes, at = np.empty((_PLANES, n), np.uint8), head
    for i, length in enumerate(lengths):
        piece = data[at : at + length]
        at += length
        plain = piece if length == n else unpack(piece, n)
        if len(plain) != n:
            raise ValueError(f"a plane of {n} values has {n} bytes, not {len(plain)}")
        planes[i] = np.frombuffer(plain, np.uint8)
    u = np.ascontiguousarray(planes[::-1].T).view("<u4").reshape(-1).astype(np.uint32)
    step = (u >> 1).view(np.int32) ^ -(u & 1).view(np.int32)
    return _bits(_order(base) + step)


def differences(
    base: Float32, was: Manifest, new: Float32, sizes: Sequence[int], worth: float = WORTH
) -> dict[int, tuple[int, bytes]]:
    """By block what makes it from the version before, which `was` names, and that block's checksum: where it is worth it. A block that
    stayed as it is needs none, since its checksum tells."""
    out: dict[int, tuple[int, bytes]] = {}
    if len(was.blocks) != len(sizes) or base.shape != new.shape:
        return out
    for i, here in enumerate(slices(tuple(sizes))):
        data = np.ascontiguousarray(new[here], "<f4").data.cast("B")
        if checksum(data) != was.blocks[i].checksum:
            short = difference(base[here], new[here])
            if len(short) <= worth * len(data):
                out[i] = was.blocks[i].checksum, short
    return out


def _order(values: Float32) -> npt.NDArray[np.int32]:
    """Integers that rise as the values do; each has one, -0.0 and 0.0 too."""
    i = np.ascontiguousarray(values).view(np.int32)
    return i ^ ((i >> 31) & np.int32(0x7FFFFFFF))


def _bits(i: npt.NDArray[np.int32]) -> Float32:
    return (i ^ ((i >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
