"""`olearning data`: files of data for tasks."""

from typing import Annotated

import typer

from olearning.errors import USAGE, Trouble

data = typer.Typer(help="Files of data for tasks.", no_args_is_help=True)


@data.command("convert")
def data_convert(
    kind: Annotated[str, typer.Argument(help="hapt-features, hapt-raw, speech, mnist or cifar10.")],
    source: Annotated[str, typer.Argument(help="The archive, an .npz.")],
    target: Annotated[str, typer.Argument(help="The file to write, .npz; it must not be there yet.")],
) -> None:
    """Write a well-known archive as data "npz" reads it: docs/data-and-models.md."""
    from device_sim.convert import convert, described

    try:
        print(described(convert(kind, source, target)))
    except ValueError as e:
        raise Trouble(str(e), USAGE) from None
