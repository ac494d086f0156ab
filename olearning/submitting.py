"""From a task file to a processor that submits it. Version 0 of the model is built here: by torch, or by a client of one's own."""

from collections.abc import Callable
from pathlib import Path

from olearning.errors import USAGE, Trouble
from olearning.model_files import Float32, read_model
from olearning.tasks import parse_task
from processors.submitter import Submitter
from schemas.blocks import Layout
from schemas.modules import Structure
from schemas.task import BadTask, TaskSpec


def built(file: Path, seed: int) -> tuple[TaskSpec, Layout, Float32, Structure | None]:
    """The task in a file; version 0 of its model; what its parts cost, if it is modular. Raises `Trouble` for a file or a model that
    cannot be."""
    spec = parse_task(file)
    from device_sim.installed import prepare, structure

    try:
        return spec, *prepare(spec, seed), structure(spec)
    except ModuleNotFoundError as e:
        raise Trouble(f"{e.name} is not installed, and the model is built by it: install olearning[train]") from None
    except BadTask as e:
        raise Trouble(f"{file}: {e}", USAGE) from None
    except ValueError as e:  # what was loaded has the name of one of ours
        raise Trouble(str(e), USAGE) from None


def submitter(
    file: Path, namespace: str, seed: int, wait_s: float = 30.0, start: Path | None = None
) -> Callable[[str], Submitter]:
    """What submits the task in a file; `start`: a file with version 0 of its model. Raises `Trouble` for a file or a model that
    cannot be."""
    spec, layout, vector, parts = built(file, seed)
    if start:
        vector = read_model(start, layout)
    return lambda life: Submitter(namespace, life, spec, layout, vector, seed, round(1000 * wait_s), parts)
