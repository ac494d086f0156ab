"""However a plane with a broker of its own is ended, it leaves nothing; and it gets its broker back when that dies."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.leftovers import mentioning

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


class Up:
    """`olearning up` in a session of its own; it is given a name that all its processes bear."""

    def __init__(self, folder: Path):
        self.folder = folder
        env = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"}
        env["XDG_STATE_HOME"] = str(folder / "state")
        command = [
            str(Path(sys.executable).with_name("olearning")),
            "up",
            "--devices",
            "2",
            "--zones",
            "east",
            "--no-evaluator",
        ]
        self.out = (folder / "out").open("w+")
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=self.out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    @property
    def said(self) -> str:
        return (self.folder / "out").read_text()

    def has_said(self, words: str, seconds: float = 120) -> None:
        comes_true(lambda: words in self.said or self.process.poll() is not None, seconds)
        assert words in self.said, self.said

    def left(self) -> list[str]:
        """The broker's command line has the folder; the roles' have the address of the broker."""
        found = re.search(r"KAFKA_BOOTSTRAP_SERVERS=(\S+)", self.said)
        return mentioning(str(self.folder)) + (mentioning(found[1]) if found else [])

    def port_is_open(self) -> bool:
        found = re.search(r"KAFKA_BOOTSTRAP_SERVERS=(\S+):(\d+)", self.said)
        if not found:
            return False
        with socket.socket() as s:
            return s.connect_ex((found[1], int(found[2]))) == 0


def comes_true(predicate: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up
    if up.process.poll() is None:
        up.process.kill()
    up.process.wait()
    up.out.close()
    for line in up.left():
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(int(line.split()[0]), signal.SIGKILL)


@pytest.mark.parametrize(
    ("words", "sign", "code"),
    [
        ("broker: a local Apache Kafka", signal.SIGINT, 130),
        ("other terminals:", signal.SIGINT, 130),
        ("took shards", signal.SIGKILL, -9),
    ],
    ids=["SIGINT as the broker starts", "SIGINT as the roles start", "SIGKILL"],
)
def test_nothing_is_left(up: Up, words: str, sign: signal.Signals, code: int) -> None:
    up.has_said(words)
    if words == "took shards":
        assert up.port_is_open()
        assert len(up.left()) == 8  # the broker, its watchdog, global, zone, two aggregators, scheduler, fleet
    up.process.send_signal(sign)
    assert up.process.wait(60) == code, up.said
    assert comes_true(lambda: not up.left(), 60), up.left()
    assert not up.port_is_open()
    assert "Traceback" not in up.said
    if sign is signal.SIGINT:
        assert up.said.endswith("olearning: interrupted\n")


def test_a_broker_of_its_own_that_dies_is_started_again_and_sigterm_leaves_nothing(up: Up) -> None:
    up.has_said("took shards")
    (broker,) = (x for x in up.left() if "kafka.Kafka" in x)
    os.kill(int(broker.split()[0]), signal.SIGKILL)
    up.has_said("is gone; it is started again")
    up.has_said("the broker is back")
    assert up.port_is_open()
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(60) == 0
    assert comes_true(lambda: not up.left(), 60), up.left()
    assert "ended (" not in up.said  # every role waited for it
