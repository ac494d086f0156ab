"""Commands against a log in memory."""

from collections.abc import Callable
from typing import Any

import pytest

import olearning.errors
from olearning.cli import outcome
from streams.memory import Memory
from streams.processor import Processor, Stop
from tests.plane import NS

VISITORS = ("olearning.commands.rounds", "olearning.commands.tenants", "olearning.options")
"""Where commands visit a namespace."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in the tests' namespace: exit code, output, errors."""

    def run(memory: Memory, *words: str) -> tuple[int, str, str]:
        def visit(namespace: str, bootstrap: str, processor: Processor, *args: Any, **more: Any) -> Stop:
            host = memory.host(lambda life: processor)
            assert memory.run(lambda: host.stopped is not None, 60_000)
            assert host.stopped
            if not host.stopped.ok:
                raise olearning.errors.Trouble(host.stopped.reason)
            return host.stopped

        for where in VISITORS:
            monkeypatch.setattr(f"{where}.visit", visit)
        monkeypatch.setattr("olearning.commands.looking.wall_clock", lambda: memory.now)
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setenv("OLEARNING_NAMESPACE", NS)
        capsys.readouterr()
        code = outcome(list(words))
        return code, *capsys.readouterr()

    return run
