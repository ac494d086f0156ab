"""Experiments on ECLM, small, to their picture and table; what is there is not run again."""

import json

import pytest

from experiments.asked import Asked
from experiments.eclm import (
    accuracy,
    adaptation,
    divergence,
    memory_latency,
    motivation,
    routing,
    sensitivity,
    settings,
    size,
)
from experiments.eclm.measured import measure
from experiments.record import Runs

pytestmark = pytest.mark.program

QUICK = {
    "accuracy": (accuracy, accuracy.har, len(accuracy.WAYS) - 1),  # a digit's class is its cell
    "adaptation": (adaptation, adaptation.har, len(adaptation.RUNS)),
    "size": (size, size.har, 4),
    "routing": (routing, routing.har, 2),
    "divergence": (divergence, divergence.har, 4),
    "limits": (sensitivity, sensitivity.har, 6),
    "settings": (settings, settings.har, len(settings.lines(quick=True))),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Offline models, made once for all."""
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("name", QUICK)
def test_a_picture_a_table_and_a_line_a_run_that_is_not_done_again(name, tmp_path, monkeypatch, models):
    module, run, lines = QUICK[name]
    monkeypatch.setattr(module, "models_folder", lambda asked: models)
    asked = Asked(
        name, tmp_path, Runs(tmp_path, "abc"), lambda tree, watchers: None, lambda text: None, seeds=1, quick=True
    )
    run(asked)
    assert {p.name for p in tmp_path.iterdir()} == {"raw.jsonl", "table.md", f"{name}.png", f"{name}.svg"}
    rows = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert len(rows) == lines
    assert {r["settings"]["seed"] for r in rows} == {0}
    before = (tmp_path / "table.md").read_text()
    monkeypatch.setattr(module, "measured", lambda *args: pytest.fail("it is there"))
    monkeypatch.setattr(module, "save", lambda figure, to: None)
    run(asked)
    assert (tmp_path / "table.md").read_text() == before


def test_motivation_has_all_its_panels(tmp_path, monkeypatch, models):
    """With what is measured said by hand: three processes beside it make it take four times as long."""
    monkeypatch.setattr(motivation, "models_folder", lambda asked: models)
    monkeypatch.setattr(
        motivation,
        "measure",
        lambda forms: [{"peak": 4e6 if f["train"] else 1e6, "cpu_s": 0.3 if f["train"] else 0.1} for f in forms],
    )
    monkeypatch.setattr(motivation, "beside", lambda some: [0.01 * (1 + 3 * n) for n in some])
    monkeypatch.setattr(
        motivation, "slot_by_slot", lambda there, slots: {name: [0.5] * slots for name in motivation.LINES}
    )
    motivation.run(
        Asked("m", tmp_path, Runs(tmp_path, "abc"), lambda tree, watchers: None, lambda text: None, seeds=1, quick=True)
    )
    text = (tmp_path / "table.md").read_text()
    assert "| 1(b) inference, 1 background processes: times as long as alone | 4.00 |" in text
    assert "training over inference: peak memory | 4.0 |" in text
    assert "training over inference: time | 3.0 |" in text
    assert (tmp_path / "m.png").exists()


def test_a_form_is_measured_in_a_process_of_its_own():
    """A network of 4 M parameters takes 16 bytes each: weights, gradients and Adam's two; to infer, 4."""
    args = {"inputs": 2000, "hidden": "1000,2000", "classes": 2}
    form = {"model": "mlp", "args": args, "shape": [2000], "steps": 2}
    train, infer, part = measure([form, form | {"train": False}, form | {"modules": 1}])
    assert train["parameters"] == 4_007_002
    assert 16 <= train["peak"] / train["parameters"] < 24
    assert 3 <= infer["peak"] / infer["parameters"] < 8
    assert part["parameters"] < train["parameters"]
    assert part["peak"] < train["peak"]
    assert train["cpu_s"] > 0
    with pytest.raises(RuntimeError, match="measuring failed"):
        measure([form | {"model": "none"}])


def test_each_form_is_held_against_the_original(tmp_path, monkeypatch):
    """The sub-model takes a quarter of the memory and half of the time."""
    takes = {0: {"peak": 8e6, "cpu_s": 0.2, "parameters": 10}, 1: {"peak": 2e6, "cpu_s": 0.1, "parameters": 2}}
    monkeypatch.setattr(memory_latency, "measure", lambda forms: [takes[f.get("modules", 0)] for f in forms])
    asked = Asked(
        "m", tmp_path, Runs(tmp_path, "abc"), lambda tree, watchers: None, lambda text: None, seeds=1, quick=True
    )
    memory_latency.run(asked)
    text = (tmp_path / "table.md").read_text()
    assert "| MLP: ECLM, 1 module | 0.00 | 2.0 (1) | 4.00 (1) | 100.0 (1) | 2.00 (1) | 690.0 | 35.0 |" in text
