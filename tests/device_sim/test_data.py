"""Data by name, ours and that of installed packages, and what is held out."""

from pathlib import Path

import numpy as np
import pytest

from device_sim import data as registry
from device_sim.data import Dataset, UnknownData, data, held_out, load


def rows(x: np.ndarray) -> list[bytes]:
    return sorted(row.tobytes() for row in x)


def numbered(n: int) -> Dataset:
    x, y = np.arange(n, dtype=np.float32)[:, None], np.arange(n) % 5
    return Dataset(name="numbered", x=x, y=y, test_x=x.copy(), test_y=y.copy())


def test_digits():
    d = load("digits", {})
    assert d is load("digits", {"devices": 7, "alpha": 0.1})
    assert (len(d.y), len(d.test_y)) == (1438, 359)
    assert (d.x.dtype, d.y.dtype, d.x.shape[1]) == (np.float32, np.int64, 64)
    assert (d.x.min(), d.x.max()) == (0.0, 1.0)
    parts = np.bincount(d.test_y) / (np.bincount(d.y) + np.bincount(d.test_y))
    assert len(parts) == 10
    assert abs(parts - 0.2).max() < 0.01
    assert not set(rows(d.x)) & set(rows(d.test_x))
    with pytest.raises(ValueError, match="read-only"):
        d.x[0] = 1


def test_held_out_samples_are_always_the_same():
    x, y = np.arange(50.0)[:, None], np.arange(50) % 3
    a, b = held_out("a", x, y), held_out("b", x, y)
    assert a.test_x.tobytes() == b.test_x.tobytes()
    assert rows(np.concatenate([a.x, a.test_x])) == rows(x.astype(np.float32))


def test_whole_users_are_held_out():
    user = np.arange(100) // 7
    d = held_out("mine", np.arange(100.0)[:, None], np.arange(100) % 3, 0.3, user)
    assert d.user is not None
    assert {*d.user} | {*(d.test_x[:, 0] // 7)} == {*range(15)}
    assert len({*(d.test_x[:, 0] // 7)}) == 4  # of 15, rounded
    assert (d.x[:, 0] // 7 == d.user).all()
    assert len(d.test_y) == 100 - len(d.y) >= 22
    with pytest.raises(ValueError, match="read-only"):
        d.user[0] = 1
    with pytest.raises(ValueError, match="all samples are of one"):
        held_out("mine", np.zeros((4, 1)), np.zeros(4, int), 0.2, np.ones(4, int))
    for fraction in (0.0, 1, "a", True):
        with pytest.raises(ValueError, match="between 0 and 1"):
            held_out("mine", np.zeros((4, 1)), np.zeros(4, int), fraction)


def test_at_least_one_user_is_on_each_side():
    x, y, user = np.zeros((6, 1)), np.zeros(6, int), np.array([1, 1, 2, 2, 2, 2])
    assert {len(held_out("mine", x, y, f, user).test_y) for f in (0.01, 0.99)} <= {2, 4}


def test_who_is_unknown_is_told_what_is_known():
    with pytest.raises(
        UnknownData,
        match=r"'mnist' is known here; known: digits, npz, torchaudio, torchvision\. Your own: --load",
    ):
        load("mnist", {})
    with pytest.raises(ValueError, match=r"takes partition, devices, alpha, .*; not alfa"):
        load("digits", {"alfa": 1})
    with pytest.raises(ValueError, match="'npz' needs path"):
        load("npz", {"test_share": 0.3})


def test_data_cannot_be_registered_over_others_or_take_the_splits_arguments():
    with pytest.raises(ValueError, match="already"):
        data("digits")(lambda: numbered(9))
    with pytest.raises(ValueError, match="cannot take seed"):
        data("mine")(lambda seed: numbered(seed))
    with pytest.raises(UnknownData):
        load("mine", {})


def test_labels_must_match():
    x = np.zeros((3, 1), np.float32)
    with pytest.raises(ValueError, match="labels"):
        Dataset(name="odd", x=x, y=np.zeros(2, np.int64), test_x=x, test_y=np.zeros(3, np.int64))
    y = np.zeros(3, np.int64)
    with pytest.raises(ValueError, match=r"trains on \(1,\) and tests on \(2,\)"):
        Dataset(name="odd", x=x, y=y, test_x=np.zeros((3, 2), np.float32), test_y=y)
    for user in (None, np.arange(4), np.arange(3)):
        with pytest.raises(ValueError, match=r"4 samples have not as many labels, or users: 3, [34]"):
            held_out("odd", np.zeros((4, 1)), y, 0.2, user)
    with pytest.raises(ValueError, match="users"):
        Dataset(name="odd", x=x, y=y, test_x=x, test_y=y, user=y[1:])


# ------------------------------------------------------------------ data of an installed package


def installed(monkeypatch: pytest.MonkeyPatch, at: Path, code: str, **offers: str) -> None:
    """A package, as pip would have installed it, with these entry points."""
    monkeypatch.setattr(registry, "_data", dict(registry._data))
    name = f"somebodys_{at.name}"
    (at / f"{name}.py").write_text(code)
    info = at / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{offer} = {name}:{what}\n" for offer, what in offers.items())
    (info / "entry_points.txt").write_text(f"[olearning.data]\n{lines}")
    monkeypatch.syspath_prepend(at)


SOMEBODYS = """
import numpy as np
from device_sim.data import data, held_out

def ones(samples: int = 10):
    return held_out("ones", np.ones((samples, 2)), np.zeros(samples, int))

@data("itself")
def itself():
    return ones(20)

def takes_seed(seed): ...
def gives_none(): ...
"""


def test_a_packages_data_is_found_by_its_name(tmp_path, monkeypatch):
    installed(monkeypatch, tmp_path, SOMEBODYS, ones="ones", itself="itself")
    assert len(load("itself", {}).y) == 16  # its module registered it as it was imported, just now
    assert len(load("ones", {"samples": 30, "devices": 2}).y) == 24
    assert load("ones", {"samples": 30}) is load("ones", {"samples": 30})
    with pytest.raises(UnknownData, match="known: digits, itself, npz, ones"):
        load("twos", {})


@pytest.mark.parametrize(
    ("offers", "words"),
    [
        ({"mine": "gone"}, "'mine' of olearning.data cannot be imported from somebodys_.*:gone: .*no attribute 'gone'"),
        ({"mine": "SOMEBODYS"}, "must be a function, and somebodys_.* is str"),
        ({"mine": "takes_seed"}, "cannot take seed"),
        ({"mine": "gives_none"}, "gives NoneType, not a Dataset"),
    ],
)
def test_a_packages_data_that_cannot_be_had_says_why(offers, words, tmp_path, monkeypatch):
    installed(monkeypatch, tmp_path, SOMEBODYS + "SOMEBODYS = 'text'", **offers)
    with pytest.raises(ValueError, match=words):
        load("mine", {})


def test_two_packages_with_one_name_are_named(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        installed(monkeypatch, tmp_path / name, SOMEBODYS, both="ones")
    with pytest.raises(ValueError, match="more than once: somebodys_one:ones, somebodys_two:ones"):
        load("both", {})
