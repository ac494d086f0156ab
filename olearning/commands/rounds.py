"""`olearning verify`, `explain` and `abandon`: rounds that are over, and losses."""

import json
from typing import Annotated

import typer

from olearning.errors import FAILED, Trouble
from olearning.hosting import emit, visit
from olearning.loading import load_code
from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, By, Load, Namespace, TaskName, Zone, show, whoever
from schemas.topics import check_zone, topic

RoundNumber = Annotated[int, typer.Argument(metavar="ROUND", help="The round, counted in its zone from 1.", min=1)]


def verify(
    task: TaskName,
    number: RoundNumber,
    zone: Zone,
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Recompute a finished round from log and ledger, and compare every byte; 1 if anything differs or is gone."""
    from olearning import verify as words

    load_code(load)
    audit = _audit(namespace, bootstrap, zone, task, number, trace=False)
    emit(json.dumps(words.as_json(audit), indent=2) if as_json else "\n".join(words.lines(audit)))
    if not audit.ok:
        raise typer.Exit(FAILED)


def explain(
    task: TaskName,
    number: RoundNumber,
    zone: Zone,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """Who contributed what to a round, from which offsets, counted by which commit; and how the round went."""
    from olearning import explain as words

    audit = _audit(namespace, bootstrap, zone, task, number, trace=True)
    show(words.as_json(audit) if as_json else words.screen(audit))


def _audit(namespace: str, bootstrap: str, zone: str, task: str, number: int, trace: bool):  # type: ignore[no-untyped-def]
    """What an audit of a round finds. It reads as long as it has to: a segment may be large."""
    from processors.auditor import Auditor

    ledger = topic(namespace, check_zone(zone), "ledger").name
    auditor = Auditor(namespace, zone, task, number, trace)
    visit(namespace, bootstrap, auditor, ledger, seconds=None)
    return auditor.audit


def abandon(
    task: TaskName,
    zone: Zone,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger later.")],
    by: By = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
) -> None:
    """Give up what a task has lost, so that it goes on without it."""
    from olearning.abandon import Abandoner, lines

    ledger = topic(namespace, check_zone(zone), "ledger").name
    look = Abandoner(namespace, zone, task)
    visit(namespace, bootstrap, look, ledger)
    assert look.known
    assert look.loss
    emit("\n".join(lines(task, look.known, look.loss)))
    if not yes and not typer.confirm("Give it up?"):
        raise Trouble("nothing was given up")
    give_up = Abandoner(namespace, zone, task, look.loss.at, whoever(by), reason)
    emit(visit(namespace, bootstrap, give_up, ledger).reason)
