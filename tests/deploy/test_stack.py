"""docker-compose.yml as it stands, run: a task is trained while an aggregator dies, and what came out is verified. Not part of
`make test`; `make test-stack` runs it where the images are (`.ci/with-docker` makes them).

Fleets, evaluator and submit run from the plane's image here, with a client in numpy: torch would be gigabytes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.broker import free_port

ROOT = Path(__file__).parents[2]
PLANE = os.environ.get("PLANE_IMAGE", "olearning/plane")
SERVICES = ["global", "zone-east", "zone-west", "aggregator-east", "aggregator-west", "scheduler", "evaluator",
            "fleet-east", "fleet-west"]  # fmt: skip
CONTAINERS = len(SERVICES) + 3
"""Two aggregators a zone, and the broker."""

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


class Stack:
    def __init__(self) -> None:
        self.port = free_port()
        self.project = f"olearning-test-{self.port}"
        v2 = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        self.compose = ["docker", "compose"] if v2 else ["docker-compose"]
        own = {"PLANE_IMAGE": PLANE, "TRAIN_IMAGE": PLANE, "LOAD": "--load /code/own_client.py", "DEVICES": "8",
               "KAFKA_PORT": str(self.port), "KAFKA_HEAP_OPTS": "-Xmx512m", "HEALTH_INTERVAL": "5s", "COMPOSE_PROJECT_NAME": self.project}  # fmt: skip
        self.env = os.environ | own

    def run(self, *words: str) -> str:
        return self._out([*self.compose, *words])

    def docker(self, *words: str) -> str:
        return self._out(["docker", *words])

    def _out(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def olearning(self, *words: str) -> str:
        """A command from outside of the stack, by the port that it publishes."""
        return self._out([sys.executable, "-m", "olearning", *words, "--bootstrap", f"localhost:{self.port}"])

    def json(self, *words: str) -> Any:
        return json.loads(self.olearning(*words, "--json"))

    def containers(self) -> dict[str, str]:
        """Each container's name, and how well it is."""
        ids = self.run("ps", "-q").split()
        form = "{{.Name}} {{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"
        return dict(line.lstrip("/").split() for line in self.docker("inspect", "-f", form, *ids).splitlines())

    def until(self, what: str, seconds: float, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not in {seconds:g} s: {what}; {self.containers()}\n{self._logs()}"
            time.sleep(0.5)

    def _logs(self) -> str:
        logs = subprocess.run(
            [*self.compose, "logs", "--tail=20"], cwd=ROOT, env=self.env, capture_output=True, text=True
        )
        return logs.stdout[-6000:]


@pytest.fixture
def stack() -> Iterator[Stack]:
    stack = Stack()
    try:
        stack.run("up", "-d", *SERVICES)
        yield stack
    finally:
        stack.run("down", "--volumes", "--timeout", "10")


def test_a_task_is_trained_while_an_aggregator_dies(stack: Stack) -> None:
    stack.until("all are healthy", 120, lambda: list(stack.containers().values()) == ["healthy"] * CONTAINERS)
    said = stack.run(
        "run", "--rm", "-T", "olearning", "submit", "/code/own_client.toml", "--load", "/code/own_client.py"
    )
    assert said.endswith("clouds runs in east, west\n")

    def rounds() -> dict[str, int]:
        return {z["zone"]: z["identity"]["counted"] for z in stack.json("status")["zones"]}

    stack.until("a delta is counted in the east", 60, lambda: rounds()["east"] > 0)
    victim = next(c for c in stack.containers() if "aggregator-east" in c)
    before = stack.docker("inspect", "-f", "{{.State.StartedAt}}", victim)
    # SIGKILL for all but process 1, which is Docker's init, and which ends then.
    subprocess.run(["docker", "exec", victim, "sh", "-c", "kill -9 -1"], env=stack.env, capture_output=True)
    stack.until(
        f"{victim} is started again",
        30,
        lambda: stack.docker("inspect", "-f", "{{.State.StartedAt}}", victim) != before,
    )

    def task() -> dict[str, Any]:
        return next(t for t in stack.json("tasks") if t["task"] == "clouds")

    stack.until("the task has ended", 120, lambda: task()["state"] == "ended" and len(task()["accuracy"]) == 3)
    scores = list(task()["accuracy"].values())
    assert scores[0] < 0.5 < 0.8 < scores[-1], scores
    for zone in stack.json("status")["zones"]:
        assert zone["identity"]["ok"]
    for zone in ("east", "west"):
        for number in (1, 8):
            found = stack.json("verify", "clouds", str(number), "--zone", zone, "--load", "examples/own_client.py")
            assert found["verdict"] == "ok"
    stack.run("restart", "--timeout", "30", "broker")
    stack.until("all are healthy again", 60, lambda: list(stack.containers().values()) == ["healthy"] * CONTAINERS)
    assert task()["state"] == "ended", "the broker's volume keeps what it had"
