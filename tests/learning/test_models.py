"""Models by name, and to a vector and back."""

import numpy as np
import pytest
import torch
from torch import nn

from learning import registry
from learning.models import UnknownModel, build, layout_of, load_vector, model, score, to_vector
from schemas.blocks import BLOCK


def test_a_seed_gives_the_weights_and_leaves_the_process_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    a, b, c = (to_vector(build("mlp", {}, seed)) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), expected)
    assert a.tobytes() == b.tobytes()
    assert a.tobytes() != c.tobytes()


def test_layouts_name_what_the_vector_holds():
    module = build("mlp", {"inputs": 64, "hidden": "300, 32", "classes": 10}, 0)
    layout = layout_of(module)
    assert [t.shape for t in layout.tensors] == [(300, 64), (300,), (32, 300), (32,), (10, 32), (10,)]
    assert [t.name for t in layout.tensors] == list(module.state_dict())
    assert sum(layout.sizes) == len(to_vector(module)) == 300 * 64 + 300 + 32 * 300 + 32 + 320 + 10
    assert layout_of(build("mlp", {"inputs": 2000, "hidden": 64}, 0)).sizes[0] == BLOCK
    assert [t.shape for t in layout_of(build("linear", {"inputs": 3, "classes": 2}, 0)).tensors] == [(2, 3), (2,)]


def test_a_vector_goes_in_and_comes_out_bit_for_bit():
    one, other = build("mlp", {}, 1), build("mlp", {}, 2)
    vector = to_vector(one)
    vector.setflags(write=False)
    load_vector(other, vector)
    assert to_vector(other).tobytes() == vector.tobytes()
    x = torch.rand(4, 64)
    assert torch.equal(one(x), other(x))

    kept = to_vector(other)
    assert not np.shares_memory(kept, to_vector(other))
    with pytest.raises(ValueError, match=f"{len(vector)} values"):
        load_vector(other, vector[1:])
    assert to_vector(other).tobytes() == kept.tobytes()


def test_counters_are_not_sent():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    names = [t.name for t in layout_of(module).tensors]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    module(torch.rand(5, 2))
    load_vector(module, np.zeros_like(to_vector(module)))
    assert int(module[1].num_batches_tracked) == 1


def test_scores():
    module = build("linear", {"inputs": 2, "classes": 2}, 0)
    load_vector(module, np.array([1, 0, 0, 1, 0, 0], np.float32))  # logits = x
    x = np.array([[9, 0], [0, 9], [9, 0], [9, 0]] * 600, np.float32)  # more than are scored at once
    y = np.array([0, 1, 0, 1] * 600)
    accuracy, loss = score(module, x, y)
    assert accuracy == 0.75
    assert loss == pytest.approx((3 * np.log1p(np.exp(-9)) + np.log1p(np.exp(9))) / 4, rel=1e-5)
    assert module.training
    with pytest.raises(ValueError, match="samples"):
        score(module, x[:0], y[:0])
    with pytest.raises(ValueError, match="4 and 3"):
        score(module, x[:4], y[:3])


def test_who_is_unknown_is_told_what_is_known(monkeypatch):
    ours = {
        k: b for k, b in registry.models.items() if b.__module__.startswith("learning.")
    }  # not those of other tests
    monkeypatch.setattr(registry, "models", ours)
    known = "cnn, cnn1d, linear, mlp, resnet18, resnet34, resnet8, vgg16"
    with pytest.raises(UnknownModel, match=f"'resnet' is known here; known: {known}"):
        build("resnet", {}, 0)


def test_a_packages_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "models", dict(registry.models))
    (tmp_path / "somebodys.py").write_text(
        "from torch import nn\nfrom learning.models import model\n"
        "def twin(inputs: int): return nn.Linear(inputs, 2)\n"
        "@model('itself')\ndef itself(): return nn.Linear(1, 1)\n"
    )
    info = tmp_path / "somebodys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    offers = "twin = somebodys:twin\nitself = somebodys:itself\ngone = somebodys:gone\n"
    (info / "entry_points.txt").write_text(f"[olearning.models]\n{offers}")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(to_vector(build("itself", {}, 0))) == 2  # its module registers it as it is imported
    assert len(to_vector(build("twin", {"inputs": 3}, 0))) == 8
    with pytest.raises(ValueError, match=r"'gone' of olearning.models cannot be imported from somebodys:gone"):
        build("gone", {}, 0)
    with pytest.raises(UnknownModel, match="known: cnn, cnn1d, gone, itself, linear"):
        build("triplet", {}, 0)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"hiden": 3}, "takes inputs, hidden, classes; not hiden"),
        ({"hidden": 0}, "hidden must be a whole number of at least 1, not 0"),
        ({"hidden": "64,"}, "like \"64,32\", not '64,'"),
        ({"hidden": "64,-3"}, "hidden must"),
        ({"hidden": "64,0"}, "hidden must be a whole number"),
        ({"inputs": 6.5}, "inputs must be a whole number"),
        ({"classes": True}, "classes must be a whole number"),
        ({"inputs": "64"}, "inputs must be a whole number"),
    ],
)
def test_bad_arguments_are_refused_in_clear_words(args, words):
    with pytest.raises(ValueError, match=words):
        build("mlp", args, 0)


def test_a_model_of_ones_own(monkeypatch):
    monkeypatch.setattr(registry, "models", dict(registry.models))

    @model("twin")
    def twin(inputs: int) -> nn.Module:
        return nn.Linear(inputs, 2)

    assert len(to_vector(build("twin", {"inputs": 3}, 0))) == 8
    with pytest.raises(ValueError, match="'twin' needs inputs"):
        build("twin", {}, 0)
    with pytest.raises(ValueError, match="already"):
        model("twin")(twin)
