"""Well-known archives into the `.npz` that data "npz" reads.

    python -m device_sim.convert KIND SOURCE TARGET.npz

Archives are `.npz` themselves, with these arrays:

    hapt-features  X_f16, y, user           UCI HAPT, time and frequency features of windows, standardised
    hapt-raw       X_i16, scale, y, user    UCI HAPT, windows of 128 samples × 6 channels at 50 Hz
    speech         X_u8, scale, offset, y, user, split
                                            words as log-mel, time × bands
    mnist, cifar10 X_train, y_train, X_test, y_test
                                            bytes; images that end in colours get them in front: (3, 32, 32)

HAPT is tested on the users that are usual for it. Numbers stay as small as they are, with their scale beside them.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from device_sim.data_npz import TEST, TRAIN, Arrays, read

HAPT_TEST = (2, 4, 9, 10, 12, 13, 18, 20, 24)
"""The users on whom HAPT, as UCI HAR before it, is tested (Reyes-Ortiz et al., Neurocomputing 2015)."""
BYTE = np.array(1 / 255, np.float32)


def _hapt_features(a: Arrays) -> Arrays:
    return {"X": a["X_f16"], "y": a["y"], "user": a["user"], "split": _usual(a["user"])}


def _hapt_raw(a: Arrays) -> Arrays:
    return {"X": a["X_i16"], "scale": a["scale"], "y": a["y"], "user": a["user"], "split": _usual(a["user"])}


def _usual(user: np.ndarray) -> np.ndarray:
    return np.where(np.isin(user, HAPT_TEST), TEST, TRAIN).astype(np.uint8)


def _speech(a: Arrays) -> Arrays:
    return {"X": a["X_u8"]} | {name: a[name] for name in ("scale", "offset", "y", "user", "split")}


def _images(a: Arrays) -> Arrays:
    x, test_x = (_colours_first(a[name]) for name in ("X_train", "X_test"))
    return {"X": x, "y": a["y_train"], "test_X": test_x, "test_y": a["y_test"], "scale": BYTE}


def _colours_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 3, 1)) if x.ndim == 4 else x


KINDS: Mapping[str, Callable[[Arrays], Arrays]] = {
    "hapt-features": _hapt_features,
    "hapt-raw": _hapt_raw,
    "speech": _speech,
    "mnist": _images,
    "cifar10": _images,
}


def convert(kind: str, source: str, target: str) -> Arrays:
    """Write the archive at `source` to a new file `target`, and return what is in it.

    Raises `ValueError` for an unknown kind, an archive that lacks an array, and a target that is there or is no `.npz`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not known; known: {', '.join(KINDS)}")
    if Path(target).suffix != ".npz":
        raise ValueError(f"{target} must end in .npz")
    archive = read(source)
    try:
        arrays = KINDS[kind](archive)
    except KeyError as e:
        raise ValueError(f"{source} is not a {kind} archive: it lacks {e.args[0]}") from None
    try:
        with open(target, "xb") as file:
            try:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            except BaseException:  # half a file helps nobody
                Path(target).unlink()
                raise
    except FileExistsError:
        raise ValueError(f"{target} is there already: remove it, or write to another") from None
    except OSError as e:
        raise ValueError(f"cannot write {target}: {e.strerror or e}") from None
    return arrays


def described(arrays: Arrays) -> str:
    """The arrays of a file in a line each."""
    return "\n".join(f"{name:7} {a.dtype} {a.shape}" for name, a in arrays.items())


def main(words: list[str] | None = None) -> int:
    """The command; 2 and words on standard error if it cannot be done."""
    p = argparse.ArgumentParser(prog="python -m device_sim.convert", description="An archive as data `npz` reads it.")
    p.add_argument("kind", choices=KINDS)
    p.add_argument("source")
    p.add_argument("target")
    args = p.parse_args(words)
    try:
        print(described(convert(args.kind, args.source, args.target)))
    except ValueError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
