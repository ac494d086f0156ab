"""What the shell completes. No broker is asked, which could take seconds: names are those that a command saw last, kept in this user's
state folder."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from olearning.connect import DEFAULT_NAMESPACE, planes, state_folder
from schemas.topics import GLOBAL, TABLE

if TYPE_CHECKING:
    from olearning.view import View

Names = dict[str, list[str]]
KINDS = ("zones", "tasks", "tenants")
MOST = 1_000
"""Names of a kind that are kept."""


def remember(view: "View") -> None:
    """Keep the names that a view knows, for the shell. Where that cannot be, nothing is completed, and no more is wrong."""
    globe = view.globe
    tenants = {g.spec.tenant for g in globe.tasks.values()} | {x.tenant for x in globe.over.values()}
    names = {
        "zones": sorted(globe.zones),
        "tasks": sorted(globe.over) + sorted(globe.tasks),
        "tenants": sorted(tenants),
    }
    with suppress(OSError):
        known = _read() | {view.namespace: {kind: some[-MOST:] for kind, some in names.items()}}
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(known))
        new.rename(path)


def _path() -> Path:
    return state_folder() / "names.json"


def _read() -> dict[str, Names]:
    """By namespace; nothing if it is not there, or not as it was written."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(_path().read_bytes(), type=dict[str, Names])
    return {}


def _seen(context: typer.Context, kind: str) -> list[str]:
    names = _read().get(context.params.get("namespace") or DEFAULT_NAMESPACE, {})
    return names.get(kind, [])


def _beginning(with_: str, names: Iterable[str]) -> list[str]:
    return [n for n in names if n.startswith(with_)]


def seen(kind: str) -> Callable[[typer.Context, str], list[str]]:
    """Completes names of that kind."""
    assert kind in KINDS

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return _beginning(incomplete, _seen(ctx, kind))

    return complete


def namespaces(incomplete: str) -> list[str]:
    """Of planes that run here, and those seen."""
    return _beginning(incomplete, sorted({n["namespace"] for n in planes()} | _read().keys()))


def policies(incomplete: str) -> list[str]:
    from learning.sharing.policy import known

    return _beginning(incomplete, known())


def experiments(incomplete: str) -> list[str]:
    from experiments import CATALOGUE

    return _beginning(incomplete, CATALOGUE)


def topics(ctx: typer.Context, incomplete: str) -> list[str]:
    """Topics without their namespace, of the zones and tasks seen."""
    zones, tasks = _seen(ctx, "zones"), _seen(ctx, "tasks")
    out = []
    for k in TABLE:
        scopes = [s for scope in k.scopes for s in ([GLOBAL] if scope == GLOBAL else zones)]
        out += [f"{s}.{k.what}{t}" for s in scopes for t in ([f".{t}" for t in tasks] if k.per_task else [""])]
    return _beginning(incomplete, sorted(out))
