"""The command: which commands there are, what holds for all of them, and how they end."""

try:
    import os
    import sys
    from importlib import metadata
    from pathlib import Path
    from typing import Annotated, Any

    import typer

    from olearning.commands.bench import bench
    from olearning.commands.broker import broker
    from olearning.commands.data import data
    from olearning.commands.devices import fleet, gateway, phone, token
    from olearning.commands.looking import monitor, show_status, tail, tasks, watch
    from olearning.commands.modular import modular
    from olearning.commands.prune import prune
    from olearning.commands.roles import run
    from olearning.commands.rounds import abandon, explain, verify
    from olearning.commands.tasks import export, pause, resume, stop, submit, update
    from olearning.commands.tenants import devices, queue, sharing, task_words, tenant, tenants
    from olearning.commands.whole import demo, experiment, simulate, up
    from olearning.errors import EXIT_CODES, FAILED, INTERRUPTED, NO_BROKER, OK, USAGE, Trouble
    from olearning.hosting import complain, nobody_reads, on_terminate
    from olearning.telemetry import logs
    from olearning.topics import list_topics
    from schemas.topics import BadName
    from streams import security
    from streams.jars import BrokerError
    from streams.kafka import BrokerGone
except KeyboardInterrupt:  # Ctrl-C in the half second that this takes
    raise SystemExit(130) from None

COMMANDS: dict[str, dict[str, tuple[Any, str]]] = {
    "To try it": {
        "demo": (demo, "Two zones train, an aggregator is killed, a report is written."),
        "up": (up, "A whole plane on this machine, until Ctrl-C."),
        "simulate": (simulate, "Zones, devices and tasks in virtual time, without a broker."),
        "experiment": (experiment, "A figure of the papers, made anew."),
    },
    "Tasks": {
        "submit": (submit, "Submit a task, and wait for the verdict."),
        "update": (update, "Change a task that runs."),
        "pause": (pause, "Open no round of a task until it goes on."),
        "resume": (resume, "Let a paused task go on."),
        "stop": (stop, "End a task for good, with what the zones have."),
        "export": (export, "Write a task's global model into a file."),
        "task": (task_words, "A word on a task that runs: keep, end-round."),
    },
    "To look": {
        "status": (show_status, "One screen: who does what, what waits for what."),
        "watch": (watch, "The same and more, live in the terminal."),
        "monitor": (monitor, "The live page in the browser."),
        "tasks": (tasks, "Tasks, their state and their accuracy."),
        "tenants": (tenants, "Tenants: weights, quotas, what of them is used."),
        "queue": (queue, "What waits for devices, and why."),
        "devices": (devices, "How many devices there are, and how many are able."),
        "tail": (tail, "What is on a topic."),
        "topics": (list_topics, "Every topic there is, who writes and who reads it."),
        "verify": (verify, "Recompute a finished round, and compare every byte."),
        "explain": (explain, "Who contributed what to a round."),
    },
    "To operate": {
        "run": (run, "One role of the plane in this process."),
        "fleet": (fleet, "Simulated devices of a zone."),
        "gateway": (gateway, "Lets devices elsewhere take part, over HTTP."),
        "token": (token, "Tokens that let devices in at gateways."),
        "phone": (phone, "One device behind a gateway, which trains."),
        "broker": (broker, "A local Apache Kafka that stays, for trying things."),
        "tenant": (tenant, "What a tenant may have."),
        "sharing": (sharing, "How devices are shared between tasks."),
        "abandon": (abandon, "Give up what a task has lost, so that it goes on."),
        "prune": (prune, "Delete versions of models that nobody needs."),
    },
    "More": {
        "bench": (bench, "How fast it is, beside its limits and its peers."),
        "data": (data, "Files of data for tasks."),
        "modular": (modular, "Modular models (ECLM), before they travel."),
    },
}
"""By heading, each command or group of commands with its line in `olearning --help`."""


class Headed(typer.core.TyperGroup):
    """Lists the commands under their headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, line) for name, (_, line) in commands.items()], col_max=10)


app = typer.Typer(
    cls=Headed,
    help="Devices train shared models over Apache Kafka; nothing is lost and nothing is counted twice.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for name, (command, line) in (x for commands in COMMANDS.values() for x in commands.items()):
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, short_help=line)
    else:
        app.command(name, short_help=line)(command)

EXTRAS = {
    **dict.fromkeys(("torch", "sklearn", "matplotlib", "ortools"), "train"),
    **dict.fromkeys(("nicegui", "fastapi", "uvicorn"), "monitor"),
    "aiohttp": "gateway",
}
"""What comes with which extra."""
NEEDS = {
    "train": "this trains, scores, plans or plots",
    "monitor": "the live page needs it",
    "gateway": "gateways and phones speak HTTP by it",
}


def _version(asked: bool) -> None:
    if asked:
        print(metadata.version("olearning"))
        raise typer.Exit(OK)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
    log_format: Annotated[
        logs.Format | None, typer.Option(help="How log lines are written.  [default: text]", envvar=logs.FORMAT_ENV)
    ] = None,
    log_level: Annotated[
        logs.Level | None,
        typer.Option(help="From which level on.  [default: info for a role, else warning]", envvar=logs.LEVEL_ENV),
    ] = None,
    client_config: Annotated[
        Path | None,
        typer.Option(
            help="A client properties file: TLS and login for your Kafka (docs/running.md).", envvar=security.ENV
        ),
    ] = None,
) -> None:
    """What holds for all commands."""
    if client_config:
        os.environ[security.ENV] = os.path.abspath(client_config)  # roles may run elsewhere
    for name, value in ((logs.FORMAT_ENV, log_format), (logs.LEVEL_ENV, log_level)):
        if value:
            os.environ[name] = value.value  # also for the roles that `up` and `demo` start
    logs.set_up()


def main() -> None:
    """The entry point: runs the command, and ends it in words when it ends badly."""
    logs.set_up()
    on_terminate()
    code = outcome(sys.argv[1:])
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        nobody_reads()
    sys.exit(code)


def outcome(words: list[str]) -> int:
    """Run a command line: its exit code. What went wrong is said on standard error."""
    code = _outcome(words)
    if code == INTERRUPTED:
        complain("interrupted")
    return code


def _outcome(words: list[str]) -> int:
    try:
        code = app(words, prog_name="olearning", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except (Trouble, BrokerError, BrokerGone, BadName, security.BadConfig) as e:
        complain(str(e))
        if isinstance(e, Trouble):
            return e.code
        return USAGE if isinstance(e, BadName | security.BadConfig) else NO_BROKER
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except OSError as e:
        if e.filename is None:
            raise
        complain(f"cannot use {e.filename}: {e.strerror}")
        return USAGE
    except ModuleNotFoundError as e:
        if (extra := EXTRAS.get(e.name or "")) is None:
            raise
        complain(f"{e.name} is not installed, and {NEEDS[extra]}: install olearning[{extra}]")
        return FAILED
    except Exception as e:
        if not hasattr(e, "show"):  # not a usage error of the command line
            raise
        e.show()
        return USAGE
