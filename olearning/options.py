"""Options that several commands have, and what they all do with them."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from olearning.completing import namespaces, remember, seen
from olearning.connect import DEFAULT_NAMESPACE as DEFAULT_NAMESPACE
from olearning.hosting import emit, visit
from streams.processor import Effect, Input, Stop

if TYPE_CHECKING:
    from olearning.view import View

Namespace = Annotated[
    str,
    typer.Option(help="The first part of every topic's name.", envvar="OLEARNING_NAMESPACE", autocompletion=namespaces),
]
Bootstrap = Annotated[
    str, typer.Option(help="Kafka's bootstrap servers; else KAFKA_BOOTSTRAP_SERVERS, else what runs.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON.")]
TaskName = Annotated[str, typer.Argument(help="The task.", autocompletion=seen("tasks"))]
By = Annotated[str, typer.Option(help="Who says so; else this user.")]
Zone = Annotated[str, typer.Option(help="The zone, a-z, 0-9 and '-'.", autocompletion=seen("zones"))]
Name = Annotated[str, typer.Option(help="The role's name on ledgers and metrics; made up if not given.")]
Partitions = Annotated[int, typer.Option(help="Partitions of the zone's topics, fixed for its life.", min=1, max=1000)]
Session = Annotated[
    int, typer.Option(help="ms without a sign of life after which the group gives a role up.", min=1000)
]
MetricsPort = Annotated[
    int,
    typer.Option(
        help="Serve /metrics, /healthz and /readyz at this port; 0: nowhere.",
        envvar="OLEARNING_METRICS_PORT",
        min=0,
        max=65535,
    ),
]
Load = Annotated[
    list[str] | None,
    typer.Option(help="Your own code, a .py file or a module: models, data, clients, strategies. May be given again."),
]


def whoever(by: str) -> str:
    """Who says so."""
    from getpass import getuser

    return by or getuser()


def look(namespace: str, bootstrap: str) -> "View":
    """What the topics of a namespace say now."""
    from olearning.view import View

    class Glance(View):
        """Stops as soon as it has read what there is."""

        def handle(self, event: Input, now: int) -> Iterable[Effect]:
            yield from super().handle(event, now)
            if self.caught_up:
                yield Stop("that is all", ok=True)

    view = Glance(namespace)
    visit(namespace, bootstrap, view)
    remember(view)
    return view


def show(what: object) -> None:
    """On the terminal: maps and lists as JSON, the rest as rich draws it."""
    if isinstance(what, dict | list | tuple):
        emit(json.dumps(what, indent=2))
    else:
        from rich.console import Console

        console = Console()
        with console.capture() as text:
            console.print(what, crop=False)  # what is wider is wrapped by the terminal, or read by a program
        emit(text.get().rstrip("\n"))
