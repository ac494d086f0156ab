"""A Kafka with TLS, logins and rights: our clients come through it, others are refused in words, and docs/isolation.md says what each needs."""

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from olearning.cli import outcome
from olearning.errors import NO_BROKER, OK, USAGE
from olearning.roles import Groundwork, Role
from olearning.view import View
from processors.aggregator import Aggregator
from processors.globe import GlobalCoordinator
from processors.scheduler import Scheduler
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from streams import security
from streams.kafka import BrokerGone, Kafka
from streams.processor import Processor, Stop
from tests.plane import LAYOUT, START, Arithmetic, spec
from tests.secured import PASSWORD, Secured, secured

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]
NS, ZONE, P = "prod", "asia", 2
USERS = ("plane", "edge-7", "acme", "viewer")
OPERATIONS = {"All": 2, "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Describe": 8}
RESOURCES, LITERAL, PREFIXED, ALLOW = {"--topic": 2, "--group": 3}, 3, 4, 3


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("secured"), USERS) as broker:
        asyncio.run(allow(broker.plain))
        yield broker


def rights() -> Iterator[tuple[int, str, int, str, str, int, int]]:
    """What the commands in docs/isolation.md give, as CreateAcls takes it."""
    for line in re.findall(r"^\$A (.*)", (ROOT / "docs/isolation.md").read_text(), re.MULTILINE):
        words = shlex.split(line)
        pairs = list(zip(words[::2], words[1::2], strict=True))
        said = dict(pairs)
        pattern = PREFIXED if said.get("--resource-pattern-type") == "prefixed" else LITERAL
        for kind, name in pairs:
            if kind in RESOURCES:
                yield (
                    RESOURCES[kind],
                    name,
                    pattern,
                    said["--allow-principal"],
                    "*",
                    OPERATIONS[said["--operation"]],
                    ALLOW,
                )


async def allow(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for right in rights():
            answer: Any = await admin._send_request(CreateAclsRequest(*right))
            assert [code for code, _ in answer.creation_responses] == [0], answer
    finally:
        await admin.close()


def as_user(kafka: Secured, user: str, mechanism: str = "SCRAM-SHA-256") -> Kafka:
    how = security.read(kafka.properties(user, mechanism), "client.properties", {})
    return Kafka(kafka.tls, user, 3_000, security=how)


class Glance(View):
    """What there is to see now."""

    def handle(self, event, now):
        yield from super().handle(event, now)
        if self.caught_up:
            yield Stop("that is all", ok=True)


async def through(kafka: Secured) -> None:
    ground = Groundwork(Role("zone", "z", NS, ZONE, {"partitions": str(P)}).topics())
    devices = [Device(f"d-{n}", n) for n in range(6)]
    manner = Manner(training=(50, 300), reaction=50, report=500)
    globe = GlobalCoordinator(NS, [ZONE], P, "global", "g1")
    roles: list[Processor] = [
        globe,
        ZoneCoordinator(NS, ZONE, P, "zone", "z1"),
        Aggregator(NS, ZONE, "aggregator", "a1", 200, 500),
        Scheduler(NS, "scheduler", "s1"),
    ]
    fleet = Fleet(NS, ZONE, "fleet", "f1", devices, Arithmetic(), manner)
    toy = spec(epochs=1, rounds=2)
    async with (
        as_user(kafka, "plane") as plane,
        as_user(kafka, "edge-7") as edge,
        as_user(kafka, "acme") as acme,
        as_user(kafka, "viewer") as viewer,
    ):
        assert (done := await plane.host(ground)).ok, done.reason
        assert (done := await edge.host(Groundwork(ground.topics))).ok, done.reason  # it finds them and makes none
        hosted = [asyncio.create_task(k.host(p)) for k, p in ((edge, fleet), *((plane, r) for r in roles))]
        done = await acme.host(Submitter(NS, "s1", toy, LAYOUT, START, 1))
        assert done.ok, done.reason
        while toy.task not in globe.globe.over:
            await asyncio.sleep(0.1)
            assert not any(h.done() for h in hosted), [h for h in hosted if h.done()]
        view = Glance(NS)
        assert (await viewer.host(view)).ok
        assert toy.task in view.globe.over

        refused = await viewer.host(Submitter(NS, "s2", spec("other"), LAYOUT, START, 1))
        assert not refused.ok
        assert "Authorization" in refused.reason
        for task in hosted:
            task.cancel()
        await asyncio.wait(hosted)


def test_a_task_goes_through_with_the_rights_that_the_page_gives(kafka: Secured) -> None:
    async def main() -> dict[Any, Any]:
        async with asyncio.timeout(90):
            await through(kafka)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.plain)
        await admin.start()
        try:
            return await admin.list_consumer_group_offsets(f"{NS}.{ZONE}.lag")
        finally:
            await admin.close()

    marked = asyncio.run(main())
    assert {tp.topic for tp in marked} == {f"{NS}.{ZONE}.deltas.toy"}
    assert sum(at.offset for at in marked.values()) > 0


def test_who_has_no_rights_is_told_so(kafka: Secured) -> None:
    async def main() -> Stop:
        async with as_user(kafka, "stranger", "PLAIN") as k:
            return await k.host(Groundwork(Role("zone", "z", "other", ZONE).topics()))

    done = asyncio.run(main())
    assert not done.ok
    assert "may neither see it (Describe) nor make it (Create)" in done.reason


WRONG = {
    "password": (lambda k, said: said.replace(PASSWORD, "no"), "does not let user plane in"),
    "mechanism": (lambda k, said: said.replace("256", "512"), "does not take a login by SCRAM-SHA-512"),
    "authority": (lambda k, said: said.replace(str(k.ca), str(k.other_ca)), "certificate is not trusted"),
    "no TLS": (lambda k, said: "", "the port speaks TLS and this client does not"),
    "no login": (lambda k, said: f"security.protocol=SSL\nssl.ca.location={k.ca}", "does it ask for a login"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_client_that_is_set_up_wrongly_is_told_what_to_check(
    what: str, kafka: Secured, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, which ends with the exit code of a missing broker; and no password is told."""
    change, words = WRONG[what]
    config = tmp_path / "client.properties"
    config.write_text(change(kafka, kafka.properties("plane")))
    monkeypatch.setenv(security.ENV, str(config))
    assert outcome(["status", "--namespace", NS, "--bootstrap", kafka.tls]) == NO_BROKER
    said = capsys.readouterr().err
    assert words in said
    assert PASSWORD not in said
    assert "check" in said or "does it ask" in said


def test_names_and_ports_that_do_not_fit_are_told_too(kafka: Secured) -> None:
    async def gone(bootstrap: str, said: str) -> str:
        with pytest.raises(BrokerGone) as e:
            await Kafka(bootstrap, security=security.read(said, "client.properties", {})).start()
        return str(e.value)

    async def main() -> None:
        mine = kafka.properties("plane")
        other = kafka.tls.replace("127.0.0.1", "localhost")
        assert "certificate is not for localhost" in await gone(other, mine)
        async with Kafka(other, security=security.read(f"{mine}{security.HOSTNAME}=\n", "c", {})):
            pass
        assert "does not speak TLS" in await gone(kafka.plain, mine)
        assert "no Kafka broker answers" in await gone("127.0.0.1:1", mine)
        assert "no machine is known as nobody.invalid" in await gone("nobody.invalid:9093", mine)
        mutual = f"security.protocol=SSL\nssl.ca.location={kafka.ca}\n"
        assert "a certificate that it trusts" in await gone(kafka.mutual, mutual)
        shown = f"{mutual}ssl.keystore.type=PEM\nssl.keystore.location={kafka.client}\n"
        assert "certificate is not for localhost" in await gone(
            kafka.mutual, shown
        )  # the name that the broker gives itself
        async with Kafka(kafka.mutual, security=security.read(f"{shown}{security.HOSTNAME}=\n", "c", {})) as k:
            assert await k.topics() == set()  # it has no rights

    asyncio.run(main())


def test_the_command_takes_the_file_and_the_password_from_the_environment(
    kafka: Secured, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv(security.ENV, "")  # what the command sets is undone
    config = tmp_path / "client.properties"
    config.write_text(f"security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nsasl.username=viewer\nssl.ca.location={kafka.ca}\nbootstrap.servers={kafka.tls}\n")  # fmt: skip
    words = ["--client-config", str(config), "tail", "global.ledger", "--namespace", NS]
    assert outcome(words) == USAGE
    assert "no password: say sasl.password" in capsys.readouterr().err
    monkeypatch.setenv(security.PASSWORD_ENV, PASSWORD)
    assert outcome(words) == OK, capsys.readouterr().err
    assert "task-admitted" in capsys.readouterr().out
