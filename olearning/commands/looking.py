"""`olearning status`, `tasks`, `watch`, `monitor` and `tail`: how things stand, and what is on the topics."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from olearning.completing import topics
from olearning.connect import find
from olearning.errors import USAGE, Trouble
from olearning.hosting import PATIENCE, drive, emit_or_end, visit
from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, MetricsPort, Namespace, look, show
from schemas.topics import GLOBAL, topic
from streams.kafka import wall_clock


def tasks(namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "", as_json: AsJson = False) -> None:
    """The tasks, their state and their accuracy."""
    from olearning.status import tasks_table, to_json

    view = look(namespace, bootstrap)
    show(to_json(view, wall_clock())["tasks"] if as_json else tasks_table(view, wall_clock()))


def show_status(namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "", as_json: AsJson = False) -> None:
    """One screen: rounds, who holds what, what waits for what since when."""
    from olearning.status import status_screen, to_json

    view = look(namespace, bootstrap)
    show(to_json(view, wall_clock()) if as_json else status_screen(view, wall_clock()))


def monitor(
    host: Annotated[
        str,
        typer.Option(help="The address to listen at; 0.0.0.0: all, which needs a password or --open."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: a free one.", min=0, max=65535)] = 8090,
    password_file: Annotated[
        Path | None, typer.Option(help="A file of who may look: a line USER:PASSWORD for each. None: no password.")
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Without a password whoever reaches it may look, from other machines too.")
    ] = False,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    metrics_port: MetricsPort = 0,
) -> None:
    """The live page: zones, tasks, devices, deltas and who waits for what, from the topics alone. Start and stop it at will."""
    from olearning.monitor.serve import monitor as run_page

    run_page(host, port, namespace, bootstrap, metrics_port, password_file, open_)


def watch(namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """The same and more, live, until q: a screen of panels in the terminal."""
    topic(namespace, GLOBAL, "ledger")  # a bad name ends it before all else
    where = find(bootstrap, namespace)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Trouble("this draws on a terminal, and here is none: `olearning status` prints the same once, with --json for programs", USAGE)  # fmt: skip
    from olearning.terminal import watch as show_live

    if code := drive(lambda: show_live(namespace, where)):
        raise typer.Exit(code)


def tail(
    name: Annotated[str, typer.Argument(help="A topic, with or without its namespace.", autocompletion=topics)],
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as records come.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="The last so many of each partition; 0: all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Any topic, for a person or as JSON lines; shapes and norms instead of tensors."""
    from olearning.tail import Tail

    full = name if name.startswith(f"{namespace}.") else f"{namespace}.{name}"

    tail = Tail(full, emit_or_end, follow=follow, last=limit, as_json=as_json)
    visit(namespace, bootstrap, tail, full, None if follow else PATIENCE, None)
