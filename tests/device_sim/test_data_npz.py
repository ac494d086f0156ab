"""Data in a file: what is read, what is held out, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from device_sim.data import load, share

N = 60
X = np.arange(N, dtype=np.float32)[:, None] + np.float32([0, 0.5])
Y = (np.arange(N) % 4).astype(np.uint8)
USER = (np.arange(N) // 10 + 3).astype(np.uint8)  # 3 to 8


@pytest.fixture
def file(tmp_path: Path):
    def write(name: str = "d.npz", **arrays) -> str:
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


def users(x: np.ndarray) -> set[int]:
    """Whose these samples are."""
    return {int(v) // 10 + 3 for v in x[:, 0]}


def test_users_are_held_out_whole(file):
    d = load("npz", {"path": file(X=X, y=Y, user=USER, class_names=np.array(["a"]))})
    assert (d.x.dtype, d.y.dtype, d.user.dtype) == (np.float32, np.int64, np.int64)
    assert len(d.test_y) == 10  # a fifth of six, rounded
    assert users(d.x) | users(d.test_x) == {*range(3, 9)}
    assert not users(d.x) & users(d.test_x)
    assert (d.user + 3 == d.x[:, 0] // 10 + 3).all()
    assert not any(a.flags.writeable for a in (d.x, d.y, d.test_x, d.test_y, d.user))
    assert len(share(d, 4, {"partition": "user"})[1]) == 10


def test_the_task_says_which_users_or_how_many(file):
    path = file(X=X, y=Y, user=USER)
    assert users(load("npz", {"path": path, "test_users": "3, 8"}).test_x) == {3, 8}
    assert users(load("npz", {"path": path, "test_users": 5}).test_x) == {5}
    half = load("npz", {"path": path, "test_share": 0.5})
    assert len(users(half.test_x)) == len(users(half.x)) == 3
    path = file("text.npz", X=X, y=Y, user=np.array([f"u{u}" for u in USER]))
    assert users(load("npz", {"path": path, "test_users": "u4"}).test_x) == {4}


def test_without_users_a_share_of_each_class_is_held_out(file):
    path = file(X=X, y=Y)
    d = load("npz", {"path": path})
    assert np.bincount(d.test_y).tolist() == [3, 3, 3, 3]
    assert d.user is None
    assert np.bincount(load("npz", {"path": path, "test_share": 0.4}).test_y).tolist() == [6, 6, 6, 6]


def test_the_files_own_split(file):
    split = np.repeat([0, 1, 2], 20).astype(np.uint8)
    d = load("npz", {"path": file(X=X, y=Y, user=USER, split=split)})
    assert (d.x[:, 0].tolist(), d.test_x[:, 0].tolist()) == (list(range(20)), list(range(40, 60)))
    assert users(load("npz", {"path": file("o.npz", X=X, y=Y, user=USER, split=split), "test_users": "3"}).test_x) == {
        3
    }
    d = load("npz", {"path": file("t.npz", X=X, y=Y, test_X=X[:5] + 1, test_y=Y[:5], user=USER)})
    assert (len(d.x), d.test_x[0, 0], d.test_y.tolist(), len(d.user)) == (60, 1.0, [0, 1, 2, 3, 0], 60)


def test_numbers_are_scaled_only_if_the_file_says_so(file):
    x = np.array([[0, 10], [255, 20]] * 5, np.uint8)
    y = np.zeros(10, np.int8)
    plain = load("npz", {"path": file(X=x, y=y)})
    assert (plain.x.dtype, plain.x.max()) == (np.float32, 255.0)
    scaled = {"scale": np.float32([1, 0.5]), "offset": np.float32(-1)}
    d = load("npz", {"path": file("s.npz", X=x, y=y, test_X=x[1:2], test_y=y[:1], **scaled)})
    assert d.x[:2].tolist() == [[-1, 4], [254, 9]]
    assert d.test_x.tolist() == [[254, 9]]


def test_what_need_not_be_copied_is_not(file, monkeypatch):
    x, y = X.copy(), Y.astype(np.int64)
    arrays = {"X": x, "y": y, "split": np.repeat([0, 2], 30)}
    monkeypatch.setattr("device_sim.data_npz.read", lambda path, wanted: arrays)
    d = load("npz", {"path": file("views.npz")})
    assert all(np.shares_memory(part, whole) for part, whole in ((d.x, x), (d.test_x, x), (d.y, y), (d.test_y, y)))


# ------------------------------------------------------------------ what is refused

FINE = {"X": X, "y": Y}
NAN = np.where(X == 7, np.nan, X)
BAD = [
    ({}, {}, "lacks X and y: needed are"),
    ({"X": X}, {}, "lacks y"),
    ({**FINE, "X": X[:, 0]}, {}, r"X must be numbers of shape \(samples, …\), not float32 \(60,\)"),
    ({**FINE, "X": X[:0]}, {}, r"X must be .* \(0, 2\)"),
    ({**FINE, "X": X.astype(str)}, {}, "X must be numbers"),
    ({**FINE, "X": NAN}, {}, "X has values that are not finite"),
    ({**FINE, "X": np.where(X == 7, -np.inf, X)}, {}, "not finite"),
    ({**FINE, "X": np.where(X == 7, np.inf, X)}, {}, "not finite"),
    ({**FINE, "y": Y + 0.5}, {}, r"y must be whole numbers, one a sample, not float64 \(60,\)"),
    ({**FINE, "y": Y[:, None]}, {}, "y must be whole numbers"),
    ({**FINE, "y": Y[1:]}, {}, "60 samples have not as many labels, or users: 59"),
    ({**FINE, "y": Y.astype(int) - 1}, {}, "y must be classes from 0, not -1"),
    ({**FINE, "user": USER[1:]}, {}, r"user must be .* one for each of 60 samples, not uint8 \(59,\)"),
    ({**FINE, "user": USER * 0.5}, {}, "user must be whole numbers or text"),
    ({**FINE, "user": USER * 0}, {}, "all samples are of one"),
    ({**FINE, "test_X": X}, {}, "only one of test_X and test_y"),
    ({**FINE, "test_X": X[:, :1], "test_y": Y}, {}, "trains on"),
    ({**FINE, "test_X": X, "test_y": Y}, {"test_share": 0.1}, "for files without"),
    ({**FINE, "test_X": X, "test_y": Y, "split": Y}, {}, "for files without"),
    ({**FINE, "split": Y}, {}, "split must be 0"),
    ({**FINE, "split": Y * 0}, {}, "to train on .* and to test on"),
    ({**FINE, "split": np.arange(N) % 2 * 2, "user": USER}, {}, "samples of user 3 on both sides"),
    ({**FINE, "scale": np.ones(3)}, {}, r"scale float64 \(3,\) does not fit a sample of shape \(2,\)"),
    ({**FINE, "offset": np.array(["a"])}, {}, "offset"),
    (FINE, {"test_users": "3"}, "no `user` in it"),
    ({**FINE, "user": USER}, {"test_users": "3,99"}, "test_users names 99; users are 3, 4"),
    ({**FINE, "user": USER}, {"test_users": "3,4,5,6,7,8"}, "leaves nothing to train on"),
    ({**FINE, "user": USER}, {"test_users": "3", "test_share": 0.1}, "leave one out"),
    (FINE, {"test_share": 1.5}, "between 0 and 1"),
    (FINE, {"test_share": "a"}, "between 0 and 1"),
    ({**FINE, "X": np.array([None, X], dtype=object)}, {}, "not an .npz of plain arrays: .*allow_pickle"),
]


@pytest.mark.parametrize(("arrays", "args", "words"), BAD)
def test_bad_files_and_arguments_are_refused_in_clear_words(arrays, args, words, file):
    path = file(**arrays)
    with pytest.raises(ValueError, match=words) as e:
        load("npz", {"path": path, **args})
    assert path in str(e.value) or "leave one out" in words


def test_a_path_that_is_no_archive(tmp_path):
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "whole.npz", X=X, y=Y)
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    at = whole.index(X.tobytes())
    (tmp_path / "torn.npz").write_bytes(whole[:at] + b"torn" + whole[at + 4 :])
    for name, words in [
        ("one.npy", "one array alone"),
        ("empty.npz", "not an .npz"),
        ("text.npz", "not an .npz"),
        ("cut.npz", "not an .npz"),
        ("torn.npz", "not an .npz"),
        ("none.npz", "there is no file .* on this machine"),
        (".", "cannot read .*: Is a directory"),
    ]:
        with pytest.raises(ValueError, match=words):
            load("npz", {"path": str(tmp_path / name)})
    with pytest.raises(ValueError, match="path must be text"):
        load("npz", {"path": 3})
