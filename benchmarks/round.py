"""How long a round takes on real Kafka with devices that train nothing: from the first upload until the next model is read.

The plane are processes (global, zone, aggregators), the devices another one. A round begins when the first block of a delta
leaves and ends when the zone model of the next round has been fetched whole and its checksums are right. The ledger's own
times say what lies in between. The limit: the same bytes up and one model down over local TCP, where nothing is stored.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import limits, rss
from benchmarks.line import Line, Report, number
from benchmarks.plane import ZONE, Failed, Roles, last_words, plane
from processors.submitter import Submitter
from schemas.blocks import BLOCK, Tensor, layout
from schemas.facts import Closed, Committed, Finalised, Opened
from schemas.task import Epochs, Rounds, TaskSpec
from schemas.topics import topic
from streams.kafka import Kafka
from streams.ledger import Ledger, Zone
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Stop

TASK = "round"
PARAMETERS = (10_000, 1_200_000, 11_200_000)
PATIENCE = 120.0
"""Seconds that a round may take before the measurement is given up."""
MB = 1e6


def run(
    report: Report,
    *,
    bootstrap: str,
    devices: int = 10,
    parameters: Sequence[int] = PARAMETERS,
    repeat: int = 3,
    workers: int = 1,
    edges: int = 1,
    peer: str = "",
) -> None:
    """Measure each size of model and report it. The devices are spread over `edges` processes, each of which reads the model
    once. `peer` "flower" runs the same through Flower. Raises `Failed`."""
    for n in parameters:
        with tempfile.TemporaryDirectory() as folder, plane(bootstrap, Path(folder), workers) as roles:
            times, memory = _rounds(roles, devices, edges, n, repeat)
        times.sort(key=lambda t: t["round"])
        middle = times[(len(times) - 1) // 2]
        settings: dict[str, Any] = {
            "rounds": repeat,
            "fastest": times[0]["round"],
            "slowest": times[-1]["round"],
            "round_to_round": middle.pop("round_to_round"),
            "until_all_edges_have_it": middle.pop("all_read"),
            "commits": int(middle.pop("commits")),
            "made_of": {k: s for k, s in middle.items() if k != "round"},
            "processes": {"global": 1, "zone": 1, "aggregators": workers, "edges": edges, "broker": 1},
            "cores": os.cpu_count(),
            "partitions": roles.partitions,
            "block_values": BLOCK,
            "codec": "int32",
            "limit_is": "the same bytes up and one model down over local TCP, nothing stored",
        }
        peer_value = None
        if peer == "flower":
            from benchmarks.flower import peer as flower

            try:
                flower_round = flower.round(devices, n)
                peer_value, settings["peer_settings"] = flower_round.seconds, flower_round.settings
            except flower.GaveUp as e:
                settings["peer_gave_up"] = str(e)
        report(
            Line(
                bench="round",
                case=f"devices={devices} parameters={number(n)}",
                value=middle["round"],
                unit="s",
                limit=limits.tcp_round(devices, 4 * n),
                settings=settings,
                peer=peer if peer_value else "",
                peer_value=peer_value,
                peak_rss_mb=memory,
                memory_limit_mb=2 * 4 * n / MB + 150,
            )
        )


def _rounds(
    roles: Roles, devices: int, edges: int, parameters: int, repeat: int
) -> tuple[list[dict[str, float]], float]:
    """What each round took and what of (seconds), and the peak of the largest aggregator less idle. A first one is not counted."""
    asyncio.run(_submit(roles, devices, parameters, repeat + 2))
    aggregators = [p.pid for name, p in roles.running.items() if name.startswith("aggregator")]
    idle = {pid: rss.now_mb(pid) for pid in aggregators}
    heard = _devices(roles, devices, edges, repeat + 1)
    peak = max(rss.peak_mb(pid) - idle[pid] for pid in aggregators)
    story = asyncio.run(_story(roles))
    out = []
    for last, t in pairwise(heard):
        more = {"round_to_round": t["read"] - last["read"], "all_read": t["all_read"] - t["first"]}
        out.append(parts(t, story) | {k: round(x, 4) for k, x in more.items()})
    return out, peak


async def _submit(roles: Roles, devices: int, parameters: int, rounds: int) -> None:
    spec = TaskSpec(
        task=TASK,
        model="none",
        data="none",
        rounds=Rounds(devices, over_commit=1.0, minimum=devices, deadline_s=600.0, lease_s=600.0),
        epochs=Epochs(1, rounds),
        zones=(ZONE,),
    )
    shape = layout((Tensor("all", (parameters,)),))
    async with Kafka(roles.bootstrap, "bench") as kafka:
        stop = await kafka.host(
            Submitter(roles.namespace, "bench", spec, shape, np.zeros(parameters, np.float32), patience=60_000)
        )
    roles.check()
    if not stop.ok:
        raise Failed(stop.reason)


def _devices(roles: Roles, devices: int, edges: int, rounds: int) -> list[dict[str, float]]:
    """Let the devices run so many rounds: the times of each."""
    running = {}
    try:
        for n in range(edges):
            first, end = devices * n // edges, devices * (n + 1) // edges
            running[f"edge-{n}"] = _edge(roles, f"edge-{n}", first, end - first, rounds)
        end_at, seen = time.monotonic() + PATIENCE, 0
        while any(p.poll() is None for p in running.values()):
            roles.check()
            lines = sum(_times(roles, name).read_text().count("\n") for name in running)
            if lines > seen:
                seen, end_at = lines, time.monotonic() + PATIENCE
            for name, p in running.items():
                if p.poll():
                    raise Failed(f"{name} ended with exit code {p.returncode}: {last_words(roles.log(name))}")
            if time.monotonic() > end_at:
                raise Failed(f"a round was not over within {PATIENCE:g} s")
            time.sleep(0.25)
    finally:
        for p in running.values():
            p.kill()
            p.wait()
    return merged([[json.loads(x) for x in _times(roles, name).read_text().splitlines()] for name in running])


def _edge(roles: Roles, name: str, first: int, count: int, rounds: int) -> "subprocess.Popen[bytes]":
    words = {
        "bootstrap": roles.bootstrap,
        "namespace": roles.namespace,
        "zone": ZONE,
        "task": TASK,
        "first": str(first),
        "count": str(count),
        "rounds": str(rounds),
    }
    command = [sys.executable, "-m", "benchmarks.devices", *(x for k, v in words.items() for x in (f"--{k}", v))]
    with _times(roles, name).open("wb") as out, roles.log(name).open("wb") as log:
        return subprocess.Popen(command, stdout=out, stderr=log)


def _times(roles: Roles, name: str) -> Path:
    return roles.folder / f"{name}.jsonl"


def merged(edges: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """The times of all edges as one: the first block of any, the last acknowledgement, the first that has the model; and the last."""
    return [
        {
            "round": times[0]["round"],
            "first": min(t["first"] for t in times),
            "sent": max(t["sent"] for t in times),
            "heard": min(times, key=lambda t: t["read"])["heard"],
            "read": min(t["read"] for t in times),
            "all_read": max(t["read"] for t in times),
        }
        for times in zip(*edges, strict=True)
    ]


# ------------------------------------------------------------------ what a round's time is made of


@dataclass
class Story:
    """When the accepted facts of each round landed (seconds since the epoch, by the broker's clock)."""

    commits: dict[int, list[float]]
    closed: dict[int, float]
    finalised: dict[int, float]
    opened: dict[int, float]


class Reader:
    """Reads a zone's ledger to the end that it has."""

    membership: Membership | None = None
    name, tick = "story", 1_000

    def __init__(self, namespace: str):
        self.topic = topic(namespace, ZONE, "ledger").name
        self.ledger: Ledger[Zone] = Ledger(Zone())
        self.end = 0
        self.story = Story({}, {}, {}, {})

    def start(self, now: int) -> Iterator[Effect]:
        yield Ends("end", self.topic)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Answer):
            self.end = event.value[0]
            yield Follow(self.topic, 0, 0)
        elif isinstance(event, Record):
            fact, void = self.ledger.feed(event)
            at = event.timestamp / 1000
            match fact:
                case Committed() if not void and fact.bitmap:
                    self.story.commits.setdefault(fact.round, []).append(at)
                case Closed() if not void:
                    self.story.closed[fact.round] = at
                case Finalised() if not void:
                    self.story.finalised[fact.round] = at
                case Opened() if not void:
                    self.story.opened[fact.round] = at
            if event.offset + 1 >= self.end:
                yield Stop("read", ok=True)


async def _story(roles: Roles) -> Story:
    reader = Reader(roles.namespace)
    async with Kafka(roles.bootstrap, "bench") as kafka:
        await kafka.host(reader)
    return reader.story


def parts(t: dict[str, float], story: Story) -> dict[str, float]:
    """A round's whole time and what it is made of, in seconds: `upload` from the first block to the last acknowledgement,
    `count` to the last commit, `close` to the close, `finalise` to the model, `open` to the next round's opening, `hear` to
    its announcement, `fetch` to the model in hand."""
    n = int(t["round"])
    stations = {
        "upload": t["sent"],
        "count": story.commits[n][-1],
        "close": story.closed[n],
        "finalise": story.finalised[n],
        "open": story.opened[n + 1],
        "hear": t["heard"],
        "fetch": t["read"],
    }
    out, at = {"round": round(t["read"] - t["first"], 4), "commits": float(len(story.commits[n]))}, t["first"]
    for name, then in stations.items():
        out[name], at = round(then - at, 4), then
    return out
