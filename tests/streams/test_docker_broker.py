"""The broker in Docker: starts, stops, keeps its data, leaves no orphan. Where Docker is promised (`make test-docker`)."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from olearning.connect import choose
from streams.docker_broker import DockerBroker
from streams.jars import BrokerError
from tests.containers import PROMISE

promised = pytest.mark.skipif(os.environ.get(PROMISE) != "docker", reason=f"{PROMISE} does not promise Docker")


def answers(bootstrap: str) -> bool:
    host, port = bootstrap.split(":")
    with socket.socket() as s:
        return s.connect_ex((host, int(port))) == 0


def comes_true(predicate: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.kafka
@promised
def test_it_takes_the_place_of_a_local_one_and_starts_again_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Java it is the one that is chosen."""
    monkeypatch.setattr("streams.broker.find_java", lambda: (_ for _ in ()).throw(BrokerError("no java found")))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    said: list[str] = []
    with choose(tmp_path / "broker", said.append) as chosen:
        assert answers(chosen.bootstrap)
        assert isinstance(chosen.local, DockerBroker)
        cluster = (tmp_path / "broker/data/meta.properties").read_text()
        chosen.local.stop()
        assert not answers(chosen.bootstrap)
        assert chosen.local.start() == chosen.bootstrap
        assert (tmp_path / "broker/data/meta.properties").read_text() == cluster
    assert not answers(chosen.bootstrap)
    assert said[1] == "broker: not a local one. no java found"
    assert said[2].startswith("broker: Apache Kafka in Docker, started for this run from ")


@pytest.mark.kafka
@promised
def test_no_container_outlives_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from streams.docker_broker import DockerBroker; "
        "b = DockerBroker(Path(sys.argv[1])); print(b.start(), flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    bootstrap = parent.stdout.readline().strip()
    assert answers(bootstrap)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert comes_true(lambda: not answers(bootstrap))


def test_without_an_engine_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        BrokerError,
        match=r"no Docker engine answers .*Cannot connect.*: start Docker, or name its address in DOCKER_HOST",
    ):
        DockerBroker(tmp_path / "broker").start()


def test_without_the_image_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = version ] || { echo "no such host" >&2; exit 1; }\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("OLEARNING_BROKER_IMAGE", "an/image:1")
    with pytest.raises(
        BrokerError,
        match=r"an/image:1 can't be pulled .no such host.: name an image that is there in OLEARNING_BROKER_IMAGE",
    ):
        DockerBroker(tmp_path / "broker").start()
