"""Which broker the tests get, and that a promise of Docker is kept or fails."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from streams.broker import LocalBroker
from streams.jars import BrokerError
from tests.containers import PROMISE, NoContainer, choose

ROOT = Path(__file__).parent.parent
NOWHERE = "unix:///nowhere/docker.sock"


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is promised or given, there is no Docker, and a local broker need not really start."""
    monkeypatch.delenv(PROMISE, raising=False)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    monkeypatch.setattr(LocalBroker, "start", lambda self: "local:1")


class Imageless(BaseHTTPRequestHandler):
    """A Docker engine that has no image and can pull none."""

    def do_GET(self) -> None:
        found = self.path.endswith("/version")
        body = b'{"ApiVersion": "1.44"}' if found else b'{"message": "no such image"}'
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def _imageless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Imageless) as engine:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{engine.server_port}")
        Thread(target=engine.serve_forever).start()
        yield
        engine.shutdown()


def test_a_broker_that_is_given_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "given:9092")
    assert choose(tmp_path)[:2] == ("given:9092", None)


def test_without_docker_it_is_a_local_one(tmp_path: Path) -> None:
    bootstrap, ours, said = choose(tmp_path)
    assert (bootstrap, type(ours)) == ("local:1", LocalBroker)
    assert "no Docker engine answers" in said


@pytest.mark.usefixtures("_imageless")
def test_without_the_image_it_is_a_local_one(tmp_path: Path) -> None:
    bootstrap, ours, said = choose(tmp_path)
    assert (bootstrap, type(ours)) == ("local:1", LocalBroker)
    assert "no such image" in said
    assert "OLEARNING_TEST_IMAGE" in said


@pytest.mark.usefixtures("_imageless")
def test_with_docker_promised_a_missing_image_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PROMISE, "docker")
    with pytest.raises(NoContainer, match=r"promises Docker, and no container .*: pull that image, or make one"):
        choose(tmp_path)


@pytest.mark.parametrize("given", ["", "given:9092"])
def test_a_promise_of_a_local_one_outranks_all(given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", given)
    monkeypatch.setenv(PROMISE, "local")
    assert choose(tmp_path)[0] == "local:1"


def test_a_promise_that_nobody_understands_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PROMISE, "dokcer")
    with pytest.raises(BrokerError, match="set it to docker or to local"):
        choose(tmp_path)


@pytest.mark.program
def test_tests_fail_and_are_not_skipped_where_docker_is_promised_and_missing() -> None:
    """A session of its own, of one test that needs a broker; not even one that is given takes Docker's place."""
    one = "tests/streams/test_contract.py::test_order_within_a_partition[kafka]"
    env = os.environ | {PROMISE: "docker", "DOCKER_HOST": NOWHERE, "KAFKA_BOOTSTRAP_SERVERS": "given:9092"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", one],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "promises Docker, and no Docker engine answers" in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert "1 error" in last
    assert "skipped" not in last
    assert "passed" not in last
