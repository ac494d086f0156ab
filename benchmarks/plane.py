"""A plane of its own for one measurement: the roles as processes, in a namespace that nobody used before."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ZONE = "bench"


class Failed(RuntimeError):
    """A measurement did not come to its end; the text says why."""


def put_out(process: subprocess.Popen) -> None:
    """Wait for a process that was told to end, and not for ever."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Roles:
    """The processes of a plane with one zone, by name. Their output goes to files in `folder`."""

    bootstrap: str
    folder: Path
    partitions: int = 8
    namespace: str = field(default_factory=lambda: f"bench-{secrets.token_hex(4)}")
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, kind: str, name: str, **options: str | int) -> subprocess.Popen[bytes]:
        given = {"name": name, "namespace": self.namespace, "bootstrap": self.bootstrap, "partitions": self.partitions}
        words = (x for k, v in (given | options).items() for x in (f"--{k.replace('_', '-')}", str(v)))
        with self.log(name).open("wb") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "olearning", *([kind] if kind == "gateway" else ["run", kind]), *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {"OLEARNING_TIED": "1"},  # it ends with us, however we end
            )
        return self.running[name]

    def check(self) -> None:
        """Raises `Failed` if one has ended."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with exit code {process.returncode}: {last_words(self.log(name))}")

    def log(self, name: str) -> Path:
        return self.folder / f"{self.namespace}-{name}.log"

    def stop(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in self.running.values():
            put_out(process)
            if process.stdin:
                process.stdin.close()
        self.running = {}


@contextlib.contextmanager
def beside(what: str, module: str, *words: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A program of ours, for as long as the block lasts, and its first line: then it is ready. Raises `Failed`, with `what` it is, if it ends before."""
    with subprocess.Popen([sys.executable, "-m", module, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            if not (said := process.stdout.readline().strip()):
                raise Failed(f"{what} ended")
            yield process, said
        finally:
            process.kill()


@contextlib.contextmanager
def plane(bootstrap: str, folder: Path, aggregators: int, partitions: int = 8) -> Iterator[Roles]:
    """Global coordinator, zone coordinator and aggregators, for as long as the block lasts."""
    roles = Roles(bootstrap, folder, partitions)
    try:
        roles.start("global", "global", zones=ZONE)
        roles.start("zone", "zone", zone=ZONE)
        for n in range(aggregators):
            roles.start("aggregator", f"aggregator-{n}", zone=ZONE)
        yield roles
    finally:
        roles.stop()


def last_words(log: Path) -> str:
    """The last line of a log."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((x.strip() for x in reversed(lines) if x.strip()), "it said nothing")
