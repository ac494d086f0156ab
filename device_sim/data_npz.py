"""Data in a file: a `.npz` of plain arrays, by path.

    X        (n, …)  numbers
    y        (n,)    whole numbers from 0
    user     (n,)    whose sample it is, numbers or text               may be left out, as all below
    test_X, test_y   samples to test on
    split    (n,)    0 to train on, 2 to test on, 1 for neither (validation); instead of test_X
    scale, offset    samples are X · scale + offset; they broadcast to one sample

Other arrays are not looked at. `python -m device_sim.convert` makes such files from well-known archives.
"""

import zipfile
import zlib
from collections.abc import Collection, Mapping

import numpy as np

from device_sim.dataset import Dataset, Float32, Int64, divided, held_out
from learning.words import Plain

ARRAYS = ("X", "y", "user", "test_X", "test_y", "split", "scale", "offset")
FRACTION = 0.2
"""Of the users, or else of every class, held out if neither the file nor the task says what is."""
TRAIN, VALIDATION, TEST = range(3)

Arrays = dict[str, np.ndarray]


def npz(path: str, test_users: int | str = "", test_share: float = 0.0) -> Dataset:
    """The data in the file at `path` on this machine.

    To test on: the samples of `test_users` ("2,4,9", as the file's `user` names them), or of a share `test_share` of the users
    (of every class, where there are no users), or what the file says, or a fifth. A user's samples never come on both sides.
    Raises `ValueError` for a file or arguments that cannot be.
    """
    if not isinstance(path, str):
        raise ValueError(f"path must be text, not {path!r}")
    if test_users != "" and test_share:
        raise ValueError("test_users and test_share both say what to test on: leave one out")
    a = read(path, ARRAYS)
    if lacks := [name for name in ("X", "y") if name not in a]:
        raise ValueError(
            f"{path} lacks {' and '.join(lacks)}: needed are X and y; user, test_X, test_y, split, scale and offset may be"
        )
    if ("test_X" in a) != ("test_y" in a):
        raise ValueError(f"{path} has only one of test_X and test_y")
    x, y = _samples(path, "X", a), _labels(path, "y", a)
    user, names = _users(path, a)
    if "test_X" in a:
        if test_users != "" or test_share or "split" in a:
            raise ValueError(
                f"{path} has samples to test on, test_X: test_users, test_share and split are for files without"
            )
        return Dataset(path, x, y, _samples(path, "test_X", a), _labels(path, "test_y", a), user)
    try:
        if test_users != "":
            test = _named(test_users, user, names)
            return divided(path, x, y, ~test, test, user)
        if not test_share and "split" in a:
            return _as_said(path, x, y, user, names, a)
        return held_out(path, x, y, test_share or FRACTION, user)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None


def read(path: str, wanted: Collection[str] = ()) -> Arrays:
    """The arrays of a `.npz`, all or those wanted that are there. Raises `ValueError` for a file that is none, or is not there."""
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("it is one array alone, an .npy")
        with file:
            return {name: file[name] for name in file.files if not wanted or name in wanted}
    except FileNotFoundError:
        raise Plain(f"there is no file {path} on this machine") from None
    except OSError as e:
        raise Plain(f"cannot read {path}: {e.strerror or e}") from None
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as e:
        raise Plain(f"{path} is not an .npz of plain arrays: {e}") from None


def _samples(path: str, name: str, a: Arrays) -> Float32:
    x = a.pop(name)  # so that nothing holds it when it has become float32
    if x.dtype.kind not in "fiub" or x.ndim < 2 or not x.size:
        raise ValueError(f"{path}: {name} must be numbers of shape (samples, …), not {x.dtype} {x.shape}")
    out = x.astype(np.float32, copy=False)
    for what, apply in (("scale", np.multiply), ("offset", np.add)):
        if what not in a:
            continue
        by = a[what]
        if by.dtype.kind not in "fiu" or not _broadcasts(by.shape, out.shape[1:]):
            raise ValueError(f"{path}: {what} {by.dtype} {by.shape} does not fit a sample of shape {out.shape[1:]}")
        apply(out, by.astype(np.float32), out=out)
    if not (np.isfinite(out.min()) and np.isfinite(out.max())):  # both are NaN if one value is; no array of their size
        raise ValueError(f"{path}: {name} has values that are not finite")
    return out


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _labels(path: str, name: str, a: Mapping[str, np.ndarray]) -> Int64:
    y = a[name]
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise ValueError(f"{path}: {name} must be whole numbers, one a sample, not {y.dtype} {y.shape}")
    out = y.astype(np.int64, copy=False)
    if out.min(initial=0) < 0:
        raise ValueError(f"{path}: {name} must be classes from 0, not {out.min()}")
    return out


def _users(path: str, a: Mapping[str, np.ndarray]) -> tuple[Int64 | None, np.ndarray]:
    """Each sample's user, by the place of its name among all names, and these names."""
    if "user" not in a:
        return None, np.array([])
    user = a["user"]
    if user.dtype.kind not in "iuU" or user.shape != a["y"].shape:
        raise ValueError(
            f"{path}: user must be whole numbers or text, one for each of {len(a['y'])} samples, not {user.dtype} {user.shape}"
        )
    names, numbers = np.unique(user, return_inverse=True)
    return numbers.astype(np.int64, copy=False), names.astype(str)


def _named(test_users: int | str, user: Int64 | None, names: np.ndarray) -> np.ndarray:
    if user is None:
        raise ValueError("there is no `user` in it, so test_users names nobody")
    asked = {part.strip() for part in str(test_users).split(",")}
    if strangers := sorted(asked - {*names.tolist()}):
        raise ValueError(f"test_users names {', '.join(strangers)}; users are {', '.join(names.tolist())}")
    if len(asked) == len(names):
        raise ValueError("test_users names all users, which leaves nothing to train on")
    return np.isin(user, np.flatnonzero(np.isin(names, sorted(asked))))


def _as_said(path: str, x: Float32, y: Int64, user: Int64 | None, names: np.ndarray, a: Arrays) -> Dataset:
    split = a["split"]
    if split.dtype.kind not in "iu" or split.shape != y.shape or not np.isin(split, (TRAIN, VALIDATION, TEST)).all():
        raise ValueError("split must be 0 (train), 1 (neither) or 2 (test) for each sample")
    train, test = split == TRAIN, split == TEST
    if not (train.any() and test.any()):
        raise ValueError("split must have samples to train on (0) and to test on (2)")
    if user is not None and len(both := np.intersect1d(user[train], user[test])):
        raise ValueError(f"split has samples of user {names[both[0]]} on both sides: leave split out, or user")
    return divided(path, x, y, train, test, user)
