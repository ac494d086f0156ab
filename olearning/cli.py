"""The command. What trains or scores is imported only where it is needed, so that a role of the plane stays small."""

try:
    import json
    import os
    import sys
    from contextlib import AbstractAsyncContextManager, suppress
    from importlib import metadata
    from pathlib import Path
    from typing import Annotated

    import typer

    from olearning.bench import bench
    from olearning.completing import experiments, seen, topics
    from olearning.connect import Broker, address, broker_folder, choose, find
    from olearning.errors import EXIT_CODES, FAILED, INTERRUPTED, NO_BROKER, OK, USAGE, Trouble
    from olearning.files import data
    from olearning.hosting import PATIENCE, complain, drive, emit, emit_or_end, host, nobody_reads, on_terminate, visit
    from olearning.loading import load_code
    from olearning.modular import modular
    from olearning.options import DEFAULT_NAMESPACE, AsJson, Bootstrap, By, Namespace, TaskName, look, show, whoever
    from olearning.roles import DAY_SECONDS, SESSION_TIMEOUT, Role, Start, new_life, population
    from olearning.telemetry import logs
    from olearning.tenants import operators, sharing, task_words, tenant
    from olearning.topics import list_topics
    from processors import priorities
    from processors.aggregator import COMMIT_INTERVAL
    from processors.steerer import Change, Steerer
    from schemas.sharing import ABILITIES
    from schemas.topics import DEFAULT_PARTITIONS, GLOBAL, BadName, check_zone, topic
    from schemas.wire import MOST_SEED
    from streams import security
    from streams.broker import BrokerError, start_detached, status, stop_detached
    from streams.kafka import BrokerGone, Kafka, wall_clock
    from streams.processor import Processor
except KeyboardInterrupt:  # Ctrl-C in the half second that this takes
    raise SystemExit(130) from None

app = typer.Typer(
    help="Devices train shared models over Apache Kafka; nothing is lost and nothing is counted twice.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
run = typer.Typer(help="Run one role of the plane in this process.", no_args_is_help=True)
broker = typer.Typer(help="A local Apache Kafka that stays, for trying things.", no_args_is_help=True)
app.add_typer(run, name="run")
app.add_typer(broker, name="broker")
app.add_typer(bench, name="bench")
app.add_typer(data, name="data")
app.add_typer(modular, name="modular")
app.add_typer(tenant, name="tenant")
app.add_typer(sharing, name="sharing")
app.add_typer(task_words, name="task")

Zone = Annotated[str, typer.Option(help="The zone, a-z, 0-9 and '-'.", autocompletion=seen("zones"))]
Name = Annotated[str, typer.Option(help="The role's name on ledgers and metrics; made up if not given.")]
Partitions = Annotated[int, typer.Option(help="Partitions of the zone's topics, fixed for its life.", min=1, max=1000)]
Session = Annotated[
    int, typer.Option(help="ms without a sign of life after which the group gives a role up.", min=1000)
]
MetricsPort = Annotated[
    int,
    typer.Option(
        help="Serve /metrics, /healthz and /readyz at this port; 0: nowhere.",
        envvar="OLEARNING_METRICS_PORT",
        min=0,
        max=65535,
    ),
]
Load = Annotated[
    list[str] | None,
    typer.Option(help="Your own code, a .py file or a module: models, data, clients, strategies. May be given again."),
]
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


# ------------------------------------------------------------------ roles


def _named(name: str, kind: str) -> str:
    return name or f"{kind}-{new_life()}"


def _own(load: list[str] | None) -> tuple[str, ...]:
    """People's own code, loaded: what is wrong with it ends the command before anything else is done."""
    load_code(load)
    return tuple(load or ())


@run.command("global")
def run_global(
    zones: Annotated[str, typer.Option(help="All zones, with commas.")],
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """The global coordinator: admits tasks, opens and merges epochs."""
    options = {"zones": zones, "partitions": str(partitions)}
    role = Role("global", _named(name, "global"), namespace, options=options, load=_own(load))
    host(role, bootstrap, session_timeout, metrics_port)


@run.command("zone")
def run_zone(
    zone: Zone,
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """A zone's coordinator: admits devices, opens and finalises rounds."""
    role = Role("zone", _named(name, f"zone-{zone}"), namespace, zone, {"partitions": str(partitions)}, _own(load))
    host(role, bootstrap, session_timeout, metrics_port)


@run.command("aggregator")
def run_aggregator(
    zone: Zone,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    commit_interval: Annotated[int, typer.Option(help="A commit at least every so many ms.", min=10)] = COMMIT_INTERVAL,
    start: Annotated[
        Start, typer.Option(help="With a round: when its first block arrives, or when it is complete or closed.")
    ] = Start.ARRIVAL,
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """An aggregator: works for every task of the zone, on the shards it holds. Start as many as you like."""
    options = {"commit-interval": str(commit_interval), "start": start.value, "partitions": str(partitions)}
    role = Role("aggregator", _named(name, f"aggregator-{zone}"), namespace, zone, options)
    host(role, bootstrap, session_timeout, metrics_port)


@run.command("scheduler")
def run_scheduler(
    patience: Annotated[
        int, typer.Option(help="ms that a block waits behind better tasks before its own comes first.", min=100)
    ] = priorities.PATIENCE,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """The scheduler: says which of a tenant's tasks come first and what tenants weigh, and how many aggregators a zone's load calls for."""
    options = {"patience": str(patience), "partitions": str(partitions)}
    host(
        Role("scheduler", _named(name, "scheduler"), namespace, options=options),
        bootstrap,
        session_timeout,
        metrics_port,
    )


@run.command("evaluator")
def run_evaluator(
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "evaluator",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """The evaluator: scores every global model on held-out data."""
    role = Role("evaluator", name, namespace, options={"partitions": str(partitions)}, load=_own(load))
    host(role, bootstrap, session_timeout, metrics_port)


@run.command("modules")
def run_modules(
    zone: Zone,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """Answers devices' profiles with sub-models of modular tasks (ECLM). Start as many as you like; needs olearning[modules]."""
    role = Role("modules", _named(name, f"modules-{zone}"), namespace, zone, {"partitions": str(partitions)})
    host(role, bootstrap, session_timeout, metrics_port)


@app.command()
def fleet(
    zone: Zone,
    count: Annotated[int, typer.Option(help="How many devices.", min=1)],
    first: Annotated[int, typer.Option(help="The number of the first device: its share of the data.", min=0)] = 0,
    day_seconds: Annotated[float, typer.Option(help="A simulated day; 0: always free.", min=0)] = DAY_SECONDS,
    utc_offset: Annotated[float, typer.Option(help="The zone's hours from UTC.", min=-12, max=14)] = 0.0,
    origin_ms: Annotated[int, typer.Option(help="When midnight UTC of the first simulated day is, epoch ms.")] = 0,
    offsets: Annotated[
        str, typer.Option(help="All zones with their hours from UTC, as in asia=8,europe=1: devices may travel there.")
    ] = "",
    travel: Annotated[float, typer.Option(help="The chance that a device begins a trip on a day.", min=0, max=1)] = 0.0,
    day: Annotated[
        str, typer.Option(help="When devices are free: nights, or habits (charging, Wi-Fi, screen).")
    ] = "nights",
    capacity: Annotated[
        str, typer.Option(help="Speeds: steady, usual (log-normal), or a capacity file (.npz).")
    ] = "steady",
    bandwidth: Annotated[str, typer.Option(help="A file with bandwidth series (.npz).")] = "",
    phones: Annotated[
        str, typer.Option(help="What devices report of themselves: usual, or a phones file (.npz).")
    ] = "",
    drop: Annotated[float, typer.Option(help="The share of runs that a device leaves.", min=0, max=1)] = 0.0,
    slow: Annotated[float, typer.Option(help="The share of runs that take three times as long.", min=0, max=1)] = 0.0,
    late: Annotated[float, typer.Option(help="The share of runs that begin late.", min=0, max=1)] = 0.0,
    interrupted: Annotated[float, typer.Option(help="The share of uploads that break off.", min=0, max=1)] = 0.0,
    resend: Annotated[float, typer.Option(help="The share of deltas that are sent twice.", min=0, max=1)] = 0.0,
    room_mb: Annotated[
        float | None, typer.Option(help="MB of models that the edge keeps.  [default: 268]", min=0)
    ] = None,
    seed: Annotated[int, typer.Option(help="For nights, speeds and habits.", min=0, max=MOST_SEED)] = 0,
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """Simulated devices of a zone, behind one edge."""
    given = {"count": count, "first": first, "day-seconds": day_seconds, "utc-offset": utc_offset}
    more = {"origin-ms": origin_ms, "resend": resend, "seed": seed, "partitions": partitions, "offsets": offsets}
    habits = {"travel": travel, "day": day, "capacity": capacity, "bandwidth": bandwidth, "phones": phones}
    fails = {"drop": drop, "slow": slow, "late": late, "interrupted": interrupted}
    options = {k: str(v) for k, v in (given | more | habits | fails).items() if v != ""}
    if room_mb is not None:
        options["room-mb"] = str(room_mb)
    own = _own(load)
    try:
        population(zone, options | {"count": "1"}).devices()  # reads the files
    except ValueError as e:
        raise Trouble(str(e), USAGE) from None
    host(
        Role("fleet", _named(name, f"fleet-{zone}"), namespace, zone, options, own),
        bootstrap,
        session_timeout,
        metrics_port,
    )


Secret = Annotated[
    Path, typer.Option(help="The file with the secret of the zone's gateways: of it tokens and pseudonyms are made.")
]


@app.command()
def gateway(
    zone: Zone,
    secret: Secret,
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen at.")] = "127.0.0.1:8080",
    check: Annotated[
        str, typer.Option(help="A check of tokens that --load registers; else tokens are those of `olearning token`.")
    ] = "",
    certificate: Annotated[str, typer.Option(help="A certificate chain (PEM), for HTTPS.")] = "",
    key: Annotated[str, typer.Option(help="Its private key (PEM).")] = "",
    room_mb: Annotated[float, typer.Option(help="MB of models that it keeps.", min=0)] = 268,
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    name: Name = "",
    partitions: Partitions = DEFAULT_PARTITIONS,
    bootstrap: Bootstrap = "",
    session_timeout: Session = SESSION_TIMEOUT,
    metrics_port: MetricsPort = 0,
) -> None:
    """A gateway of a zone: devices, phones or any program, take part through it over HTTP."""
    from olearning.tokens import Signed, find_check, read_secret

    own = _own(load)
    signed = Signed(read_secret(secret))
    checked = find_check(check) if check else signed
    if bool(certificate) != bool(key):
        raise Trouble("--certificate and --key go together", USAGE)
    if (place := address(listen)) is None:
        raise Trouble(f"--listen {listen}: write HOST:PORT, as in 0.0.0.0:8080", USAGE)
    find(bootstrap, namespace)  # before HTTP is loaded
    from olearning.gateway import Hosted, front

    options = {"secret": str(secret), "room-mb": str(room_mb), "partitions": str(partitions)}
    role = Role("gateway", _named(name, f"gateway-{zone}"), namespace, zone, options, own)
    tls = (certificate, key) if certificate else None

    def face(processor: Processor, kafka: Kafka) -> AbstractAsyncContextManager[None]:
        assert isinstance(processor, Hosted)
        processor.wake = kafka.nudge
        return front(processor, checked, *place, tls)

    host(role, bootstrap, session_timeout, metrics_port, face)


@app.command()
def token(
    device: Annotated[list[str], typer.Argument(help="The devices' IDs.")],
    secret: Secret,
) -> None:
    """Tokens for devices, a line each: with one a device is let in by every gateway of that secret."""
    from olearning.tokens import Signed, read_secret

    signed = Signed(read_secret(secret))
    try:
        tokens = [signed.token(d) for d in device]
    except ValueError as e:
        raise Trouble(str(e), USAGE) from None
    for text in tokens:
        emit(text)


def _ability(text: str) -> tuple[str, float]:
    """An ability of a device. Raises `Trouble` for what is none."""
    name, _, amount = text.partition("=")
    with suppress(ValueError):
        if name in ABILITIES and 0 <= float(amount) <= 1e12:
            return name, float(amount)
    known = ", ".join(ABILITIES)
    raise Trouble(f"--ability {text}: write NAME=AMOUNT, as in memory=800; names: {known}", USAGE)


@app.command()
def phone(
    url: Annotated[str, typer.Argument(help="A gateway, as in http://127.0.0.1:8080.")],
    zone: Zone,
    token: Annotated[str, typer.Option(help="This device's token.", envvar="OLEARNING_TOKEN")],
    number: Annotated[int, typer.Option(help="Its share of the data.", min=0)] = 0,
    ability: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What it says it has, as in bandwidth=4: one of {', '.join(ABILITIES)}.", metavar="NAME=AMOUNT"
        ),
    ] = None,
    load: Load = None,
) -> None:
    """One device behind a gateway, which trains for real: the reference client."""
    from device_sim.device import Device
    from device_sim.installed import learners

    check_zone(zone)
    _own(load)
    if not url.startswith(("http://", "https://")):
        raise Trouble(f"{url}: a gateway's address begins with http:// or https://", USAGE)
    from olearning.phone import Phone

    device = Device(f"phone-{number}", number, abilities=dict(map(_ability, ability or ())))
    learner = learners()
    drive(lambda: Phone(url, token, zone, device, learner, complain).run())


# ------------------------------------------------------------------ tasks and looking


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="A task file (TOML).")],
    load: Load = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    seed: Annotated[int, typer.Option(help="For the first weights and the training.", min=0, max=MOST_SEED)] = 0,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the verdict.", min=1)] = 30.0,
    start: Annotated[
        Path | None, typer.Option("--from", help="A file with version 0 (.npz), as `olearning modular train` writes.")
    ] = None,
) -> None:
    """Submit a task: builds version 0 of its model, and waits for the verdict."""
    from olearning.submitting import submitter

    find(bootstrap, namespace)  # before torch is loaded
    load_code(load)
    made = submitter(file, namespace, seed, wait, start)(new_life())
    client = f"tenant-{made.spec.tenant}"
    print(visit(namespace, bootstrap, made, patience=None, seconds=None, client=client).reason)


@app.command()
def update(
    file: Annotated[Path, typer.Argument(help="The task's file, with other settings.")],
    load: Load = None,
    by: By = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
) -> None:
    """Change a task that runs: training, rounds, epochs, stop. It holds from its next round and epoch on."""
    from olearning.tasks import parse_task

    load_code(load)
    spec = parse_task(file)
    _steer(spec.task, Change(spec=spec), by, namespace, bootstrap)


@app.command()
def pause(task: TaskName, by: By = "", namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """Open no round and no epoch of a task any more, until it goes on. What is open is finished."""
    _steer(task, Change("pause"), by, namespace, bootstrap)


@app.command()
def resume(task: TaskName, by: By = "", namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """Let a paused task go on."""
    _steer(task, Change("run"), by, namespace, bootstrap)


@app.command()
def stop(task: TaskName, by: By = "", namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """End a task for good: its epoch ends now, with what the zones have."""
    _steer(task, Change("stop"), by, namespace, bootstrap)


def _steer(task: str, change: Change, by: str, namespace: str, bootstrap: str) -> None:
    emit(visit(namespace, bootstrap, Steerer(namespace, task, change, whoever(by))).reason)


@app.command()
def tasks(namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "", as_json: AsJson = False) -> None:
    """The tasks, their state and their accuracy."""
    from olearning.screen import tasks_table, to_json

    view = look(namespace, bootstrap)
    show(to_json(view, wall_clock())["tasks"] if as_json else tasks_table(view, wall_clock()))


@app.command("status")
def show_status(namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "", as_json: AsJson = False) -> None:
    """One screen: rounds, who holds what, what waits for what since when."""
    from olearning.screen import status_screen, to_json

    view = look(namespace, bootstrap)
    show(to_json(view, wall_clock()) if as_json else status_screen(view, wall_clock()))


@app.command()
def monitor(
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0: all. Whoever reaches it can look.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: a free one.", min=0, max=65535)] = 8090,
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    metrics_port: MetricsPort = 0,
) -> None:
    """The live page: zones, tasks, devices, deltas and who waits for what, from the topics alone. Start and stop it at will."""
    from olearning.monitor.serve import monitor as run_page

    run_page(host, port, namespace, bootstrap, metrics_port)


@app.command()
def watch(namespace: Namespace = DEFAULT_NAMESPACE, bootstrap: Bootstrap = "") -> None:
    """The same and more, live, until q: a screen of panels in the terminal."""
    topic(namespace, GLOBAL, "ledger")  # a bad name ends it before all else
    where = find(bootstrap, namespace)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Trouble("this draws on a terminal, and here is none: `olearning status` prints the same once, with --json for programs", USAGE)  # fmt: skip
    from olearning.terminal import watch as show_live

    if code := drive(lambda: show_live(namespace, where)):
        raise typer.Exit(code)


for command in operators:
    app.command()(command)
app.command("topics")(list_topics)


@app.command()
def tail(
    name: Annotated[str, typer.Argument(help="A topic, with or without its namespace.", autocompletion=topics)],
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as records come.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="The last so many of each partition; 0: all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Any topic, for a person or as JSON lines; shapes and norms instead of tensors."""
    from olearning.tail import Tail

    full = name if name.startswith(f"{namespace}.") else f"{namespace}.{name}"

    tail = Tail(full, emit_or_end, follow=follow, last=limit, as_json=as_json)
    visit(namespace, bootstrap, tail, full, None if follow else PATIENCE, None)


# ------------------------------------------------------------------ rounds that are over, and losses

RoundNumber = Annotated[int, typer.Argument(metavar="ROUND", help="The round, counted in its zone from 1.", min=1)]


@app.command()
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


@app.command()
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


@app.command()
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


# ------------------------------------------------------------------ everything at once


@app.command()
def up(
    zones: Annotated[str, typer.Option(help="The zones, with commas.")] = "east,west",
    aggregators: Annotated[int, typer.Option(help="In each zone.", min=1)] = 2,
    devices: Annotated[int, typer.Option(help="Simulated devices in each zone; 0: start fleets yourself.", min=0)] = 0,
    task: Annotated[list[Path] | None, typer.Option(help="A task file to submit; may be given again.")] = None,
    load: Load = None,
    evaluator: Annotated[bool, typer.Option(help="Score the global models.")] = True,
    modules: Annotated[
        bool | None, typer.Option(help="Answer devices of modular tasks. By itself: if one of the tasks is modular.")
    ] = None,
    partitions: Partitions = DEFAULT_PARTITIONS,
    day_seconds: Annotated[float, typer.Option(help="A simulated day; 0: devices are always free.", min=0)] = 0.0,
    memory: Annotated[bool, typer.Option("--memory", help="No broker: the log in memory, one process.")] = False,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    namespace: Namespace = DEFAULT_NAMESPACE,
    bootstrap: Bootstrap = "",
    seed: Annotated[int, typer.Option(help="For all that is drawn.", min=0, max=MOST_SEED)] = 0,
    metrics_port: MetricsPort = 0,
) -> None:
    """A whole plane on this machine, until Ctrl-C."""
    from olearning.submitting import submitter
    from olearning.tasks import parse_task
    from olearning.up import Shape, run_folder
    from olearning.up import up as run_plane

    own, files = _own(load), task or []
    specs = [parse_task(file) for file in files]  # a bad file ends it before anything is started, and before torch
    shape = Shape(
        namespace, tuple(zones.split(",")), aggregators, devices, evaluator, partitions, day_seconds, seed=seed, load=own,
        modules=any(s.modules for s in specs) if modules is None else modules,
    )  # fmt: skip
    tasks = [submitter(file, namespace, seed, wait_s=120) for file in files]  # the plane starts just now
    folder = run_folder(runs)
    if memory:
        emit_or_end("log: in memory, as asked; all roles in this one process, nothing survives it")
    with Broker("") if memory else choose(folder / "broker", emit_or_end, bootstrap) as chosen:
        drive(lambda: run_plane(shape, folder, chosen, tasks, emit_or_end, metrics_port))


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(help="A scenario (TOML): zones, devices, tasks.")],
    seed: Annotated[int | None, typer.Option(help="Another seed than the scenario's.", min=0, max=MOST_SEED)] = None,
    out: Annotated[Path | None, typer.Option(help="A file for the result, as JSON.")] = None,
    load: Load = None,
    as_json: AsJson = False,
) -> None:
    """Simulate zones, devices and tasks in virtual time: the same processors and devices, as fast as the machine goes."""
    from msgspec.structs import replace

    from olearning import scenario
    from olearning.outcome import lines
    from olearning.watching import follow

    load_code(load)
    loaded = scenario.load(file)
    if seed is not None:
        loaded = scenario.Loaded(replace(loaded.scenario, seed=seed), loaded.specs, loaded.offsets)
    try:
        result = follow(loaded, quiet=as_json)
    except ValueError as e:
        raise Trouble(f"{file}: {e}", USAGE) from None
    text = json.dumps(result.as_json(), indent=2)
    if out:
        out.write_text(text + "\n")
    emit(text if as_json else "\n".join(lines(result)))


@app.command()
def experiment(
    name: Annotated[
        str, typer.Argument(help="Which figure or table; an unknown name lists them.", autocompletion=experiments)
    ],
    out: Annotated[Path, typer.Option(help="The folder for raw results, pictures and tables. Runs it has are kept.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder with real data sets.", exists=True, file_okay=False)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each line, each with a seed of its own.", min=1)] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small and once: shows that it works, measures nothing.")
    ] = False,
) -> None:
    """Make a figure of the papers anew: raw results, a picture, and a table beside the paper's own numbers."""
    from olearning.experiment import experiment as run

    run(name, out, data, seeds, quick)


@app.command()
def demo(
    devices: Annotated[int, typer.Option(help="In each of the two zones.", min=10)] = 20,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    live: Annotated[
        bool, typer.Option(help="Redraw one screen; else lines. By itself: if this is a terminal.")
    ] = False,
    bootstrap: Bootstrap = "",
    seed: Annotated[int, typer.Option(help="For all that is drawn.", min=0, max=MOST_SEED)] = 0,
) -> None:
    """Two zones train a classifier of handwritten digits; an aggregator is killed; the end is compared and reported."""
    from rich.console import Console

    from olearning.demo import Demo
    from olearning.up import Shape, run_folder

    console = Console()
    shape = Shape(f"demo-{new_life()}", devices=devices, day_seconds=DAY_SECONDS, apart_h=4.0, resend=0.1, seed=seed)
    show = Demo(shape, run_folder(runs), console, live or console.is_terminal)
    with show.choose(bootstrap) as chosen:
        code = drive(lambda: show.run(chosen))
    raise typer.Exit(code)


# ------------------------------------------------------------------ the local broker


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
