"""Archives of the known forms, made small, become files that data "npz" reads."""

import numpy as np
import pytest

from device_sim.convert import HAPT_TEST, KINDS, convert, main
from device_sim.data import load

dice = np.random.default_rng(0)
N = 33
HAPT = {"y": dice.integers(0, 6, N).astype(np.uint8), "user": np.repeat(np.arange(1, 12), 3).astype(np.uint8)}
HALVES = {"y_train": np.arange(5, dtype=np.uint8), "y_test": np.arange(2, dtype=np.uint8)}
ARCHIVES: dict[str, dict[str, np.ndarray]] = {
    "hapt-features": {**HAPT, "X_f16": dice.normal(size=(N, 9)).astype(np.float16), "mean": np.ones(9)},
    "hapt-raw": {
        **HAPT,
        "X_i16": dice.integers(-999, 999, (N, 128, 6)).astype(np.int16),
        "scale": np.arange(1, 7).astype(np.float32),
    },
    "speech": {
        "X_u8": dice.integers(0, 255, (N, 4, 4)).astype(np.uint8),
        "scale": np.float32(0.1),
        "offset": np.float32(-16),
        "y": HAPT["y"],
        "user": HAPT["user"],
        "split": np.repeat([0, 1, 2], 11 * 3)[::3].astype(np.uint8)[np.repeat(np.arange(0, 33, 3), 3)],
    },
    "mnist": {
        **HALVES,
        "X_train": dice.integers(0, 255, (5, 28, 28)).astype(np.uint8),
        "X_test": dice.integers(0, 255, (2, 28, 28)).astype(np.uint8),
    },
    "cifar10": {
        **HALVES,
        "X_train": dice.integers(0, 255, (5, 6, 7, 3)).astype(np.uint8),
        "X_test": dice.integers(0, 255, (2, 6, 7, 3)).astype(np.uint8),
    },
}


def test_every_kind_is_tried():
    assert KINDS.keys() == ARCHIVES.keys()


@pytest.fixture(params=KINDS)
def loaded(request, tmp_path):
    source, target = tmp_path / "archive.npz", tmp_path / "data.npz"
    np.savez(source, **ARCHIVES[request.param])
    convert(request.param, str(source), str(target))
    return request.param, ARCHIVES[request.param], load("npz", {"path": str(target)})


def test_samples_and_labels_are_the_archives(loaded):
    kind, a, d = loaded
    match kind:
        case "hapt-features" | "hapt-raw":
            x = a["X_f16"] if kind == "hapt-features" else a["X_i16"] * a["scale"]
            test = np.isin(a["user"], HAPT_TEST)
            assert np.array_equal(d.x, x[~test])
            assert np.array_equal(d.test_x, x[test])
            assert (d.y.tolist(), d.test_y.tolist()) == (a["y"][~test].tolist(), a["y"][test].tolist())
            assert len({*d.user}) == 7  # 1, 3, 5, 6, 7, 8, 11
        case "speech":
            for x, y, split in ((d.x, d.y, 0), (d.test_x, d.test_y, 2)):
                chosen = a["split"] == split
                assert np.allclose(x, a["X_u8"][chosen] * a["scale"] + a["offset"], atol=1e-5)
                assert y.tolist() == a["y"][chosen].tolist()
        case _:
            assert (len(d.y), len(d.test_y), d.x.max() <= 1) == (5, 2, True)
            last = a["X_test"][1]
            assert np.allclose(d.test_x[1], (last.transpose(2, 0, 1) if kind == "cifar10" else last) / 255)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("mnist.npz", **ARCHIVES["mnist"])
    assert main(["mnist", "mnist.npz", "out.npz"]) == 0
    assert "X       uint8 (5, 28, 28)" in capsys.readouterr().out
    for words, says in [
        (["mnist", "mnist.npz", "out.npz"], "out.npz is there already"),
        (["mnist", "mnist.npz", "out.np"], "must end in .npz"),
        (["mnist", "none.npz", "new.npz"], "there is no file none.npz"),
        (["speech", "mnist.npz", "new.npz"], "mnist.npz is not a speech archive: it lacks X_u8"),
        (["mnist", "mnist.npz", "nowhere/new.npz"], "cannot write nowhere/new.npz: No such file"),
    ]:
        assert main(words) == 2
        assert says in capsys.readouterr().err
    with pytest.raises(ValueError, match="kind 'emnist' is not known; known: hapt-features"):
        convert("emnist", "mnist.npz", "new.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mnist.npz", "out.npz"]


def test_a_file_that_cannot_be_finished_is_not_left(tmp_path, monkeypatch):
    np.savez(tmp_path / "mnist.npz", **ARCHIVES["mnist"])

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(ValueError, match=r"cannot write .*: No space left"):
        convert("mnist", str(tmp_path / "mnist.npz"), str(tmp_path / "out.npz"))
    assert not (tmp_path / "out.npz").exists()
