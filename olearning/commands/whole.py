"""`olearning up`, `simulate`, `experiment` and `demo`: everything at once."""

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from olearning.completing import experiments
from olearning.connect import Broker, choose
from olearning.errors import USAGE, Trouble
from olearning.hosting import drive, emit, narrator
from olearning.loading import load_code, own
from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, Load, MetricsPort, Namespace, Partitions
from olearning.roles import DAY_SECONDS, new_life
from olearning.telemetry import logs
from schemas.topics import DEFAULT_PARTITIONS
from schemas.wire import MOST_SEED


def up(
    zones: Annotated[str, typer.Option(help="The zones, with commas.")] = "east,west",
    aggregators: Annotated[int, typer.Option(help="In each zone.", min=1)] = 2,
    devices: Annotated[int, typer.Option(help="Simulated devices in each zone; 0: start fleets yourself.", min=0)] = 0,
    task: Annotated[list[Path] | None, typer.Option(help="A task file to submit; may be given again.")] = None,
    load: Load = None,
    evaluator: Annotated[bool, typer.Option(help="Score the global models.")] = True,
    modules: Annotated[
        bool | None, typer.Option(help="Answer devices of modular tasks. By itself: if one of the tasks is modular.")
    ] = None,
    partitions: Partitions = DEFAULT_PARTITIONS,
    day_seconds: Annotated[float, typer.Option(help="A simulated day; 0: devices are always free.", min=0)] = 0.0,
    memory: Annotated[bool, typer.Option("--memory", help="No broker: the log in memory, one process.")] = False,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    seed: Annotated[int, typer.Option(help="For all that is drawn.", min=0, max=MOST_SEED)] = 0,
    metrics_port: MetricsPort = 0,
) -> None:
    """A whole plane on this machine, until Ctrl-C."""
    from olearning.submitting import submitter
    from olearning.tasks import parse_task
    from olearning.up import Shape, run_folder
    from olearning.up import up as run_plane

    loaded, files = own(load), task or []
    specs = [parse_task(file) for file in files]  # a bad file ends it before anything is started, and before torch
    shape = Shape(
        namespace, tuple(zones.split(",")), aggregators, devices, evaluator, partitions, day_seconds, seed=seed, load=loaded,
        modules=any(s.modules for s in specs) if modules is None else modules,
    )  # fmt: skip
    tasks = [submitter(file, namespace, seed, wait_s=120) for file in files]  # the plane starts just now
    folder, say = run_folder(runs), narrator("up")
    logs.set_up(about={"role": "up"})
    if memory:
        say("log: in memory, as asked; all roles in this one process, nothing survives it")
    try:
        with Broker("") if memory else choose(folder / "broker", say, bootstrap) as chosen:
            drive(lambda: run_plane(shape, folder, chosen, tasks, say, metrics_port))
    finally:
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()


def simulate(
    file: Annotated[Path, typer.Argument(help="A scenario (TOML): zones, devices, tasks.")],
    seed: Annotated[int | None, typer.Option(help="Another seed than the scenario's.", min=0, max=MOST_SEED)] = None,
    out: Annotated[Path | None, typer.Option(help="A file for the result, as JSON.")] = None,
    models: Annotated[Path | None, typer.Option(help="A folder for each task's last model, as TASK.npz.")] = None,
    load: Load = None,
    as_json: AsJson = False,
) -> None:
    """Simulate zones, devices and tasks in virtual time: the same processors and devices, as fast as the machine goes."""
    from msgspec.structs import replace

    from olearning import scenario

    load_code(load)
    loaded = scenario.load(file)
    if out:
        out.touch()  # what cannot be written is said now, not after the run
    from olearning.outcome import lines
    from olearning.simulating import follow

    if seed is not None:
        loaded = scenario.Loaded(replace(loaded.scenario, seed=seed), loaded.specs, loaded.offsets)
    try:
        result = follow(loaded, quiet=as_json, models=models)
    except ValueError as e:
        raise Trouble(f"{file}: {e}", USAGE) from None
    text = json.dumps(result.as_json(), indent=2)
    if out:
        out.write_text(text + "\n")
    emit(text if as_json else "\n".join(lines(result)))


def experiment(
    name: Annotated[
        str, typer.Argument(help="Which figure or table; an unknown name lists them.", autocompletion=experiments)
    ],
    out: Annotated[Path, typer.Option(help="The folder for raw results, pictures and tables. Runs it has are kept.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder with real data sets.", exists=True, file_okay=False)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each line, each with a seed of its own.", min=1)] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small and once: shows that it works, measures nothing.")
    ] = False,
) -> None:
    """Make a figure of the papers anew: raw results, a picture, and a table beside the paper's own numbers."""
    from olearning.experiment import experiment as run

    run(name, out, data, seeds, quick)


def demo(
    devices: Annotated[int, typer.Option(help="In each of the two zones.", min=10)] = 20,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    live: Annotated[
        bool, typer.Option(help="Redraw one screen; else lines. By itself: if this is a terminal.")
    ] = False,
    bootstrap: Bootstrap = "",
    seed: Annotated[int, typer.Option(help="For all that is drawn.", min=0, max=MOST_SEED)] = 0,
) -> None:
    """Two zones train a classifier of handwritten digits; an aggregator is killed; the end is compared and reported."""
    from rich.console import Console

    from olearning.demo import Demo
    from olearning.up import Shape, run_folder

    console = Console()
    shape = Shape(f"demo-{new_life()}", devices=devices, day_seconds=DAY_SECONDS, apart_h=4.0, resend=0.1, seed=seed)
    show = Demo(shape, run_folder(runs), console, live or console.is_terminal)
    with show.choose(bootstrap) as chosen:
        code = drive(lambda: show.run(chosen))
    raise typer.Exit(code)
