"""A plane in memory with somebody who watches it."""

from olearning.view import View
from schemas.messages import Evaluation
from schemas.topics import GLOBAL, topic
from streams.memory import Memory
from streams.processor import send
from tests.plane import NS, Plane, spec

ACCURACY = (0.1, 0.6, 0.9)


def watch(plane: Plane, **more) -> View:
    view = View(NS, **more)
    plane.memory.host(lambda life: view)
    return view


def score(plane: Plane, epoch: int, accuracy: float, task: str = "toy") -> None:
    """Say what an evaluator would."""
    e = Evaluation("eval", plane.memory.now, task, epoch, epoch, accuracy, 1.0, 360)
    plane.memory.append(send(topic(NS, GLOBAL, "metrics"), e))


def finished(seed: int = 1, **more) -> tuple[Plane, View]:
    """A plane whose task is over, and its view."""
    plane = Plane(Memory(seed=seed))
    view = watch(plane, **more)
    plane.submit(spec(epochs=2, rounds=2))
    assert plane.memory.run(lambda: plane.ended("toy"), 120_000)
    for epoch, accuracy in enumerate(ACCURACY):
        score(plane, epoch, accuracy)
    plane.memory.run(limit=2_500)
    return plane, view
