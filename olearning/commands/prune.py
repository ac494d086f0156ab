"""`olearning prune`: versions of models that nobody needs any more, and topics that outlived their task."""

from dataclasses import asdict
from typing import Annotated

import typer

from olearning.hosting import emit, on_kafka
from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, Namespace, look, show
from schemas.topics import DAY, KEPT
from streams.kafka import Kafka


def prune(
    days: Annotated[
        float, typer.Option(help="Younger versions stay, whether a ledger names them or not.", min=0.01)
    ] = KEPT / DAY,
    topics: Annotated[
        bool,
        typer.Option(
            "--topics",
            help="Delete also the topics of tasks that are over for so long, and for no less than deltas are kept.",
        ),
    ] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Delete versions of models that no ledger names any more. A plane may run meanwhile; its ledgers are read first."""
    from olearning.outlived import Outlived, outlived
    from olearning.prune import Pruned
    from olearning.prune import prune as pruned

    view = look(namespace, bootstrap)

    async def work(kafka: Kafka) -> tuple[list[Pruned], list[Outlived]]:
        models = [p async for p in pruned(kafka, view, round(days * DAY), dry)]
        return models, [t async for t in outlived(kafka, view, round(days * DAY), dry)] if topics else []

    found, gone = on_kafka(namespace, bootstrap, "prune", work, seconds=None)
    if as_json:
        show([asdict(p) for p in found] + [asdict(t) for t in gone])
        return
    for t in gone:
        emit(f"{t.topic}: {'would go' if dry else 'deleted'}; {t.task} is over in {t.zone}")
    for p in found:
        if p.end > p.start:
            what = f"{p.cut - p.start:,} of {p.end - p.start:,} records {'would go' if dry else 'deleted'}"
            emit(f"{p.topic}-{p.partition}: {what}{f'; {p.held}' if p.held else ''}")
    emit(f"{sum(p.cut - p.start for p in found):,} records {'would go' if dry else 'deleted'}")
