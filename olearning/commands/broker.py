"""`olearning broker`: a local Apache Kafka that stays."""

import json
from pathlib import Path
from typing import Annotated

import typer

from olearning.connect import broker_folder
from olearning.errors import NO_BROKER
from olearning.options import AsJson
from streams.broker import start_detached, status, stop_detached

broker = typer.Typer(help="A local Apache Kafka that stays, for trying things.", no_args_is_help=True)


@broker.command("start")
def broker_start(
    folder: Annotated[Path | None, typer.Option(help="Where its data lies.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; a free one if not given.", min=1, max=65535)] = None,
) -> None:
    """Start it, or find the one that runs; prints its bootstrap servers."""
    print(start_detached(folder or broker_folder(), port))


@broker.command("stop")
def broker_stop(folder: Annotated[Path | None, typer.Option(help="Where its data lies.")] = None) -> None:
    """Stop it; its data stays."""
    print("stopped" if stop_detached(folder or broker_folder()) else "none was running")


@broker.command("status")
def broker_status(
    folder: Annotated[Path | None, typer.Option(help="Where its data lies.")] = None, as_json: AsJson = False
) -> None:
    """Whether it runs, and where."""
    running = status(folder or broker_folder())
    if as_json:
        print(json.dumps(running))
    else:
        print(
            f"runs at {running['bootstrap']}, process {running['pid']}"
            if running
            else "none is running: olearning broker start"
        )
    if not running:
        raise typer.Exit(NO_BROKER)
