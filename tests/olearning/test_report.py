"""A run leaves a folder that says what happened, in numbers and in pictures."""

import json
import struct
import subprocess
import sys
from itertools import pairwise

import pytest

from olearning.report import Recorder, read
from streams.memory import Memory
from tests.olearning.watched import score, watch
from tests.plane import Plane, spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run in which an aggregator is killed."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    plane = Plane(Memory(seed=3, start=1_700_000_000_000))
    view, recorder = watch(plane), Recorder(folder)
    plane.submit(spec(epochs=2, rounds=3))
    start, killed, scored = plane.memory.now, False, set()
    recorder.note("a note", start)
    while plane.memory.now < start + 20_000:
        plane.memory.run(limit=100)
        for event in view.drain():
            recorder.event(event)
        recorder.sample(view.snapshot(plane.memory.now))
        if plane.memory.now > start + 500 and not killed:
            killed = True
            recorder.killed("agg-east-0", plane.memory.now)
            plane.hosts["agg-east-0"].crash()
        task = view.snapshot(plane.memory.now).task("toy")
        done = 0 if task is None else task.epoch if task.state in ("merged", "ended") else task.epoch - 1
        for epoch in range(done + 1):
            if task and epoch not in scored:
                scored.add(epoch)
                score(plane, epoch, (0.1, 0.6, 0.8765)[epoch])
    recorder.finish(
        view.snapshot(plane.memory.now), task="toy", central=0.95, nights={"east": [(start - 5_000, start + 9_000)]}
    )
    return folder


def size(png) -> tuple[int, int]:
    raw = png.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", raw[16:24])


def test_figures_are_there(folder):
    for name in ("accuracy.png", "traffic.png"):
        png = folder / name
        assert png.stat().st_size > 20_000
        width, height = size(png)
        assert width > 1_200
        assert height > 500


def test_the_report_names_the_numbers(folder):
    text = (folder / "report.md").read_text()
    for words in (
        "0.8765", "0.9500", "0.1000", "goal 0.85 | reached", "ended, epoch 2 of 2", "agg-east-0** was killed",
        "agg-east-1 took", "from agg-east-0", "the next round there was finalised: east:",
        "(accuracy.png)", "(traffic.png)", "(metrics.jsonl)",
        "| east | 72 | 0 | 72 | 0 | 0 | 0 | 0 | 0 | 0 | yes |", "| west | 72 | 0 | 72 | 0 | 0 | 0 | 0 | 0 | 0 | yes |",
    ):  # fmt: skip
        assert words in text, words


def test_samples_come_once_a_second(folder):
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {x["type"] for x in lines} == {"event", "sample", "note"}
    at = [x["at"] for x in lines if x["type"] == "sample"]
    assert all(b - a >= 1_000 for a, b in pairwise(at[:-1]))
    assert 18 <= len(at) <= 22
    last = [x for x in lines if x["type"] == "sample"][-1]
    assert set(last["zones"]["east"]["holders"]) == {"agg-east-1"}
    assert last["zones"]["east"]["identity"]["ok"] is True
    run = read(folder / "metrics.jsonl")
    assert [n for n, _, _ in run.scores("toy")] == [0, 1, 2]
    assert len(run.rounds("toy", "west")) == 6


def test_a_run_in_which_nothing_happened(tmp_path):
    plane = Plane(Memory())
    view, recorder = watch(plane), Recorder(tmp_path / "empty")
    report = recorder.finish(view.snapshot(0), task="toy").read_text()
    assert "unknown" in report
    assert "Nothing." in report
    assert size(tmp_path / "empty" / "traffic.png")[0] > 1_200


def test_neither_torch_nor_matplotlib_is_loaded_before_it_is_needed():
    names = "view, screen, tail, report"
    code = f"import sys; from olearning import {names}; sys.exit(bool({{'torch', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
