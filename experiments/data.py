"""The data of the experiments: real sets by path, or the digits that come with scikit-learn where no path is given.

The folder holds archives as `device_sim/convert.py` knows them, by these names:

    hapt_raw_windows.npz                     human activities: HARBox' stand-in, the same kind of signal
    hapt_features.npz                        the same as features
    arabic_speech_commands_logmel.npz        words: Google Speech's stand-in
    fedscale_device_capacity_51496.npz       speeds and bandwidths of devices, and HARBox' counts of samples by user
    cifar10_subset_12k.npz                   small images of ten kinds
    ai_benchmark_devices.npz                 phones: speed, CPU score, RAM, memory, system
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from device_sim import convert
from experiments.asked import Asked, Cannot

HAR, FEATURES, SPEECH = "hapt_raw_windows.npz", "hapt_features.npz", "arabic_speech_commands_logmel.npz"
CAPACITY = "fedscale_device_capacity_51496.npz"
IMAGES = "cifar10_subset_12k.npz"
PHONES = "ai_benchmark_devices.npz"
KINDS = {HAR: "hapt-raw", FEATURES: "hapt-features", SPEECH: "speech", IMAGES: "cifar10"}


def archive(asked: Asked, name: str) -> Path:
    """An archive in the folder that was given. Raises `Cannot`, saying what is missing."""
    if asked.data is None:
        raise Cannot(f"this needs {name}: give the folder that has it by --data")
    if not (found := asked.data / name).is_file():
        raise Cannot(f"there is no {name} in {asked.data}")
    return found


@contextmanager
def converted(asked: Asked, *names: str, classes: int = 0) -> Iterator[dict[str, Path]]:
    """By name the archives as `.npz` that data "npz" reads, for as long as this lasts; of their `classes` first ones, or of all."""
    with tempfile.TemporaryDirectory(prefix="olearning-data-", ignore_cleanup_errors=True) as folder:
        out = {}
        for name in names:
            out[name] = Path(folder) / name
            try:
                arrays = convert.convert(KINDS[name], str(archive(asked, name)), str(out[name]))
            except ValueError as e:
                raise Cannot(str(e)) from None
            if classes:
                _first(classes, arrays, out[name])
        yield out


def _first(classes: int, arrays: Mapping[str, np.ndarray], target: Path) -> None:
    """Leave only the samples of the first classes; what is not by sample stays."""
    some = arrays["y"] < classes
    np.savez(target, **{k: a[some] if a.shape[:1] == some.shape else a for k, a in arrays.items()})  # type: ignore[arg-type]
