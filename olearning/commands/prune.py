"""`olearning prune`: versions of models that nobody needs any more, topics that outlived their task, and what other topics keep of it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from olearning.hosting import emit, on_kafka
from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, Namespace, look, show
from schemas.topics import DAY, GLOBAL, KEPT
from streams.kafka import Kafka

if TYPE_CHECKING:
    from olearning.forgetting import Forgotten
    from olearning.outlived import Outlived
    from olearning.prune import Pruned


def prune(
    days: Annotated[
        float, typer.Option(help="Younger versions stay, whether a ledger names them or not.", min=0.01)
    ] = KEPT / DAY,
    ended: Annotated[
        float | None,
        typer.Option(
            "--ended-models",
            help="Delete also what came of tasks that are over for so many days: `export` it before. Else it stays for good.",
            min=0.01,
        ),
    ] = None,
    topics: Annotated[
        bool,
        typer.Option(
            "--topics",
            help="Delete also the topics of tasks that are over for so long, and for no less than deltas are kept; write tombstones for what "
            "other topics keep of them.",
        ),
    ] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted or written, and do neither.")
    ] = False,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Delete versions of models that no ledger names any more. A plane may run meanwhile; its ledgers are read first."""
    from olearning.forgetting import forgotten
    from olearning.outlived import outlived
    from olearning.prune import prune as pruned

    view = look(namespace, bootstrap)

    age, old = round(days * DAY), None if ended is None else round(ended * DAY)
    found: list[Pruned] = []
    gone: list[Outlived] = []
    buried: list[Forgotten] = []

    async def work(kafka: Kafka) -> None:
        async for p in pruned(kafka, view, age, dry, old):
            found.append(p)
        if topics:
            async for t in outlived(kafka, view, age, dry):
                gone.append(t)
            buried.extend(await forgotten(kafka, view, age, dry))

    try:
        on_kafka(namespace, bootstrap, "prune", work, seconds=None)
    finally:  # what is done is done, whatever stopped the rest
        if as_json:
            show([asdict(p) for p in found] + [asdict(t) for t in gone] + [asdict(b) for b in buried])
        else:
            _say(found, gone, buried, dry)


def _say(found: "list[Pruned]", gone: "list[Outlived]", buried: "list[Forgotten]", dry: bool) -> None:
    for t in gone:
        emit(f"{t.topic}: {'would go' if dry else 'deleted'}; {t.task} is over in {t.zone}")
    for b in buried:
        many, where = "" if b.tombstones == 1 else "s", "" if b.zone == GLOBAL else f" in {b.zone}"
        emit(f"{b.topic}: {'would write' if dry else 'wrote'} {b.tombstones} tombstone{many}; {b.task} is over{where}")
    for p in found:
        if p.end > p.start:
            what = f"{p.cut - p.start:,} of {p.end - p.start:,} records {'would go' if dry else 'deleted'}"
            emit(f"{p.topic}-{p.partition}: {what}{f'; {p.held}' if p.held else ''}")
    emit(f"{sum(p.cut - p.start for p in found):,} records {'would go' if dry else 'deleted'}")
