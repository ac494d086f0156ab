"""`olearning prune`: versions of models that nobody needs any more."""

from dataclasses import asdict
from typing import Annotated

import typer

from olearning.connect import find
from olearning.hosting import drive, emit
from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, Namespace, look, show
from schemas.topics import DAY
from streams.kafka import Kafka

DAYS = 7.0
"""As long as deltas and partial sums are kept."""


def prune(
    days: Annotated[
        float, typer.Option(help="Younger versions stay, whether a ledger names them or not.", min=0.01)
    ] = DAYS,
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Delete versions of models that no ledger names any more. A plane may run meanwhile; its ledgers are read first."""
    from olearning.prune import Pruned
    from olearning.prune import prune as pruned

    view = look(namespace, bootstrap)
    where = find(bootstrap, namespace)

    async def work() -> list[Pruned]:
        async with Kafka(where, "prune") as kafka:
            return [p async for p in pruned(kafka, view, round(days * DAY), dry)]

    found = drive(work)
    if as_json:
        show([asdict(p) for p in found])
        return
    for p in found:
        if p.end > p.start:
            what = f"{p.cut - p.start:,} of {p.end - p.start:,} records {'would go' if dry else 'deleted'}"
            emit(f"{p.topic}-{p.partition}: {what}{f'; {p.held}' if p.held else ''}")
    emit(f"{sum(p.cut - p.start for p in found):,} records {'would go' if dry else 'deleted'}")
