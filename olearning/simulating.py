"""Running a scenario in virtual time, with torch behind its devices."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

from device_sim.learner import Learners, prepare, scorer, structure
from olearning.errors import USAGE, Trouble
from olearning.model_files import write_model
from olearning.outcome import Result
from olearning.scenario import Loaded, check, load
from olearning.simulation import Simulation
from schemas.blocks import Layout
from schemas.task import TaskSpec
from streams.processor import Processor


def simulate(
    scenario: Path | str | Mapping[str, Any], watchers: Sequence[Processor] = (), models: Path | str | None = None
) -> Result:
    """Run a scenario, a file or what one would say as a dict, in virtual time to its end: what `olearning simulate` does. Own models, data
    and clients are those that were registered before. `watchers`: processors, a `View` say, that follow what topics they like. `models`: a
    folder, in which each task's last model is written to TASK.npz, with an array for each tensor.

    Raises `Trouble` for a scenario that cannot be, and names what is wrong.
    """
    if isinstance(scenario, Mapping):
        loaded, where = check(dict(scenario), "the scenario"), "the scenario"
    else:
        loaded, where = load(Path(scenario)), str(scenario)
    try:
        return follow(loaded, quiet=True, watchers=watchers, models=None if models is None else Path(models))
    except ValueError as e:
        raise Trouble(f"{where}: {e}", USAGE) from None


def follow(
    loaded: Loaded, quiet: bool = False, watchers: Sequence[Processor] = (), models: Path | None = None
) -> Result:
    """Run a scenario to its end, watched by processors of one's own, and write the models to a folder. Unless it is to be quiet, a bar on
    standard error, where that is a terminal, says how long it still takes. Raises `ValueError` for what it finds wrong on the way."""
    if models:
        models.mkdir(parents=True, exist_ok=True)

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
    if models:
        for name, layout in simulation.layouts.items():
            file = models / f"{name}.npz"
            file.unlink(missing_ok=True)  # one of a run before is not this run's
            if name in simulation.models:
                write_model(file, layout, simulation.models[name])
    return simulation.result
