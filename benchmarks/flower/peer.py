"""The same work through Flower: its hub (SuperLink) on SQLite and a node (SuperNode) for each device, as processes here."""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.flower.environment import binaries, version
from benchmarks.plane import Failed, last_words
from streams.broker import free_port

HERE = Path(__file__).resolve().parent
STANDING = 240.0
"""Seconds without anything new after which a run is given up."""
NO_INSTALL = "--disable-runtime-dependency-installation"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


class GaveUp(Failed):
    """It began, and did not come to its end: that is what was measured, then."""


@dataclass(frozen=True)
class Adding:
    """`rate` in bytes a second from wire bytes to the weighted mean, `peak_mb` less what the process held before."""

    rate: float
    peak_mb: float
    settings: dict[str, Any]


@dataclass(frozen=True)
class Round:
    """`seconds` from when the first client hands its reply over until a client has the next round's model."""

    seconds: float
    settings: dict[str, Any]


def aggregate(devices: int, parameters: int) -> Adding:
    """What its FedAvg strategy does with received replies. Raises `Failed`."""
    command = [str(binaries() / "python"), str(HERE / "adding.py"), str(devices), str(parameters)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"Flower's adding ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    rate, peak = found.pop("rate"), found.pop("peak_mb")
    return Adding(rate, peak, {"flower": version(), **found})


def round(devices: int, parameters: int, rounds: int = 4) -> Round:
    """Whole rounds with clients that train nothing; a first one is not counted. Raises `Failed`, of which `GaveUp`."""
    with (
        tempfile.TemporaryDirectory(prefix="olearning-flower-", ignore_cleanup_errors=True) as folder,
        _running(Path(folder), devices) as (hub, environment),
    ):
        notes = _run(Path(folder), hub, environment, devices, parameters, rounds)
    return _read(notes, rounds)


@contextlib.contextmanager
def _running(folder: Path, devices: int) -> Iterator[tuple[str, dict[str, str]]]:
    """A hub and its nodes, for as long as the block lasts: the hub's address, and the environment of all."""
    programs, hub = binaries(), f"127.0.0.1:{free_port()}"
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"  # they start one another by name
    environment = os.environ | QUIET | {"PATH": path, "FLWR_HOME": str(folder)}
    settings = f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "{hub}"\ninsecure = true\n'
    (folder / "config.toml").write_text(settings)
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            command = [str(programs / words[0]), *words[1:]]
            # In a session of its own: what it starts ends with it.
            running.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)
            )

    try:
        database = str(folder / "state.db")
        port = hub.rpartition(":")[2]
        start("hub", "flower-superlink", "--insecure", "--port", port, "--database", database, NO_INSTALL)
        _answers(hub, running[0], folder / "hub.log")
        for n in range(devices):
            words = ("--insecure", "--superlink", hub, "--port", str(free_port()))
            start(f"node-{n}", "flower-supernode", *words, "--node-config", f"partition-id={n}")
        yield hub, environment
    finally:
        for sign in ("TERM", "KILL"):
            for process in running:
                subprocess.run(["kill", f"-{sign}", "--", f"-{process.pid}"], capture_output=True)
            end = time.monotonic() + 5
            while time.monotonic() < end and any(p.poll() is None for p in running):
                time.sleep(0.1)
        for process in running:
            process.wait()


def _answers(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    host, _, port = address.rpartition(":")
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise Failed(f"Flower's hub does not start: {last_words(log)}")


def _run(
    folder: Path, hub: str, environment: dict[str, str], devices: int, parameters: int, rounds: int
) -> list[dict[str, Any]]:
    times = folder / "times.jsonl"
    config = f'devices={devices} parameters={parameters} rounds={rounds} times="{times}"'
    command = [str(binaries() / "flwr"), "run", str(HERE / "app"), "bench", "--run-config", config]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"`flwr run` ended with exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
    notes: list[dict[str, Any]] = []
    moved = time.monotonic()
    while time.monotonic() - moved < STANDING:
        before = len(notes)
        notes = [json.loads(x) for x in times.read_text().splitlines() if x.endswith("}")] if times.exists() else []
        if any(x["what"] == "over" for x in notes):
            return notes
        if len(notes) > before:
            moved = time.monotonic()
        time.sleep(0.5)
    raise GaveUp(f"Flower's run stood still for {STANDING:g} s: {last_words(folder / 'hub.log')}")


def _read(notes: list[dict[str, Any]], rounds: int) -> Round:
    """What the notes say of all rounds but the first (with its start of everything) and the last (nobody reads its model)."""
    at: dict[tuple[str, int], list[float]] = defaultdict(list)
    for x in notes:
        at[x["what"], x["round"]].append(x["at"])
    counted = range(2, rounds)
    spans = [min(at["model", n + 1]) - min(at["reply", n]) for n in counted]
    parts = {
        "round_to_round": [at["end", n][0] - at["end", n - 1][0] for n in counted],
        "begin_to_first_process": [min(at["process", n]) - at["begin", n][0] for n in counted],
        "first_to_last_process": [max(at["process", n]) - min(at["process", n]) for n in counted],
        "process_to_model": [median(at["model", n]) - median(at["process", n]) for n in counted],
        "last_reply_to_all_received": [at["received", n][0] - max(at["reply", n]) for n in counted],
        "aggregate": [at["end", n][0] - at["received", n][0] for n in counted],
    }
    settings = {
        "flower": version(),
        "processes": "SuperLink on SQLite, a SuperNode a device, all on the same cores; isolation subprocess",
        "rounds": len(counted),
        "made_of": {k: float(f"{median(v):.3f}") for k, v in parts.items()},
    }
    return Round(median(spans), settings)
