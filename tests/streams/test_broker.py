"""The local broker: starts, stops, leaves no orphan, and says what is wrong in words."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.broker import LocalBroker, start_detached, status, stop_detached
from streams.jars import BrokerError, jars


def alive(pid: int) -> bool:
    """Does the process run? A zombie, which somebody has yet to reap, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def comes_true(predicate: Callable[[], bool], seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def answers(bootstrap: str) -> bool:
    host, port = bootstrap.split(":")
    with socket.socket() as s:
        return s.connect_ex((host, int(port))) == 0


@pytest.mark.kafka
def test_it_starts_stops_and_starts_again_in_its_place(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path)

    async def in_a_loop() -> str:
        return await asyncio.to_thread(broker.start)

    first = asyncio.run(in_a_loop())
    pid = broker.pid
    assert pid
    assert alive(pid)
    assert answers(first)
    archives = {line.split()[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if ".jsa" in line}
    assert any(Path(x).parent == jars().parent for x in archives), "it reads Kafka's classes from no archive"
    broker.stop()
    assert not alive(pid)
    assert broker.pid is None
    with broker:
        assert broker.bootstrap == first
        assert answers(first)
    assert not answers(first)


@pytest.mark.kafka
def test_no_broker_outlives_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from streams.broker import LocalBroker; "
        "b = LocalBroker(Path(sys.argv[1])); b.start(); print(b.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert comes_true(lambda: not alive(pid))


@pytest.mark.kafka
def test_a_detached_broker_is_found_and_stopped_by_its_folder(tmp_path: Path) -> None:
    assert status(tmp_path) is None
    bootstrap = start_detached(tmp_path)
    running = status(tmp_path)
    assert running
    assert running["bootstrap"] == bootstrap
    assert alive(running["pid"])
    assert start_detached(tmp_path) == bootstrap  # the one that runs
    assert stop_detached(tmp_path)
    assert comes_true(lambda: not alive(running["pid"]))
    assert status(tmp_path) is None
    assert not stop_detached(tmp_path)


def test_a_stranger_with_the_broker_s_process_id_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "broker.json").write_text(f'{{"pid": {os.getpid()}, "port": 1, "bootstrap": "x:1"}}')
    assert status(tmp_path) is None
    assert not stop_detached(tmp_path)


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it: the folder is its PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path / "bin"


def test_without_java_it_says_so(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="no java found: install"):
        LocalBroker(tmp_path).start()


def test_java_may_be_too_old(bare: Path, tmp_path: Path) -> None:
    program(bare, "java", """echo 'openjdk version "1.8.0_402"' >&2""")
    with pytest.raises(BrokerError, match=r"is Java 8, Kafka .* needs 17 or newer"):
        LocalBroker(tmp_path).start()


def test_without_maven_and_without_jars_it_says_so(bare: Path, tmp_path: Path) -> None:
    program(bare, "java", """echo 'openjdk version "21" 2023-09-19' >&2""")
    with pytest.raises(BrokerError, match="no mvn found: install Maven"):
        LocalBroker(tmp_path).start()


def test_maven_may_be_offline(bare: Path, tmp_path: Path) -> None:
    program(bare, "java", """echo 'openjdk version "21" 2023-09-19' >&2""")
    program(bare, "mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
    with pytest.raises(BrokerError, match=r"offline\?\n\[ERROR\] Could not transfer artifact"):
        LocalBroker(tmp_path).start()
    assert list((tmp_path / "cache" / "olearning").iterdir()) == []


@pytest.mark.kafka
def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is taken"):
            LocalBroker(tmp_path, port).start()


@pytest.mark.kafka
def test_a_broker_that_dies_at_its_start_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\ncluster.id=another\nnode.id=7\n")
    with pytest.raises(BrokerError, match=r"died at its start:\n(.|\n)*node.id"):
        LocalBroker(tmp_path).start()
