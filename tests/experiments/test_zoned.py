"""Data dealt to zones and their devices: all of it, once, and the zones differ the more, the smaller alpha is."""

import numpy as np
import pytest

from device_sim.data import load, share
from experiments.zoned import dealt, digits

ZONES, DEVICES = 3, 5


def unlike(owner: np.ndarray, y: np.ndarray) -> float:
    """How far the zones' shares of the classes are from each other: 0 if they are the same, 1 if no class is in two zones."""
    counts = np.array([[np.sum((owner // DEVICES == z) & (y == c)) for c in range(10)] for z in range(ZONES)])
    return float(np.mean(counts.max(0) / counts.sum(0)) * ZONES - 1) / (ZONES - 1)


def test_each_device_has_a_share_and_zones_differ():
    y = load("digits", {}).y
    near, far = (dealt(load("digits", {}), ZONES, DEVICES, 1, among, 1.0) for among in (1000.0, 0.1))
    for owner in (near, far):
        assert sorted(set(owner.tolist())) == list(range(ZONES * DEVICES))
    assert unlike(near, y) < 0.1 < 0.4 < unlike(far, y)
    again, other = (dealt(load("digits", {}), ZONES, DEVICES, seed, 0.1, 1.0) for seed in (1, 2))
    assert np.array_equal(far, again)
    assert not np.array_equal(far, other)


def test_a_file_gives_each_device_what_was_dealt(tmp_path):
    digits(tmp_path / "d.npz", ZONES, DEVICES, 1, 0.3, 1.0)
    data, args = load("npz", {"path": str(tmp_path / "d.npz")}), {"partition": "user"}
    whole = load("digits", {})
    owner = dealt(whole, ZONES, DEVICES, 1, 0.3, 1.0)
    for n in (0, ZONES * DEVICES - 1):
        x, y = share(data, n, args)
        assert np.array_equal(x, whole.x[owner == n])
        assert np.array_equal(y, whole.y[owner == n])
    assert np.array_equal(data.test_x, whole.test_x)
    with pytest.raises(ValueError, match="not one of the 15"):
        share(data, ZONES * DEVICES, args)
