"""From a task file to a processor that submits it. Version 0 of the model is built here: by torch, or by a client of one's own."""

from collections.abc import Callable
from pathlib import Path

from olearning.errors import USAGE, Trouble
from olearning.model_files import read_model
from olearning.tasks import parse_task
from processors.submitter import Submitter
from schemas.task import BadTask


def submitter(
    file: Path, namespace: str, seed: int, wait_s: float = 30.0, start: Path | None = None
) -> Callable[[str], Submitter]:
    """What submits the task in a file; `start`: a file with version 0 of its model. Raises `Trouble` for a file or a model that
    cannot be."""
    spec = parse_task(file)
    from device_sim.installed import prepare, structure

    try:
        layout, vector = prepare(spec, seed)
        parts = structure(spec)
    except ModuleNotFoundError as e:
        raise Trouble(f"{e.name} is not installed; submitting builds the model: install olearning[train]") from None
    except BadTask as e:
        raise Trouble(f"{file}: {e}", USAGE) from None
    except ValueError as e:  # what was loaded has the name of one of ours
        raise Trouble(str(e), USAGE) from None
    if start:
        vector = read_model(start, layout)
    return lambda life: Submitter(namespace, life, spec, layout, vector, seed, round(1000 * wait_s), parts)
