"""`olearning tenant`, `sharing` and `task`: what tenants may have, by what policy devices are shared, a word on a task. And the
operators' view: `tenants`, `queue`, `devices`."""

import re
from typing import Annotated, Any

import msgspec
import typer

from olearning.completing import policies, seen
from olearning.errors import FAILED, USAGE, Trouble
from olearning.hosting import emit, visit
from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, By, Namespace, TaskName, look, show, whoever
from olearning.snapshot import Snapshot
from processors.steerer import Change, Steerer
from processors.wisher import Wisher, said
from schemas.misfit import misfit
from schemas.sharing import SHARING, Sharing, Tenant
from schemas.topics import check_zone
from schemas.wire import SLUG, Message, Scalar

tenant = typer.Typer(help="What a tenant may have.", no_args_is_help=True)
sharing = typer.Typer(help="By which policy devices are shared between tasks; without a word more: what holds.")
task_words = typer.Typer(help="A word on a task that runs.", no_args_is_help=True)


@tenant.command("set")
def tenant_set(
    name: Annotated[str, typer.Argument(help="The tenant, as tasks name it.", autocompletion=seen("tenants"))],
    weight: Annotated[float | None, typer.Option(help="What it weighs where tenants share by weight.")] = None,
    tasks: Annotated[int | None, typer.Option(help="Tasks that have not ended, at most; 0: no limit.", min=0)] = None,
    devices: Annotated[int | None, typer.Option(help="Devices at work at once, at most; 0: no limit.", min=0)] = None,
    bytes_: Annotated[
        int | None, typer.Option("--bytes", help="Bytes a day (UTC), models and deltas, at most; 0: no limit.", min=0)
    ] = None,
    by: By = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
) -> None:
    """Set what a tenant weighs and may have; what is not given stays. Waits for the verdict, and says what holds then."""
    quota = {k: n for k, n in {"tasks": tasks, "devices": devices, "bytes": bytes_}.items() if n is not None}
    if weight is None and not quota:
        raise Trouble("say what to set: --weight, --tasks, --devices or --bytes", USAGE)
    if weight is not None and not weight > 0:
        raise Trouble(f"--weight {weight:g}: above 0; one of weight 2 has twice the share of one of weight 1", USAGE)
    if not re.search(SLUG, name):
        raise Trouble(f"tenant {name!r}: use 1 to 63 of a-z, 0-9 and '-', no '-' at either end", USAGE)
    who = whoever(by)

    def change(old: Tenant) -> Tenant:
        new = msgspec.structs.replace(old, quota=msgspec.structs.replace(old.quota, **quota), by=who)
        return new if weight is None else msgspec.structs.replace(new, weight=weight)

    _checked(change(Tenant(tenant=name)), Tenant)
    emit(visit(namespace, bootstrap, Wisher(namespace, name, change)).reason)


@sharing.callback(invoke_without_command=True)
def sharing_now(
    context: typer.Context,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """By which policy devices are shared between tasks; without a word more: what holds."""
    if context.invoked_subcommand is None:
        s = _now(namespace, bootstrap)
        if as_json:
            show({"policy": s.policy, "args": s.policy_args, "by": s.policy_by})
        else:
            who = f", as {s.policy_by} said" if s.policy_by else ""
            emit(f"{said(Sharing(policy=s.policy, args=s.policy_args))}{who}")


@sharing.command("set")
def sharing_set(
    policy: Annotated[
        str,
        typer.Argument(
            help="Its name; an unknown one is refused, and the refusal says which are known.", autocompletion=policies
        ),
    ],
    arg: Annotated[list[str] | None, typer.Option(help="A setting of it, as in tiers=4; may be given again.")] = None,
    by: By = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
) -> None:
    """Share devices by another policy from now on. Waits for the verdict, and says what holds then."""
    wish = Sharing(policy=policy, args=dict(map(setting, arg or ())), by=whoever(by))
    _checked(wish, Sharing)
    emit(visit(namespace, bootstrap, Wisher(namespace, SHARING, wish)).reason)


def setting(text: str) -> tuple[str, Scalar]:
    """`tiers=4` -> ("tiers", 4): a whole number, a number, true or false, else text. Raises `Trouble`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Trouble(f"--arg {text}: write NAME=VALUE, as in tiers=4", USAGE)
    if value in ("true", "false"):
        return key, value == "true"
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            pass
    return key, value


def _checked(wish: Message, kind: type[Message]) -> None:
    """Raises `Trouble` for what no record can say."""
    try:
        msgspec.convert(msgspec.to_builtins(wish), kind)
    except msgspec.ValidationError as e:
        raise Trouble(misfit(e), USAGE) from None


# ------------------------------------------------------------------ a word on a task


@task_words.command("keep")
def task_keep(task: TaskName, by: By = "", namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """A sign of life: a task with `silent_s` is stopped if nothing is said of it for so long. Changes nothing else."""
    emit(visit(namespace, bootstrap, Steerer(namespace, task, Change(), whoever(by))).reason)


@task_words.command("end-round")
def task_end_round(
    task: TaskName,
    zone: Annotated[
        list[str] | None, typer.Option(help="In this zone alone; may be given again.", autocompletion=seen("zones"))
    ] = None,
    by: By = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
) -> None:
    """End the rounds that a task has open now, with the deltas that came; the next ones follow."""
    zones = tuple(map(check_zone, zone or ()))
    emit(visit(namespace, bootstrap, Steerer(namespace, task, Change(ends=zones), whoever(by))).reason)


# ------------------------------------------------------------------ the operators' view


def _now(namespace: str, bootstrap: str) -> Snapshot:
    view = look(namespace, bootstrap)
    return view.snapshot(view.now)


def tenants(namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "", as_json: AsJson = False) -> None:
    """The tenants: what they weigh, what they may have, and what of it they have now."""
    from olearning.tables import tenants_table

    s = _now(namespace, bootstrap)
    show(msgspec.to_builtins(s.tenants) if as_json else tenants_table(s))


def queue(namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "", as_json: AsJson = False) -> None:
    """What waits for devices: every task with a round open or to come, how many it has of how many, why, and since when."""
    from olearning.tables import queue_rows, queue_table

    s = _now(namespace, bootstrap)
    show(msgspec.to_builtins(queue_rows(s)) if as_json else queue_table(s))


def devices(
    eligible_for: Annotated[
        str,
        typer.Option(
            help="A task: how many can do it, and which bound leaves out how many.", autocompletion=seen("tasks")
        ),
    ] = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    as_json: AsJson = False,
) -> None:
    """How many devices each zone has seen within a day, and how many of them can do a task."""
    from olearning.tables import devices_table, eligible_rows, eligible_table

    view = look(namespace, bootstrap)
    s = view.snapshot(view.now)
    if not eligible_for:
        out: Any = {z.zone: {"seen": z.seen, "states": z.devices, "busy": z.busy} for z in s.zones}
        show(out if as_json else devices_table(s))
        return
    known = view.globe.tasks.get(eligible_for)
    if eligible_for in view.globe.over:
        raise Trouble(f"{eligible_for} has ended: no device is asked for it any more", FAILED)
    if known is None:
        there = ", ".join(sorted(view.globe.tasks)) or "none"
        raise Trouble(f"there is no task {eligible_for}; there: {there}", FAILED)
    rows = eligible_rows(s, eligible_for)
    needs = known.spec.needs.public
    show(
        {"task": eligible_for, "needs": needs, "zones": rows} if as_json else eligible_table(rows, eligible_for, needs)
    )
