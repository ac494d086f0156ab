"""The benchmark of the codecs trains, measures and says what it found; no figure of speed is looked at."""

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks import codecs
from device_sim import data
from schemas.blocks import BLOCK, CODECS
from schemas.task import Epochs, Upload


@pytest.fixture
def short(monkeypatch):
    """Trainings of two rounds."""
    task = codecs.TASKS["digits"]
    monkeypatch.setitem(codecs.TASKS, "digits", replace(task, epochs=Epochs(1, 2, 10**6)))
    monkeypatch.setattr(codecs, "best", lambda once: (once(), 1e-3)[1])


@pytest.mark.program
def test_every_codec_has_a_row_and_three_lines(short, monkeypatch):
    asked = []
    train = codecs.training
    monkeypatch.setattr(codecs, "training", lambda spec, seed: asked.append(spec.upload.codec) or train(spec, seed))
    rows = codecs.run(seeds=2)
    assert {r.codec for r in rows} == CODECS.keys()
    assert sorted(asked) == sorted(2 * [n for n in CODECS if "zstd" not in n])
    size = {r.codec: r.bytes for r in rows}
    assert [size[n] for n in ("int32", "int16", "int8")] == [4 * 4810, 2 * 4810, 4810]
    assert size["top-k+int8"] == 3 * 481
    assert all(size[f"{n}+zstd"] < size[n] for n in CODECS if "zstd" not in n)
    assert all(0.2 < a < 1 for r in rows for a in r.accuracy)
    found = list(codecs.lines(rows))
    assert len(found) == 36
    assert {line.as_json()["bench"] for line in found} == {"codecs"}
    assert sum(line.startswith("| `") for line in codecs.table(rows)) == 24


@pytest.mark.program
def test_a_training_repeats_bit_for_bit(short):
    spec = replace(codecs.TASKS["digits"], upload=Upload("top-k+int8"))
    assert codecs.training(spec, 1) == codecs.training(spec, 1)
    assert codecs.training(spec, 1) != codecs.training(spec, 2)


def test_the_block_is_a_real_one():
    block = codecs.real_block()
    assert block.shape == (BLOCK,)
    assert 0.01 < np.abs(block).max() < 100


def test_data_by_path(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_data", dict(data._data))
    path = tmp_path / "some.npz"
    pixels = np.full((6, 28, 28), 255, np.uint8)
    np.savez(path, X_train=pixels, y_train=np.arange(6), X_test=pixels[:2], y_test=np.arange(2))
    codecs.with_data("mnist", str(path))
    loaded = data.load("mnist", {})
    assert (loaded.x.shape, loaded.test_x.shape, loaded.x.max()) == ((6, 28, 28), (2, 28, 28), 1.0)
    with pytest.raises(ValueError, match="known: hapt, mnist"):
        codecs.with_data("cifar", str(path))
