"""`olearning modular`: modular models before they travel."""

from pathlib import Path
from typing import Annotated

import typer

from olearning.errors import USAGE, Trouble
from olearning.loading import load_code
from schemas.wire import MOST_SEED

modular = typer.Typer(help="Modular models (ECLM), before they travel.", no_args_is_help=True)


@modular.command("train")
def modular_train(
    file: Annotated[Path, typer.Argument(help="A task file with [modules] (TOML).")],
    out: Annotated[Path, typer.Option(help="The folder for checkpoints and the model; what it has is gone on with.")],
    passes: Annotated[int, typer.Option(help="Passes of end-to-end training.", min=0)] = 20,
    enhance: Annotated[int, typer.Option(help="Passes of fine-tuning that enhances modules' abilities.", min=0)] = 5,
    proxy: Annotated[
        float, typer.Option(help="The share of the task's samples that the cloud has.", min=0.0, max=1)
    ] = 0.3,
    together: Annotated[
        str, typer.Option(help="Classes that appear together, each set a sub-task: 0,1/2,3. Else each class is one.")
    ] = "",
    batch: Annotated[int, typer.Option(min=2)] = 64,
    lr: Annotated[float, typer.Option(help="Adam's.")] = 0.001,
    balance: Annotated[float, typer.Option(help="λ of the load-balancing loss.", min=0)] = 0.01,
    guide: Annotated[float, typer.Option(help="λ of the divergence.", min=0)] = 0.1,
    load: Annotated[float | None, typer.Option("--most-load", help="κ1 of a module; else 1.5 times the mean.")] = None,
    modules: Annotated[int, typer.Option("--most-modules", help="κ2 of a sub-task in a layer.", min=1)] = 4,
    code: Annotated[list[str] | None, typer.Option("--load", help="Your own code: models, data.")] = None,
    seed: Annotated[int, typer.Option(help="For all that is drawn.", min=0, max=MOST_SEED)] = 0,
) -> None:
    """The offline stage: end-to-end training with balanced load, then enhancing. `olearning submit --from` begins with what it writes."""
    from olearning.tasks import parse_task

    load_code(code)
    spec = parse_task(file)
    try:
        sets = tuple(tuple(int(c) for c in part.split(",")) for part in together.split("/")) if together else ()
    except ValueError:
        raise Trouble(
            f"--together {together!r}: write classes with commas and sets with /, as in 0,1/2,3", USAGE
        ) from None
    from learning.modular.training import Settings
    from olearning.offline import Stage, train

    settings = Settings(batch, lr, balance, guide)
    stage = Stage(passes, enhance, proxy, settings, sets, load, modules, seed)
    print(f"written: {train(spec, stage, out, lambda text: print(text, flush=True))}")
