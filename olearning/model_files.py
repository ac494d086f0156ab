"""A model in a file: an .npz with an array for each tensor that the plane knows, by its name."""

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from olearning.errors import USAGE, Trouble
from schemas.blocks import Layout

Float32 = npt.NDArray[np.float32]


def write_model(path: Path, layout: Layout, vector: Float32) -> None:
    """Write a model's vector (n,) by its tensors; a file that is there is replaced whole, or not at all."""
    arrays, at = {}, 0
    for t in layout.tensors:
        arrays[t.name] = vector[at : at + t.size].reshape(t.shape)
        at += t.size
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's own stub takes them for its flag
    beside.replace(path)


def read_model(path: Path, layout: Layout) -> Float32:
    """The vector (n,) of a model from its file. Raises `Trouble`, naming what differs, if it is not of this layout."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise Trouble(f"cannot read a model from {path}: {e}", USAGE) from None
    wanted = {t.name for t in layout.tensors}
    if missing := sorted(wanted - arrays.keys()) or sorted(arrays.keys() - wanted):
        which = "has no" if missing[0] in wanted else "has also"
        raise Trouble(f"{path} {which} tensor {missing[0]}: it is of another model than the task's", USAGE)
    for t in layout.tensors:
        if arrays[t.name].shape != t.shape:
            raise Trouble(f"{path}: {t.name} has shape {arrays[t.name].shape}, the task's model {t.shape}", USAGE)
    vector = np.concatenate([arrays[t.name].ravel() for t in layout.tensors]).astype(np.float32)
    if not np.isfinite(vector).all():
        raise Trouble(f"{path} has values that are no numbers", USAGE)
    return vector
