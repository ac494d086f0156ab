"""`olearning bench`: how fast it is, beside what the machine can do and what another platform does, in the same run."""

import json
import sys
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olearning.connect import choose
from olearning.errors import NO_BROKER, USAGE, Trouble
from olearning.hosting import emit_or_end
from schemas.wire import MOST_SEED

if TYPE_CHECKING:
    from benchmarks.line import Line

bench = typer.Typer(
    help="How fast it is: each figure beside its physical limit and, if asked for, a peer, measured in the same run.",
    no_args_is_help=True,
)


class Peer(StrEnum):
    """Who does the same work for comparison."""

    FLOWER = "flower"


Report = Callable[["Line"], None]
AskedPeer = Annotated[
    Peer | None, typer.Option("--peer", help="Let it do the same work, in an environment of its own (made if need be).")
]
Bootstrap = Annotated[
    str, typer.Option(help="Kafka's bootstrap servers; else KAFKA_BOOTSTRAP_SERVERS, else a local broker for this run.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: an object a line, as soon as it is measured.")]
Quick = Annotated[bool, typer.Option("--quick", help="Small and once: shows that it works, measures nothing.")]


@bench.command("round")
def bench_round(
    devices: Annotated[int | None, typer.Option(help="Devices in the round.  [default: 10]", min=1)] = None,
    parameters: Annotated[
        str, typer.Option(help="Sizes of models, with commas, as in 500,10k,1.2M.  [default: 10k,1.2M,11.2M]")
    ] = "",
    workers: Annotated[int, typer.Option(help="Aggregators.", min=1)] = 1,
    edges: Annotated[int, typer.Option(help="Processes that the devices are spread over.", min=1)] = 1,
    repeat: Annotated[int | None, typer.Option(help="Rounds measured of each.  [default: 3]", min=1)] = None,
    peer: AskedPeer = None,
    quick: Quick = False,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """A round with devices that train nothing: from the first upload until the next zone model is read, in seconds."""
    from benchmarks import round

    sizes = _counts(parameters) or ((10_000,) if quick else round.PARAMETERS)
    devices, repeat = devices or (3 if quick else 10), repeat or (1 if quick else 3)
    if edges > devices:
        raise Trouble(f"{devices} devices cannot be spread over {edges} processes", USAGE)
    with_peer = peer.value if peer else ""

    def work(report: Report, bootstrap: str) -> None:
        round.run(
            report,
            bootstrap=bootstrap,
            devices=devices,
            parameters=sizes,
            repeat=repeat,
            workers=workers,
            edges=edges,
            peer=with_peer,
        )

    _measure(work, bootstrap, as_json)


@bench.command("aggregate")
def bench_aggregate(
    devices: Annotated[str, typer.Option(help="How many, with commas.")] = "10,50,100",
    parameters: Annotated[str, typer.Option(help="Sizes of models, with commas.")] = "1.2M,11.2M,21.3M",
    peer: AskedPeer = None,
    quick: Quick = False,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Adding deltas up: from memory and from the broker, in bytes a second, with the memory it takes."""
    from benchmarks import aggregate

    cases = [(d, p) for d in _counts(devices) for p in _counts(parameters)]
    with_peer = peer.value if peer else ""

    def work(report: Report, bootstrap: str) -> None:
        aggregate.run(report, bootstrap=bootstrap, cases=cases, peer=with_peer, quick=quick)

    _measure(work, bootstrap, as_json)


@bench.command("distribute")
def bench_distribute(
    edges: Annotated[str, typer.Option(help="How many, with commas.  [default: 1,4,16,64]")] = "",
    parameters: Annotated[str, typer.Option(help="Sizes of models, with commas.  [default: 1.2M,11.2M]")] = "",
    repeat: Annotated[int | None, typer.Option(help="Versions measured of each.  [default: 3]", min=1)] = None,
    quick: Quick = False,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Versions of a model out to edges, from their blocks and as differences, in bytes a second."""
    from benchmarks import distribute

    many = _counts(edges) or ((1, 2) if quick else distribute.EDGES)
    sizes = _counts(parameters) or ((70_000,) if quick else distribute.PARAMETERS)
    times = repeat or (1 if quick else distribute.REPEAT)

    def work(report: Report, bootstrap: str) -> None:
        distribute.run(report, bootstrap=bootstrap, edges=many, parameters=sizes, repeat=times)

    _measure(work, bootstrap, as_json)


@bench.command("control")
def bench_control(
    devices: Annotated[str, typer.Option(help="How many, with commas.  [default: 1k,10k,100k]")] = "",
    rate: Annotated[int | None, typer.Option(help="Registrations a second of a steady load.", min=1)] = None,
    quick: Quick = False,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Registrations that a zone answers a second and how long devices wait, alone and beside deltas at full rate."""
    from benchmarks import control

    many = _counts(devices) or ((200,) if quick else control.DEVICES)
    rate = rate or (200 if quick else control.STEADY)
    more: dict[str, Any] = {"seconds": 1, "beside": 50, "longer": 2} if quick else {}
    _measure(
        lambda report, bootstrap: control.run(report, bootstrap=bootstrap, devices=many, steady=rate, **more),
        bootstrap,
        as_json,
    )


@bench.command("gateway")
def bench_gateway(
    connections: Annotated[
        str, typer.Option(help="Connections open at once, with commas.  [default: 100,1k,10k]")
    ] = "",
    quick: Quick = False,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """What one gateway serves: phones that ask, register, send deltas and fetch models by HTTP; beside bare handlers."""
    from benchmarks import gateway
    from olearning.tokens import Signed

    many = _counts(connections) or ((40,) if quick else gateway.CONNECTIONS)
    small = {"polls": 100, "registrations": 100, "deltas": 40, "models": 40, "steady": 50, "seconds": 1}
    more: dict[str, Any] = small if quick else {}
    _measure(
        lambda report, bootstrap: gateway.run(
            report,
            bootstrap=bootstrap,
            token=lambda secret, device: Signed(secret).token(device),
            connections=many,
            **more,
        ),
        bootstrap,
        as_json,
    )


@bench.command("isolation")
def bench_isolation(
    devices: Annotated[int | None, typer.Option(help="Devices of each task.  [default: 30]", min=1)] = None,
    parameters: Annotated[str, typer.Option(help="Size of the models.  [default: 1.2M]")] = "",
    loud: Annotated[int | None, typer.Option(help="Tasks of the tenant that floods.  [default: 10]", min=1)] = None,
    repeat: Annotated[int | None, typer.Option(help="Runs of each kind.  [default: 3]", min=1)] = None,
    quick: Quick = False,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """What a tenant that floods an aggregator costs another, beside that one's fair share and an aggregator without shares."""
    from benchmarks import isolation

    size = (_counts(parameters) or ((70_000,) if quick else (1_200_000,)))[0]
    given = {"devices": devices, "loud": loud, "repeat": repeat}
    small = {"devices": 3, "loud": 2, "repeat": 1} if quick else {}
    chosen: dict[str, int] = small | {k: v for k, v in given.items() if v is not None}
    _measure(
        lambda report, bootstrap: isolation.run(report, bootstrap=bootstrap, parameters=size, **chosen),
        bootstrap,
        as_json,
    )


@bench.command("forecast")
def bench_forecast(
    devices: Annotated[int | None, typer.Option(help="How many.  [default: 1000]", min=1)] = None,
    windows: Annotated[int, typer.Option("-m", help="Windows that each predicts.", min=1)] = 3,
    sure: Annotated[
        float | None,
        typer.Option(help="The chance with which a window is to hold; above 0, at most 1.  [default: 0.8]"),
    ] = None,
    hour: Annotated[float, typer.Option(help="When they predict, by local time.", min=0, max=24)] = 12,
    seed: Annotated[int, typer.Option(help="For the habits.", min=0, max=MOST_SEED)] = 0,
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """A device's forecast of its own free time: how much of it is true, beside foresight and two plain ones. No broker."""
    from benchmarks import forecast
    from device_sim.forecast import SURE

    sure = SURE if sure is None else sure
    if not 0 < sure <= 1:
        raise Trouble(f"a chance of {sure:g} is none: above 0, at most 1", USAGE)
    rows = forecast.run(devices or (50 if quick else 1000), m=windows, sure=sure, hour=hour, seed=seed, say=_say)
    for line in map(json.dumps, (r.as_json() for r in rows)) if as_json else forecast.table(rows):
        emit_or_end(line)


@bench.command("simulate")
def bench_simulate(
    devices: Annotated[str, typer.Option(help="How many, with commas.  [default: 100,1000]")] = "",
    parameters: Annotated[str, typer.Option(help="Sizes of models, with commas.  [default: 10k,1.2M]")] = "",
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """Updates a second of a simulation: with devices that train nothing, and with real training beside the bare loop. No broker."""
    from benchmarks import simulate
    from benchmarks.line import table
    from olearning.nothing import simulate_nothing, simulate_training

    many = _counts(devices) or ((5,) if quick else simulate.DEVICES)
    sizes = _counts(parameters) or ((1_000,) if quick else simulate.PARAMETERS)
    lines: list[Line] = []

    def report(line: "Line") -> None:
        lines.append(line)
        if as_json:
            emit_or_end(json.dumps(line.as_json()))

    simulate.run(report, simulate_nothing, simulate_training, many, sizes, 40 if quick else simulate.UPDATES)
    if not as_json:
        from rich.console import Console

        Console(soft_wrap=True).print(table(lines))


@bench.command("engine")
def bench_engine(quick: Quick = False, as_json: AsJson = False) -> None:
    """Simulated devices' trainings: a loop, weights stacked, worker processes; updates a second. No broker."""
    from benchmarks import engine

    lines = []
    for line in engine.run(engine.QUICK, 0.0) if quick else engine.run():
        lines.append(line)
        if as_json:
            emit_or_end(json.dumps(line.as_json()))
        else:
            _say(f"measured: {line.bench} {line.case}")
    for row in () if as_json else engine.table(lines):
        emit_or_end(row)


@bench.command("plan")
def bench_plan(
    slots: Annotated[str, typer.Option(help="How many free times, with commas.  [default: 1,5,10,20,50]")] = "",
    tasks: Annotated[str, typer.Option(help="How many, with commas.  [default: 10,25,50,100,150,200,300]")] = "",
    seeds: Annotated[int, typer.Option(help="Problems of each size.", min=1)] = 1,
    best_seconds: Annotated[
        float | None, typer.Option(help="How long to look for the best plan.  [default: 60]", min=0.1)
    ] = None,
    times: Annotated[str, typer.Option(help="Seconds of a task, the least and the most.")] = "30,300",
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """A device's plans: their reward beside the best known and what no plan can reach, and the time they take."""
    from benchmarks import plan

    sizes = _counts(slots) or ((1, 3) if quick else plan.SLOTS), _counts(tasks) or ((10,) if quick else plan.TASKS)
    span = _counts(times)
    if len(span) != 2 or span[0] > span[1]:
        raise Trouble(f"--times {times!r}: the least and the most seconds of a task, as in 30,300", USAGE)
    best_seconds = best_seconds or (0.5 if quick else plan.BEST_SECONDS)
    short: dict[str, Any] = {"seconds": 0.2, "limits": (0.05, 0.1), "capped": {(3, 10)}} if quick else {}
    _say(f"at most {plan.longest(*sizes, seeds, best_seconds, **short) / 60:.0f} minutes, building models not counted")
    _print(lambda report: plan.run(report, *sizes, seeds, best_seconds, (span[0], span[1]), **short), as_json)


@bench.command("derive")
def bench_derive(quick: Quick = False, as_json: AsJson = False) -> None:
    """Devices' sub-models (ECLM): the time it takes to derive one, and to answer from what is kept. No broker."""
    from benchmarks import derive

    _print(lambda report: derive.run(report, profiles=3 if quick else derive.PROFILES), as_json)


def _counts(text: str) -> tuple[int, ...]:
    from benchmarks.line import count

    try:
        return tuple(count(x.strip()) for x in text.split(",") if x.strip())
    except ValueError as e:
        raise Trouble(str(e), USAGE) from None


def _measure(work: Callable[[Report, str], None], bootstrap: str, as_json: bool) -> None:
    """Choose a broker, let the work report its lines, print them."""
    from benchmarks.plane import Failed

    with (
        tempfile.TemporaryDirectory(prefix="olearning-bench-", ignore_cleanup_errors=True) as folder,
        choose(Path(folder) / "broker", _say, bootstrap) as chosen,
    ):
        if not chosen.bootstrap:
            raise Trouble(
                "this measures a real broker, and there is none: name yours with --bootstrap, or install Java",
                NO_BROKER,
            )
        try:
            _print(lambda report: work(report, chosen.bootstrap), as_json)
        except Failed as e:
            raise Trouble(str(e)) from None


def _print(work: Callable[[Report], None], as_json: bool) -> None:
    """Let the work report its lines: each at once, or at the end a table."""
    from benchmarks.line import table

    lines: list[Line] = []

    def report(line: "Line") -> None:
        lines.append(line)
        if as_json:
            emit_or_end(json.dumps(line.as_json()))
        else:
            _say(f"measured: {line.bench} {line.case}")

    work(report)
    if not as_json:
        from rich.console import Console

        Console(soft_wrap=True).print(table(lines))


def _say(text: str) -> None:
    """Standard output is for figures."""
    print(text, file=sys.stderr, flush=True)
