"""`olearning submit`, `update`, `pause`, `resume` and `stop`: what a tenant says of a task."""

from pathlib import Path
from typing import Annotated

import typer

from olearning.connect import find
from olearning.hosting import emit, visit
from olearning.loading import load_code
from olearning.options import DEFAULT_NAMESPACE, Bootstrap, By, Load, Namespace, TaskName, whoever
from olearning.roles import new_life
from processors.steerer import Change, Steerer
from schemas.wire import MOST_SEED


def submit(
    file: Annotated[Path, typer.Argument(help="A task file (TOML).")],
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    seed: Annotated[int, typer.Option(help="For the first weights and the training.", min=0, max=MOST_SEED)] = 0,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the verdict.", min=1)] = 30.0,
    start: Annotated[
        Path | None, typer.Option("--from", help="A file with version 0 (.npz), as `olearning modular train` writes.")
    ] = None,
) -> None:
    """Submit a task: builds version 0 of its model, and waits for the verdict."""
    from olearning.submitting import submitter

    find(bootstrap, namespace)  # before torch is loaded
    load_code(load)
    made = submitter(file, namespace, seed, wait, start)(new_life())
    client = f"tenant-{made.spec.tenant}"
    print(visit(namespace, bootstrap, made, patience=None, seconds=None, client=client).reason)


def update(
    file: Annotated[Path, typer.Argument(help="The task's file, with other settings.")],
    load: Load = None,
    by: By = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
) -> None:
    """Change a task that runs: training, rounds, epochs, stop. It holds from its next round and epoch on."""
    from olearning.tasks import parse_task

    load_code(load)
    spec = parse_task(file)
    _steer(spec.task, Change(spec=spec), by, namespace, bootstrap)


def pause(task: TaskName, by: By = "", namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """Open no round and no epoch of a task any more, until it goes on. What is open is finished."""
    _steer(task, Change("pause"), by, namespace, bootstrap)


def resume(task: TaskName, by: By = "", namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """Let a paused task go on."""
    _steer(task, Change("run"), by, namespace, bootstrap)


def stop(task: TaskName, by: By = "", namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """End a task for good: its epoch ends now, with what the zones have."""
    _steer(task, Change("stop"), by, namespace, bootstrap)


def _steer(task: str, change: Change, by: str, namespace: str, bootstrap: str) -> None:
    emit(visit(namespace, bootstrap, Steerer(namespace, task, change, whoever(by))).reason)
