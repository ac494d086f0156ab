"""A model in a file, with a tensor for each that the plane knows, by its name: .npz for numpy, .pt for torch (a state dict)."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from olearning.errors import USAGE, Trouble
from schemas.blocks import Layout

Float32 = npt.NDArray[np.float32]
Arrays = Mapping[str, Float32]
TORCH = (".pt", ".pth")
SUFFIXES = (".npz", *TORCH)


def check_suffix(path: Path) -> None:
    """Raises `Trouble` for a file of another kind, `ModuleNotFoundError` for one of torch's where that is not."""
    if path.suffix not in SUFFIXES:
        raise Trouble(f"{path}: a model's file ends in {', '.join(SUFFIXES)}", USAGE)
    if path.suffix in TORCH:
        import torch  # noqa: F401


def write_model(path: Path, layout: Layout, vector: Float32) -> None:
    """Write a model's vector (n,) by its tensors; a file that is there is replaced whole, or not at all. Raises `OSError`."""
    arrays, at = {}, 0
    for t in layout.tensors:
        arrays[t.name] = vector[at : at + t.size].reshape(t.shape)
        at += t.size
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            (_write_torch if path.suffix in TORCH else _write_numpy)(file, arrays)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _write_numpy(file: BinaryIO, arrays: Arrays) -> None:
    with zipfile.ZipFile(file, "w") as npz:  # `numpy.savez` takes no tensor whose name is one of its own parameters'
        for name, array in arrays.items():
            with npz.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


def _write_torch(file: BinaryIO, arrays: Arrays) -> None:
    import torch

    torch.save({name: torch.from_numpy(a.copy()) for name, a in arrays.items()}, file)


def read_model(path: Path, layout: Layout) -> Float32:
    """The vector (n,) of a model from its file. A state dict may have counters besides, tensors of whole numbers: no layout has those.
    Raises `Trouble`, naming what differs, if it is not of this layout."""
    try:
        arrays = _read_torch(path) if path.suffix in TORCH else _read_numpy(path)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise Trouble(f"cannot read a model from {path}: {e}", USAGE) from None
    wanted = {t.name for t in layout.tensors}
    if missing := sorted(wanted - arrays.keys()):
        raise Trouble(f"{path} has no tensor {missing[0]}: it is of another model than the task's", USAGE)
    if more := sorted(arrays.keys() - wanted):
        raise Trouble(
            f"{path} has also tensor {more[0]}: it is of another model than the task's, or has what each device keeps for itself "
            "(docs/data-and-models.md); such a tensor does not belong into the file",
            USAGE,
        )
    for t in layout.tensors:
        if arrays[t.name].shape != t.shape:
            raise Trouble(f"{path}: {t.name} has shape {arrays[t.name].shape}, the task's model {t.shape}", USAGE)
    vector = np.concatenate([arrays[t.name].ravel() for t in layout.tensors])
    if not np.isfinite(vector).all():
        raise Trouble(f"{path} has values that are no numbers", USAGE)
    return vector


def _read_numpy(path: Path) -> Arrays:
    file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError("it has one array without a name: numpy.savez writes some with names")
    with file:
        return {name: np.asarray(file[name]).astype(np.float32) for name in file.files}


def _read_torch(path: Path) -> Arrays:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # whatever it stumbles over, of which it says that one might trust it
        state = None
    if not isinstance(state, Mapping) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ValueError("it is no state dict of tensors: torch.save(model.state_dict(), FILE) writes one")
    tensors = {str(name): t.detach() for name, t in state.items() if t.is_floating_point()}
    return {name: (t.to_dense() if t.is_sparse else t).float().numpy() for name, t in tensors.items()}
