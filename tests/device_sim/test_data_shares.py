"""Shares are disjoint and cover all, or are what a file says, and leave nobody without."""

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.data import LEAST, Dataset, load, share


def numbered(n: int, classes: int = 5, users: int = 0) -> Dataset:
    """Sample i is the number i: whose it became can be read off it. User u has the samples that are u modulo `users`."""
    x = np.arange(n, dtype=np.float32)[:, None]
    y = np.arange(n) % classes
    user = np.arange(n) % users if users else None
    return Dataset(name="numbered", x=x, y=y, test_x=x.copy(), test_y=y.copy(), user=user)


def dealt(d: Dataset, n: int, **args) -> list[list[int]]:
    """The numbers of each of the n devices' samples."""
    shares = [share(d, i, args) for i in range(n)]
    assert not any(a.flags.writeable for some in shares for a in some)
    assert all((d.y[x[:, 0].astype(int)] == y).all() for x, y in shares)
    with pytest.raises(ValueError, match=f"device {n} is not one of the {n}"):
        share(d, n, args)
    return [x[:, 0].astype(int).tolist() for x, _ in shares]


def covers(owned: list[list[int]], n: int) -> bool:
    """Every sample is somebody's, and nobody else's; everybody has one."""
    return sorted(chain(*owned)) == list(range(n)) and min(map(len, owned)) >= 1


def test_what_does_not_cover_would_be_seen():
    assert covers([[0, 2], [1]], 3)
    assert not covers([[0, 2], [2, 1]], 3)
    assert not covers([[0], [1]], 3)
    assert not covers([[0, 1, 2], []], 3)


# ------------------------------------------------------------------ dirichlet


@settings(max_examples=40)
@given(st.integers(1, 60), st.floats(0.02, 100), st.integers(0, 5), st.integers(60, 400))
def test_shares_are_disjoint_cover_all_and_leave_nobody_without(devices, alpha, seed, n):
    d = numbered(n)
    args = {"devices": devices, "alpha": alpha, "seed": seed, "other": "ignored"}
    shares = [share(d, i, args) for i in range(devices)]
    assert sorted(np.concatenate([x[:, 0] for x, _ in shares]).tolist()) == list(range(n))
    assert all((x[:, 0] % 5 == y).all() for x, y in shares)
    assert min(len(y) for _, y in shares) >= min(LEAST, n // devices)


def test_shares_are_the_same_each_time_and_others_for_another_seed():
    def split(d: Dataset, **args) -> list[list[float]]:
        return [share(d, i, {"devices": 10, **args})[0][:, 0].tolist() for i in range(10)]

    one = split(numbered(300))
    assert split(numbered(300)) == one
    assert split(numbered(300), seed=1) != one
    assert split(numbered(300), alpha=0.4) != one
    d = numbered(300)
    assert share(d, 3, {})[0] is share(d, 3, {"devices": 40, "alpha": 0.5, "seed": 0})[0]


def test_a_small_alpha_means_few_classes_a_device():
    def most(alpha: float) -> float:
        d = load("digits", {})
        ys = [share(d, i, {"alpha": alpha})[1] for i in range(40)]
        return float(np.mean([np.bincount(y).max() / len(y) for y in ys]))

    assert most(0.05) > 0.6 > most(0.5) > 0.25 > most(1000.0)


def test_the_default_is_dirichlet_as_it_always_was():
    """The figures in docs/ were measured with these shares."""
    d = numbered(200)
    sizes = [len(share(d, i, {"devices": 6, "alpha": 0.1, "seed": 3})[1]) for i in range(6)]
    assert sizes == [39, 45, 13, 10, 30, 63]
    assert share(d, 2, {"devices": 6, "alpha": 0.1, "seed": 3, "partition": "dirichlet"})[0][:4, 0].tolist() == [
        10,
        15,
        55,
        60,
    ]
    args = {"devices": 60, "alpha": 0.02, "seed": 1}  # most of these have what they took from the rich
    shares = [share(numbered(300), i, args)[0][:, 0].tolist() for i in (0, 1, 59)]
    assert shares == [[114, 151, 156, 191, 279], [20, 78, 172, 176, 203], [1, 13, 64, 108, 141]]


@pytest.mark.parametrize(
    ("device", "args", "words"),
    [
        (40, {}, "device 40 is not one of the 40"),
        (-1, {}, "device -1"),
        (0, {"devices": 0}, "devices must"),
        (0, {"devices": 101}, "devices must be a whole number from 1 to the 100 samples"),
        (0, {"devices": "4"}, "devices must"),
        (0, {"alpha": 0}, "alpha must"),
        (0, {"alpha": float("nan")}, "alpha must"),
        (0, {"alpha": "x"}, "alpha must"),
        (0, {"seed": -1}, "seed must"),
        (0, {"partition": "odd"}, "partition 'odd' is not known; known: dirichlet, user, shards, counts"),
        (0, {"shards": 2}, "shards: not for partition 'dirichlet', which takes devices, alpha, seed"),
        (0, {"partition": "user", "alpha": 0.5}, "alpha: not for partition 'user'"),
        (0, {"partition": "user"}, "does not say whose its samples are"),
        (0, {"partition": "shards", "shards": 0}, "shards must be a whole number of at least 1"),
        (
            0,
            {"partition": "shards", "devices": 34, "shards": 3},
            "34 devices of 3 shards are more than the 100 samples",
        ),
        (0, {"partition": "counts"}, "counts must be the path"),
        (0, {"partition": "counts", "counts": "none.txt"}, "cannot read none.txt: No such file"),
        (0, {"partition": "counts", "counts": "none.npz"}, "no file none.npz on this machine"),
        (0, {"partition": "counts", "counts": "x", "labels": "all"}, "labels must be any or dirichlet"),
        (0, {"partition": "counts", "counts": "x", "alpha": 1}, "alpha is for labels"),
        (0, {"partition": "counts", "counts": "x", "replace": 1}, "replace must be true or false"),
        (0, {"partition": "counts", "counts": "x", "counts_name": 1}, "counts_name must be"),
    ],
)
def test_bad_splits_are_refused_in_clear_words(device, args, words):
    with pytest.raises(ValueError, match=words):
        share(numbered(100), device, args)


# ------------------------------------------------------------------ user


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(0, 30), st.integers(42, 200))
def test_by_user_a_device_has_a_stretch_of_one_users_samples(users, more, n):
    owned = dealt(numbered(n, users=users), users + more, partition="user", devices=users + more)
    assert covers(owned, n)
    assert all({b - a for a, b in pairwise(mine)} <= {users} for mine in owned)
    assert max(map(len, owned)) <= -(-n // users)


def test_by_user_the_largest_get_more_devices():
    user = np.array([0] * 30 + [1] * 10 + [2] * 5)
    x = np.arange(45, dtype=np.float32)[:, None]
    y = np.zeros(45, np.int64)
    d = Dataset("mine", x, y, x.copy(), y.copy(), user)
    assert [len(mine) for mine in dealt(d, 3, partition="user")] == [30, 10, 5]  # one each, if not said
    assert [len(mine) for mine in dealt(d, 7, partition="user", devices=7)] == [8, 8, 7, 7, 5, 5, 5]
    assert [len(mine) for mine in dealt(d, 45, partition="user", devices=45)] == [1] * 45
    assert np.shares_memory(share(d, 0, {"partition": "user"})[0], d.x)  # in order already: no copy
    with pytest.raises(ValueError, match=r"each of the 3 users .* not 2"):
        share(d, 0, {"partition": "user", "devices": 2})
    with pytest.raises(ValueError, match="from 1 to the 45 samples, not 46"):
        share(d, 0, {"partition": "user", "devices": 46})


# ------------------------------------------------------------------ shards


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 9), st.integers(80, 300))
def test_by_shards_a_device_has_few_labels(devices, shards, classes, n):
    d = numbered(n, classes)
    owned = dealt(d, devices, partition="shards", devices=devices, shards=shards)
    assert covers(owned, n)
    for mine in owned:
        assert abs(len(mine) - n / devices) < shards
        per_shard = -(-n // (devices * shards)) // (n // classes) + 2
        assert len({*d.y[mine]}) <= shards * per_shard


def test_two_shards_of_ten_classes_are_two_labels_at_most():
    d = numbered(400, classes=10)
    owned = dealt(d, 20, partition="shards", devices=20, seed=1)
    assert {len({*d.y[mine]}) for mine in owned} <= {1, 2}
    assert owned == dealt(d, 20, partition="shards", devices=20, shards=2, seed=1)
    assert owned != dealt(d, 20, partition="shards", devices=20, seed=2)


# ------------------------------------------------------------------ counts


@pytest.fixture
def counts(tmp_path: Path) -> str:
    path = tmp_path / "counts.txt"
    path.write_text("3 50\n1\n20\n")
    return str(path)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.integers(0, 40),
    st.sampled_from([{}, {"labels": "dirichlet"}, {"labels": "dirichlet", "alpha": 0.01}]),
)
def test_counts_are_as_the_file_says_and_no_sample_comes_twice(tmp_path_factory, wanted, more, args):
    path = tmp_path_factory.mktemp("counts") / "counts.npy"
    np.save(path, wanted)
    owned = dealt(numbered(sum(wanted) + more), len(wanted), partition="counts", counts=str(path), **args)
    assert [len(mine) for mine in owned] == wanted
    together = [*chain(*owned)]
    assert len({*together}) == len(together)


@pytest.mark.parametrize("args", [{}, {"labels": "dirichlet"}])
def test_counts_beyond_the_samples_need_replacement(counts, args):
    with pytest.raises(ValueError, match="4 devices 74 samples and data 'numbered' has 60: set replace"):
        dealt(numbered(60), 4, partition="counts", counts=counts, **args)
    owned = dealt(numbered(60), 4, partition="counts", counts=counts, replace=True, **args)
    assert [len(mine) for mine in owned] == [3, 50, 1, 20]
    assert [len(mine) for mine in dealt(numbered(60), 2, partition="counts", counts=counts, devices=2)] == [3, 50]


def test_with_replacement_a_device_has_a_sample_twice_only_if_it_must(counts):
    assert len({*dealt(numbered(50), 4, partition="counts", counts=counts, replace=True)[1]}) == 50
    assert len({*dealt(numbered(20), 4, partition="counts", counts=counts, replace=True)[1]}) <= 20


def test_dirichlet_labels_are_fewer_the_smaller_alpha_is(tmp_path):
    np.savez(tmp_path / "c.npz", some=np.full(20, 40), others=np.arange(3))
    d = numbered(1000)

    def most(**args) -> float:
        owned = dealt(d, 20, partition="counts", counts=str(tmp_path / "c.npz"), counts_name="some", **args)
        return float(np.mean([np.bincount(d.y[mine]).max() / 40 for mine in owned]))

    assert most(labels="dirichlet", alpha=0.05) > 0.7 > most(labels="dirichlet", alpha=5.0) > most() > 0.2
    for replace in (True, False):
        assert most(labels="dirichlet", alpha=1e-4, replace=replace) > 0.8


@pytest.mark.parametrize(
    ("written", "args", "words"),
    [
        ("3 2.5", {}, "does not hold a whole number for each device: .*2.5"),
        ("", {}, "must hold a whole number for each device"),
        ("3\n0", {}, "gives device 1 0 samples"),
        ("3 4", {"devices": 3}, "has 2 counts, devices are 3"),
        ("3 4", {"counts_name": "har"}, "counts_name is for an .npz"),
    ],
)
def test_bad_counts_are_refused_in_clear_words(written, args, words, tmp_path):
    (tmp_path / "c.txt").write_text(written)
    with pytest.raises(ValueError, match=words):
        share(numbered(100), 0, {"partition": "counts", "counts": str(tmp_path / "c.txt"), **args})


def test_counts_in_archives_are_named(tmp_path):
    path = str(tmp_path / "c.npz")
    np.savez(path, har=np.array([1, 2]), other=np.array([[1]]))
    with pytest.raises(ValueError, match="holds har, other: say which by counts_name"):
        share(numbered(9), 0, {"partition": "counts", "counts": path})
    with pytest.raises(ValueError, match="no array speech; it holds har, other"):
        share(numbered(9), 0, {"partition": "counts", "counts": path, "counts_name": "speech"})
    with pytest.raises(ValueError, match=r"not int64 \(1, 1\)"):
        share(numbered(9), 0, {"partition": "counts", "counts": path, "counts_name": "other"})
    assert len(share(numbered(9), 1, {"partition": "counts", "counts": path, "counts_name": "har"})[1]) == 2
    np.save(tmp_path / "c.npy", np.array([1.5]))
    with pytest.raises(ValueError, match="not float64"):
        share(numbered(9), 0, {"partition": "counts", "counts": str(tmp_path / "c.npy")})
