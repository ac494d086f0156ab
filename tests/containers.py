"""Apache Kafka in a container, and the choice of the broker for a session of tests.

Testcontainers' own Kafka knows only Confluent's image. This one brings its command and the settings of `streams/broker.py`,
and asks of an image no more than `java` and Kafka's jars where apache/kafka has them.
"""

import os
import shlex
from pathlib import Path
from typing import Self

from docker.errors import APIError, DockerException
from requests.exceptions import RequestException
from testcontainers.core.container import DockerContainer

from streams.broker import LocalBroker, await_ready, commands, free_port, settings
from streams.docker_broker import JARS
from streams.jars import VERSION, BrokerError

PROMISE = "OLEARNING_TEST_BROKER"
"""Set to docker or local: this way and no other."""
IMAGE = os.environ.get("OLEARNING_TEST_IMAGE") or f"apache/kafka:{VERSION}"
_PROPERTIES, _DATA, _CONTROLLER = "/tmp/server.properties", "/tmp/data", 9093


class NoContainer(BrokerError):
    """Docker, or the image, is not to be had."""


class KafkaContainer(DockerContainer):
    """One broker; its address is `bootstrap` once it is started."""

    def __init__(self, image: str = IMAGE):
        try:
            super().__init__(image)
        except (DockerException, RequestException) as e:
            raise NoContainer(
                f"no Docker engine answers ({e}): start Docker, or name its address in DOCKER_HOST"
            ) from e
        self.bootstrap = ""
        prepare, serve = commands("java", JARS, _PROPERTIES)
        write = f'printf %s "$PROPERTIES" > {_PROPERTIES}'
        self.with_command(["sh", "-c", f"{write} && {shlex.join(prepare)} && exec {shlex.join(serve)}"])

    def start(self) -> Self:
        """Start, and wait until it is ready. Raises `BrokerError`."""
        host = self.get_docker_client().host().replace("localhost", "127.0.0.1")
        for _ in range(5):
            # The same port inside and outside, so that the address that it gives to clients also leads it to itself.
            port = free_port()
            self.ports = {str(port): port}
            self.with_env("PROPERTIES", settings(port, _CONTROLLER, _DATA, host, listen="0.0.0.0"))
            try:
                super().start()
                break
            except (DockerException, RequestException) as e:
                if self._container:
                    self._container.remove(force=True, v=True)
                if isinstance(e, APIError) and ("already allocated" in str(e) or "already in use" in str(e)):
                    continue  # somebody was quicker: another port
                raise NoContainer(
                    f"no container of {self.image} could be started ({e}): pull that image, or make one with "
                    "deploy/kafka-image/build.sh and name it in OLEARNING_TEST_IMAGE"
                ) from e
        else:
            raise BrokerError("no free port found in five attempts: is something using them all up?")
        self.bootstrap = f"{host}:{port}"
        try:
            await_ready(self.bootstrap, self._lives, lambda: "\n".join(self._tail()))
        except BaseException:
            self.stop()
            raise
        return self

    def _lives(self) -> bool:
        self.reload()
        return self.status == "running"

    def _tail(self) -> list[str]:
        return self.get_wrapped_container().logs(tail=15).decode(errors="replace").splitlines()


def choose(folder: Path) -> tuple[str, KafkaContainer | LocalBroker | None, str]:
    """The bootstrap servers of a broker that runs, the broker itself if it is ours to stop, and which one it is in words.

    It is that of KAFKA_BOOTSTRAP_SERVERS; else one in a container where a Docker engine answers and the image is to be
    had; else a local one. What PROMISE names outranks them all, and nothing takes its place. Raises `BrokerError`.
    """
    promised, given = os.environ.get(PROMISE, ""), os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if promised not in ("", "docker", "local"):
        raise BrokerError(f"{PROMISE} is {promised!r}: set it to docker or to local, or leave it out")
    if given and not promised:
        return given, None, f"yours, at {given}"
    why = f"as {PROMISE} says"
    if promised != "local":
        try:
            container = KafkaContainer().start()
            return container.bootstrap, container, f"{container.image}, in Docker"
        except NoContainer as e:
            if promised:
                raise NoContainer(f"{PROMISE} promises Docker, and {e}") from e
            why = str(e)
    local = LocalBroker(folder)
    return local.start(), local, f"a local one; {why}"
