"""`olearning fleet`, `gateway`, `token` and `phone`: devices of a zone, simulated here or real ones elsewhere."""

from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Annotated

import typer

from olearning.connect import address, find
from olearning.errors import USAGE, Trouble
from olearning.hosting import complain, drive, emit, host
from olearning.loading import own
from olearning.options import (
    DEFAULT_NAMESPACE,
    Bootstrap,
    Load,
    MetricsPort,
    Name,
    Namespace,
    Partitions,
    Session,
    Zone,
)
from olearning.roles import DAY_SECONDS, SESSION_TIMEOUT, Role, named, population
from schemas.sharing import ABILITIES
from schemas.topics import DEFAULT_PARTITIONS, check_zone
from schemas.wire import MOST_SEED
from streams.kafka import Kafka
from streams.processor import Processor


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
    busy: Annotated[
        float,
        typer.Option(
            help="The share of their time in which devices have other work, which takes 20 to 80 % of their memory and speed.",
            min=0,
            max=1,
        ),
    ] = 0.0,
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
    habits = {
        "travel": travel,
        "day": day,
        "capacity": capacity,
        "bandwidth": bandwidth,
        "phones": phones,
        "busy": busy,
    }
    fails = {"drop": drop, "slow": slow, "late": late, "interrupted": interrupted}
    options = {k: str(v) for k, v in (given | more | habits | fails).items() if v != ""}
    if room_mb is not None:
        options["room-mb"] = str(room_mb)
    loaded = own(load)
    try:
        population(zone, options | {"count": "1"}).devices()  # reads the files
    except ValueError as e:
        raise Trouble(str(e), USAGE) from None
    host(
        Role("fleet", named(name, f"fleet-{zone}"), namespace, zone, options, loaded),
        bootstrap,
        session_timeout,
        metrics_port,
    )


Secret = Annotated[
    Path, typer.Option(help="The file with the secret of the zone's gateways: of it tokens and pseudonyms are made.")
]


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

    loaded = own(load)
    signed = Signed(read_secret(secret))
    checked = find_check(check) if check else signed
    if bool(certificate) != bool(key):
        raise Trouble("--certificate and --key go together", USAGE)
    if (place := address(listen)) is None:
        raise Trouble(f"--listen {listen}: write HOST:PORT, as in 0.0.0.0:8080", USAGE)
    find(bootstrap, namespace)  # before HTTP is loaded
    from olearning.gateway import Hosted, front

    options = {"secret": str(secret), "room-mb": str(room_mb), "partitions": str(partitions)}
    role = Role("gateway", named(name, f"gateway-{zone}"), namespace, zone, options, loaded)
    tls = (certificate, key) if certificate else None

    def face(processor: Processor, kafka: Kafka) -> AbstractAsyncContextManager[None]:
        assert isinstance(processor, Hosted)
        processor.wake = kafka.nudge
        return front(processor, checked, *place, tls)

    host(role, bootstrap, session_timeout, metrics_port, face)


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
    own(load)
    if not url.startswith(("http://", "https://")):
        raise Trouble(f"{url}: a gateway's address begins with http:// or https://", USAGE)
    from olearning.phone import Phone

    device = Device(f"phone-{number}", number, abilities=dict(map(_ability, ability or ())))
    learner = learners()
    drive(lambda: Phone(url, token, zone, device, learner, complain).run())
