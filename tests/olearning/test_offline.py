"""The offline stage as a job: who is killed goes on to the same bits, and its file is version 0 of a task."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from learning.models import layout_of, to_vector
from learning.modular.training import Settings
from olearning import offline
from olearning.errors import Trouble
from olearning.model_files import read_model, write_model
from olearning.offline import CHECKPOINT, PASSES, Stage, train
from schemas.blocks import Tensor, layout
from schemas.modules import Modules
from schemas.task import Rounds, TaskSpec

SPEC = TaskSpec(
    "digits",
    "mlp",
    "digits",
    model_args={"hidden": "24,24"},
    rounds=Rounds(partial=True),
    modules=Modules(modules=5, ratio=3.0, k=2),
)
STAGE = Stage(passes=2, enhance=2, settings=Settings(batch=32, lr=0.01), together=((0, 1, 2), (3, 4), (5, 6, 7, 8, 9)))


class Killed(Exception):
    pass


def test_who_is_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    said: list[str] = []
    whole = train(SPEC, STAGE, tmp_path / "whole", said.append)
    log = json.loads((tmp_path / "whole" / PASSES).read_text())
    assert [e["pass"] for e in log] == list(range(5))
    assert log[-1]["accuracy"] > log[0]["accuracy"] + 0.3
    keep = offline._keep
    for last in (1, 2, 3):  # in training, between the two, in enhancing
        folder, count = tmp_path / str(last), 0

        def dying(*args, last=last):
            nonlocal count
            keep(*args)
            if (count := count + 1) == last:
                raise Killed

        monkeypatch.setattr(offline, "_keep", dying)
        with pytest.raises(Killed):
            train(SPEC, STAGE, folder, said.append)
        monkeypatch.setattr(offline, "_keep", keep)
        assert not (folder / whole.name).exists()
        again = train(SPEC, STAGE, folder, said.append)
        assert any(s.startswith(f"goes on after pass {last}") for s in said)
        assert again.read_bytes() == whole.read_bytes()
        assert (folder / PASSES).read_text() == (tmp_path / "whole" / PASSES).read_text()


def test_what_is_refused(tmp_path):
    with pytest.raises(Trouble, match=r"task digits has no \[modules\]"):
        train(TaskSpec("digits", "mlp", "digits"), STAGE, tmp_path, print)
    with pytest.raises(Trouble, match="each class is in one sub-task"):
        train(SPEC, Stage(1, 0, together=((0, 1),)), tmp_path, print)
    (tmp_path / CHECKPOINT).write_bytes(b"no zip")
    with pytest.raises(Trouble, match="no checkpoint that can be read"):
        train(SPEC, Stage(1, 0), tmp_path, print)
    (tmp_path / CHECKPOINT).unlink()
    train(SPEC, Stage(1, 0), tmp_path, lambda text: None)
    with pytest.raises(Trouble, match="has another training"):
        train(SPEC, Stage(2, 0), tmp_path, print)
    with pytest.raises(Trouble, match="stages"):
        train(
            TaskSpec("l", "linear", "digits", rounds=Rounds(partial=True), modules=Modules()),
            STAGE,
            tmp_path / "other",
            print,
        )


@pytest.mark.parametrize("name", ["model.npz", "model.pt"])
def test_a_model_in_a_file_is_read_back_or_refused(tmp_path, name):
    shape, path = layout((Tensor("a.w", (2, 3)), Tensor("b", (4,)))), tmp_path / name
    vector = np.arange(10, dtype=np.float32)
    write_model(path, shape, vector)
    assert read_model(path, shape).tolist() == vector.tolist()
    for other, why in (
        (layout((Tensor("a.w", (2, 3)), Tensor("c", (4,)))), "has no tensor c"),
        (layout((Tensor("a.w", (2, 3)),)), "has also tensor b"),
        (layout((Tensor("a.w", (3, 2)), Tensor("b", (4,)))), r"a.w has shape \(2, 3\), the task's model \(3, 2\)"),
    ):
        with pytest.raises(Trouble, match=why):
            read_model(path, other)
    write_model(path, shape, vector * np.nan)
    with pytest.raises(Trouble, match="no numbers"):
        read_model(path, shape)
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(Trouble, match="cannot read a model"):
        read_model(path, shape)


@pytest.mark.parametrize("name", ["model.npz", "model.pt"])
def test_whatever_a_tensor_is_called_it_is_in_the_file(tmp_path, name):
    shape, vector = layout((Tensor("file", (1,)), Tensor("allow_pickle", (2,)))), np.arange(3, dtype=np.float32)
    write_model(tmp_path / name, shape, vector)
    assert read_model(tmp_path / name, shape).tolist() == vector.tolist()


@pytest.mark.parametrize("name", ["model.npz", "model.pt"])
def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError):
        write_model(tmp_path / name, layout((Tensor("w", (1,)),)), np.zeros(1, np.float32))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_parameters_of_any_kind_are_read(tmp_path):
    path, shape = tmp_path / "model.pt", layout((Tensor("w", (2,)), Tensor("v", (2,))))
    torch.save({"w": nn.Parameter(torch.ones(2)), "v": torch.eye(2)[1].to_sparse(), "n": torch.tensor(3)}, path)
    assert read_model(path, shape).tolist() == [1, 1, 0, 1]


def test_what_each_device_keeps_for_itself_is_said_not_to_belong_there(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(1), "bn.running_mean": torch.ones(1)}, path)
    with pytest.raises(Trouble, match=r"has also tensor bn\.running_mean: .*or has what each device keeps for itself"):
        read_model(path, layout((Tensor("w", (1,)),)))


def test_arrays_that_are_no_model_are_refused(tmp_path):
    shape = layout((Tensor("w", (1,)),))
    np.save(tmp_path / "one.npz.npy", np.ones(1))
    (tmp_path / "one.npz.npy").rename(tmp_path / "one.npz")
    np.savez(tmp_path / "text.npz", w=np.array(["x"]))
    for name, why in (("one", "one array without a name"), ("text", "could not convert")):
        with pytest.raises(Trouble, match=f"cannot read a model from .*{name}.npz: .*{why}"):
            read_model(tmp_path / f"{name}.npz", shape)


def test_a_state_dict_is_a_model_s_file_and_the_other_way_round(tmp_path):
    """With its counters, which no layout has; in any precision."""
    path = tmp_path / "model.pt"
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    torch.save(module.half().state_dict(), path)
    vector = read_model(path, layout_of(module.float()))
    assert vector.tobytes() == to_vector(module).tobytes()
    write_model(path, layout_of(module), 2 * vector)
    module.load_state_dict(torch.load(path))
    assert to_vector(module).tobytes() == (2 * vector).tobytes()


@pytest.mark.parametrize("what", [nn.Linear(2, 2), {"w": [1.0]}, [1.0]])
def test_what_is_no_state_dict_is_refused(tmp_path, what):
    torch.save(what, tmp_path / "model.pt")
    with pytest.raises(Trouble, match=r"cannot read a model from .*model\.pt: it is no state dict of tensors"):
        read_model(tmp_path / "model.pt", layout((Tensor("w", (1,)),)))
