"""What a simulation drops of its logs, and what a ledger still names."""

from types import SimpleNamespace
from typing import Any

from olearning.sweeper import Sweeper
from schemas.blocks import BESIDE, Difference, Manifest, Place
from schemas.topics import GLOBAL, topic
from streams.memory import Memory
from streams.processor import Send


def test_differences_that_a_manifest_names_stay_wherever_they_lie():
    memory, models = Memory(), topic("n", GLOBAL, "models").name
    memory.create(models, 1)
    for key in ("old", "older", f"k{BESIDE}", "nobody's", "k"):
        memory.append(Send(models, b"x", key, 0))
    manifest = Manifest(models, 1, (Place(0, 4, "k", 0),), (Difference(2, 7),))
    task = SimpleNamespace(manifest=manifest, optimiser=None, updates={})
    globe: Any = SimpleNamespace(processor=SimpleNamespace(globe=SimpleNamespace(tasks={"t": task}, over={})))
    sweeper = Sweeper(memory, "n", {}, globe)
    sweeper.sweep()
    sweeper.sweep()
    assert [r.key for r in memory.records(models)] == [f"k{BESIDE}", "nobody's", "k"]
