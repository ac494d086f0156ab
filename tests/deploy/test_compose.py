"""docker-compose.yml: what it starts are commands that there are, and every container is bounded, watched and started again."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from olearning.cli import app
from olearning.roles import KINDS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: s for name, s in SERVICES.items() if "build" in s}
LOAD = "--load /code/own.py"


def words(service: dict[str, Any]) -> list[str]:
    """A service's command line, with the defaults of its variables."""
    return shlex.split(re.sub(r"\$\{LOAD:-\}", LOAD, re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", service["command"])))


@pytest.mark.parametrize("name", [n for n, s in OURS.items() if "command" in s])
def test_it_starts_a_command_that_there_is(name: str) -> None:
    given, command = words(OURS[name]), get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[given.pop(0)]
    command.make_context("olearning", given)  # raises for an option that there is not


def test_every_role_is_in_it() -> None:
    first = {w[1] if w[0] == "run" else w[0] for s in OURS.values() if "command" in s for w in [words(s)]}
    assert first >= set(KINDS)


@pytest.mark.parametrize("name", SERVICES)
def test_it_is_bounded_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(p.startswith("127.0.0.1:") for p in service.get("ports", [])), "published to the world"
    if name == "olearning":  # runs once
        return
    assert service["restart"] == "unless-stopped"
    if name in OURS or name.startswith("broker"):
        assert service["healthcheck"]["test"]
    if not name.startswith("broker"):
        assert service["read_only"]
