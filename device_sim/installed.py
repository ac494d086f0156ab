"""Who learns in this process, by what is installed: with torch everything; without it clients of one's own, which may be numpy alone."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from device_sim import client
from learning.words import Plain
from schemas.blocks import Layout
from schemas.modules import Structure
from schemas.task import TaskSpec

if TYPE_CHECKING:
    from device_sim.learner import Learners

Vector = npt.NDArray[np.float32]


def learners() -> "Learners | client.ClientLearner":
    """What a fleet trains with."""
    try:
        from device_sim.learner import Learners
    except ModuleNotFoundError as e:
        _only_torch(e)
        return client.ClientLearner()
    return Learners()


def prepare(spec: TaskSpec, seed: int) -> tuple[Layout, Vector]:
    """Version 0 of a task's model, and its layout. Raises `BadTask` for what nobody here can build, `ModuleNotFoundError` for what
    needs torch where it is not."""
    try:
        from device_sim.learner import prepare
    except ModuleNotFoundError as e:
        _only_torch(e)
        if spec.model not in client.clients:
            raise
        return client.prepare(spec, seed)
    return prepare(spec, seed)[:2]


def structure(spec: TaskSpec) -> Structure | None:
    """What the parts of a modular task's model cost; None: it is one piece. For a task that `prepare` could build."""
    if spec.modules is None:
        return None
    from device_sim.learner import structure

    return structure(spec)


def scorer() -> Callable[[TaskSpec, Vector], tuple[float, float, int]]:
    """Scores a flat model of a task on its held-out data: accuracy, mean loss, samples."""
    try:
        from device_sim.learner import scorer
    except ModuleNotFoundError as e:
        _only_torch(e)
        return _client_score
    return scorer()


def _client_score(spec: TaskSpec, vector: Vector) -> tuple[float, float, int]:
    if spec.model not in client.clients:
        raise Plain(f"no client {spec.model} is known here, and modules need torch: install olearning[train]")
    return client.score(spec, vector)


def _only_torch(e: ModuleNotFoundError) -> None:
    if e.name != "torch":
        raise e
