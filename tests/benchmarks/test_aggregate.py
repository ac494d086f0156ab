"""`olearning bench aggregate` on a real broker, small; the load it reads; the picture of what it printed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load import KINDS, SHARDS, Load
from learning.codecs import read_values
from schemas.blocks import DeltaBlock, codec
from schemas.facts import Admitted, Opened
from schemas.partitioner import shard_of
from schemas.wire import decode


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_prints_a_line_for_each_case(broker: str, tmp_path: Path) -> None:
    words = ["bench", "aggregate", "--quick", "--json", "--bootstrap", broker]
    done = subprocess.run([sys.executable, "-m", "olearning", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in done.stdout.splitlines()]
    stages = [x["case"].split()[0] for x in lines]
    assert stages == ["add", "consume", "consume", "consume", "join"]
    assert [x["case"].split()[1] for x in lines[1:]] == ["workers=1", "workers=2", "workers=1", "workers=1+1"]
    for x in lines:
        assert (x["bench"], x["unit"]) == ("aggregate", "MB/s")
        assert x["ratio"] == pytest.approx(x["value"] / x["limit"], rel=1e-2)
    for x in lines[1:]:
        assert x["memory_limit_mb"] > 150
        assert x["peak_rss_mb"] > 0
    join = lines[-1]["settings"]
    assert sum(join["shares"]) >= join["payload_mb"] / 0.262144 - 1  # every block at least once

    results = tmp_path / "results.jsonl"
    results.write_text(done.stdout)
    drawn = subprocess.run(
        [sys.executable, "-m", "benchmarks.picture", str(tmp_path / "picture"), str(results)],
        capture_output=True,
        text=True,
    )
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert (tmp_path / "picture.svg").read_text().count("consume") == 0  # titles are words, not cases


@pytest.mark.parametrize("name", KINDS)
def test_a_load_is_what_it_says(name: str) -> None:
    load = Load("n", devices=5, parameters=70_000, codec=name, tasks=("a", "b"))
    opened = [f for f in load.opening() if isinstance(f, Opened)]
    slots = next(f for f in load.opening() if isinstance(f, Admitted)).slots
    assert [o.task for o in opened] == ["a", "b"]
    size = 0
    for task in load.tasks:
        ends = dict.fromkeys(range(SHARDS), 0)
        for shard, device, value in load.blocks(task):
            b = decode(value, (DeltaBlock,))
            assert shard == shard_of(device, SHARDS)
            assert [x.slot for x in slots if (x.task, x.device) == (task, device)] == [b.slot]
            values = read_values(codec(b.codec), b.data, load.sizes[b.block])
            total = np.zeros(load.sizes[b.block], np.int64)
            values.add(total, b.exponent, 1)
            assert 0 < abs(total).max() <= opened[0].largest
            size += b.data.nbytes
            ends[shard] += 1
        assert ends == load.ends()
    assert size == load.payload
