"""`olearning run`: one role of the plane in this process."""

from typing import Annotated

import typer

from olearning.hosting import host
from olearning.loading import own
from olearning.options import (
    DEFAULT_NAMESPACE,
    Bootstrap,
    Load,
    MetricsPort,
    Name,
    Namespace,
    Partitions,
    Session,
    Zone,
)
from olearning.roles import SESSION_TIMEOUT, Role, Start, named
from processors import priorities
from processors.patience import COMMIT_INTERVAL
from schemas.topics import DEFAULT_PARTITIONS

run = typer.Typer(help="Run one role of the plane in this process.", no_args_is_help=True)


@run.command("global")
def run_global(
    zones: Annotated[str, typer.Option(help="All zones, with commas.")],
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """The global coordinator: admits tasks, opens and merges epochs."""
    options = {"zones": zones, "partitions": str(partitions)}
    role = Role("global", named(name, "global"), namespace, options=options, load=own(load))
    host(role, bootstrap, session_timeout, metrics_port)


@run.command("zone")
def run_zone(
    zone: Zone,
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """A zone's coordinator: admits devices, opens and finalises rounds."""
    role = Role("zone", named(name, f"zone-{zone}"), namespace, zone, {"partitions": str(partitions)}, own(load))
    host(role, bootstrap, session_timeout, metrics_port)


@run.command("aggregator")
def run_aggregator(
    zone: Zone,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    commit_interval: Annotated[int, typer.Option(help="A commit at least every so many ms.", min=10)] = COMMIT_INTERVAL,
    start: Annotated[
        Start, typer.Option(help="With a round: when its first block arrives, or when it is complete or closed.")
    ] = Start.ARRIVAL,
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """An aggregator: works for every task of the zone, on the shards it holds. Start as many as you like."""
    options = {"commit-interval": str(commit_interval), "start": start.value, "partitions": str(partitions)}
    role = Role("aggregator", named(name, f"aggregator-{zone}"), namespace, zone, options)
    host(role, bootstrap, session_timeout, metrics_port)


@run.command("scheduler")
def run_scheduler(
    patience: Annotated[
        int, typer.Option(help="ms that a block waits behind better tasks before its own comes first.", min=100)
    ] = priorities.PATIENCE,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """The scheduler: says which of a tenant's tasks come first and what tenants weigh, and how many aggregators a zone's load calls for."""
    options = {"patience": str(patience), "partitions": str(partitions)}
    host(
        Role("scheduler", named(name, "scheduler"), namespace, options=options),
        bootstrap,
        session_timeout,
        metrics_port,
    )


@run.command("evaluator")
def run_evaluator(
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "evaluator",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """The evaluator: scores every global model on held-out data."""
    role = Role("evaluator", name, namespace, options={"partitions": str(partitions)}, load=own(load))
    host(role, bootstrap, session_timeout, metrics_port)


@run.command("modules")
def run_modules(
    zone: Zone,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """Answers devices' profiles with sub-models of modular tasks (ECLM). Start as many as you like; needs olearning[modules]."""
    role = Role("modules", named(name, f"modules-{zone}"), namespace, zone, {"partitions": str(partitions)})
    host(role, bootstrap, session_timeout, metrics_port)
