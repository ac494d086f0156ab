"""`olearning submit`, `update`, `pause`, `resume` and `stop`: what a tenant says of a task; `export`: what comes of it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from olearning.connect import find
from olearning.errors import USAGE, Trouble
from olearning.hosting import PATIENCE, complain, emit, visit
from olearning.loading import load_code
from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, By, Load, Namespace, TaskName, whoever
from olearning.roles import new_life
from processors.steerer import Change, Steerer
from schemas.wire import MOST_SEED

if TYPE_CHECKING:
    from olearning.model_files import Float32
    from schemas.blocks import Layout


def submit(
    file: Annotated[Path, typer.Argument(help="A task file (TOML).")],
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    seed: Annotated[int, typer.Option(help="For the first weights and the training.", min=0, max=MOST_SEED)] = 0,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the verdict.", min=1)] = 30.0,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="A file with version 0 (.npz, .pt), as `export` and `modular train` write."),
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


def export(
    task: TaskName,
    file: Annotated[
        Path,
        typer.Argument(help="Where to: .npz, or .pt for torch. With {epoch} in its name, a file for each."),
    ],
    epoch: Annotated[
        int | None, typer.Option(help="The epoch whose model it is; 0: the untrained one. Else the last.", min=0)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each model that is merged, until the task is over.")
    ] = False,
    task_file: Annotated[
        Path | None, typer.Option(help="The task's file, where it is over for so long that its record is gone.")
    ] = None,
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Write a task's global model into a file, tensor by tensor. `submit --from` begins with such a file."""
    from olearning.export import Export
    from olearning.model_files import check_suffix, write_model
    from olearning.submitting import built

    check_suffix(file)
    if not file.parent.is_dir():
        raise Trouble(f"there is no folder {file.parent} for the model", USAGE)
    if follow and epoch is not None:
        raise Trouble("--epoch names one model, --follow takes all that come: give one of them", USAGE)
    load_code(load)

    def take(n: int, layout: "Layout", vector: "Float32") -> None:
        path = file.with_name(file.name.replace("{epoch}", str(n)))
        write_model(path, layout, vector)
        values, tensors = vector.size, len(layout.tensors)
        what = {"task": task, "epoch": n, "values": values, "tensors": tensors, "file": str(path)}
        which = f"the model of epoch {n}" if n else "the untrained model"
        emit(json.dumps(what) if as_json else f"{task}: {which}, {values:,} values in {tensors:,} tensors: {path}")

    shape = None
    if task_file:
        spec, shape, *_ = built(task_file, 0)
        if spec.task != task:
            raise Trouble(f"{task_file} is of task {spec.task}, and {task} is asked for", USAGE)
    export = Export(namespace, task, take, epoch, follow, shape, complain)
    visit(namespace, bootstrap, export, patience=None if follow else PATIENCE, seconds=None)


def _steer(task: str, change: Change, by: str, namespace: str, bootstrap: str) -> None:
    emit(visit(namespace, bootstrap, Steerer(namespace, task, change, whoever(by))).reason)
