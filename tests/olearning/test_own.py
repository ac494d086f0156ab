"""What docs/your-own.md shows works: data, a model, a client and a merge of one's own, from end to end in memory."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_sim import client as clients
from device_sim import data
from learning import registry, strategies
from olearning.loading import load_code
from olearning.submitting import submitter
from olearning.up import Shape
from schemas import task
from schemas.facts import Finalised
from schemas.messages import Evaluation, Objection
from schemas.topics import GLOBAL, read, topic
from streams.ledger import Globe, Ledger, Zone
from streams.memory import Memory

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of people's own is registered yet, and nothing stays."""
    import learning.models  # noqa: F401

    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_model", "my_client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(registry, "models", dict(registry.models))
    monkeypatch.setattr(data, "_data", dict(data._data))
    monkeypatch.setattr(clients, "clients", {})
    monkeypatch.setattr(strategies, "_own", {})
    monkeypatch.setattr(strategies, "STRATEGIES", {})
    monkeypatch.setattr(task, "STRATEGIES", strategies.STRATEGIES)


def plane(load: Path, file: Path, devices: int) -> Memory:
    """The log of a whole plane after its task has ended, in virtual time."""
    shape = Shape("own", aggregators=1, devices=devices, partitions=2, day_seconds=0, load=(str(load),))
    memory = Memory(seed=1)
    for role in [*shape.plane(), *shape.fleets()]:
        for t, partitions in role.topics():
            memory.create(t.name, partitions)
        memory.host(role.build)
    load_code(shape.load)
    host = memory.host(submitter(file, "own", seed=0))
    ledger = Ledger(Globe())

    def over() -> bool:
        seen = ledger.state.position
        for record in memory.records("own.global.ledger")[seen:]:
            ledger.feed(record)
        return bool(ledger.state.over) and not ledger.state.tasks

    assert memory.run(over, 600_000), (host.stopped, said(memory, Objection))
    memory.run(limit=5_000)  # the evaluator's last word
    assert host.stopped.ok, host.stopped
    return memory


def said(memory: Memory, kind: type) -> list:
    metrics = topic("own", GLOBAL, "metrics").name
    messages = (read(r.topic, r.value, r.headers) for r in memory.records(metrics))
    return [m for m in messages if isinstance(m, kind)]


def rounds(memory: Memory, zone: str) -> Iterator[Finalised]:
    ledger: Ledger = Ledger(Zone())
    for record in memory.records(f"own.{zone}.ledger"):
        fact, void = ledger.feed(record)
        if isinstance(fact, Finalised) and not void:
            yield fact


def test_the_example_has_under_40_lines() -> None:
    assert len((EXAMPLES / "own_model.py").read_text().splitlines()) < 40


@pytest.mark.program
def test_a_model_data_and_a_merge_of_ones_own_learn() -> None:
    memory = plane(EXAMPLES / "own_model.py", EXAMPLES / "own_model.toml", devices=10)
    assert said(memory, Objection) == []
    accuracy = {e.epoch: e.accuracy for e in said(memory, Evaluation)}
    assert sorted(accuracy) == [0, 1, 2]
    assert accuracy[0] < 0.5  # chance is 1/3
    assert accuracy[2] > 0.85
    for zone in ("east", "west"):
        finals = list(rounds(memory, zone))
        assert len(finals) == 8
        assert all(f.optimiser for f in finals)  # its state is in the log


def test_a_client_of_ones_own_learns(tmp_path: Path) -> None:
    """The client that the page shows: what stands there is run here."""
    page = (ROOT / "docs" / "your-own.md").read_text()
    code = page[page.index("# my_client.py") : page.index("```", page.index("# my_client.py"))]
    text = page[page.index("# my_client.toml") : page.index("```", page.index("# my_client.toml"))]
    (tmp_path / "my_client.py").write_text(code)
    (tmp_path / "my_client.toml").write_text(text)
    memory = plane(tmp_path / "my_client.py", tmp_path / "my_client.toml", devices=20)
    assert said(memory, Objection) == []
    accuracy = {e.epoch: e.accuracy for e in said(memory, Evaluation)}
    assert accuracy[0] < 0.3  # chance is 1/10
    assert accuracy[max(accuracy)] > 0.8
    losses = [f.loss / f.samples / 1e6 for f in rounds(memory, "east")]
    assert losses[-1] < losses[0] < np.log(10) + 0.01
