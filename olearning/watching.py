"""Running a simulation with torch behind its devices, and a bar that says how long it still takes."""

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

from device_sim.learner import Learners, prepare, scorer, structure
from olearning.outcome import Result
from olearning.scenario import Loaded
from olearning.simulate import Simulation
from schemas.blocks import Layout
from schemas.task import TaskSpec
from streams.processor import Processor


def follow(loaded: Loaded, quiet: bool = False, watchers: Sequence[Processor] = ()) -> Result:
    """Run a scenario to its end, watched by processors of one's own. The bar goes to standard error, where that is a terminal."""

    def made(spec: TaskSpec, seed: int) -> tuple[Layout, npt.NDArray[np.float32]]:
        return prepare(spec, seed)[:2]

    score = scorer() if loaded.scenario.evaluate else None
    simulation = Simulation(loaded, Learners(), made, score, watchers, structure)
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=1.0)
        for share in simulation.run():
            bar.update(task, completed=share)
    return simulation.result
