"""Tenants on a real broker: quotas, the policy, silence and the operators' commands, while the global coordinator is killed in between."""

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from olearning.errors import FAILED, OK
from olearning.planes import Processes
from olearning.up import Shape
from tests.integration.test_cli_kafka import DIGITS, Live, pid

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@dataclass
class Killable(Live):
    plane: Any = None
    loop: Any = None
    pids: list[int] = field(default_factory=list)

    def file(self, name: str, tenant: str, more: str = "") -> str:
        text = DIGITS.replace('task = "digits"', f'task = "{name}"\n{more}')
        file = self.folder / f"{name}.toml"
        file.write_text(text.replace('tenant = "demo"', f'tenant = "{tenant}"'))
        return str(file)

    def kill(self, name: str, away: float) -> None:
        self.pids.append(pid(self, name))
        self.loop.call_soon_threadsafe(self.plane.kill, name, away)
        self.until(lambda: pid(self, name) != self.pids[-1])


@pytest.fixture
def live(
    broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Killable]:
    """A zone without devices: tasks stay open."""
    monkeypatch.setenv("COLUMNS", "160")
    live = Killable(f"tenants-{secrets.token_hex(4)}", broker, tmp_path, [], capsys)
    loop = live.loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Processes:
        plane = Processes(broker, tmp_path / "logs", live.said.append, 3_000)
        shape = Shape(live.namespace, ("east",), aggregators=1, evaluator=False, partitions=2, day_seconds=0)
        await plane.start(shape.plane())
        return plane

    try:
        live.plane = asyncio.run_coroutine_threadsafe(start(), loop).result(200)
        try:
            yield live
        finally:
            asyncio.run_coroutine_threadsafe(live.plane.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_tenants_and_policy_outlive_a_killed_coordinator_and_the_quota_holds(live: Killable) -> None:
    code, out, errors = live.run("tenant", "set", "acme", "--tasks", "1", "--weight", "2", "--by", "ann")
    assert (code, errors) == (OK, "")
    assert out == "tenant acme: weight 2, 1 open task, devices at work without limit, bytes a day without limit\n"
    assert live.run("sharing", "set", "srsf", "--by", "ann")[0] == OK
    code, _, errors = live.run("sharing", "set", "lottery")
    assert (code, "no sharing policy 'lottery' is known here" in errors) == (FAILED, True)
    code, out, errors = live.run("submit", live.file("first", "acme"))
    assert (code, out) == (OK, "first runs in east\n"), errors

    live.kill("global", 2.0)
    code, out, errors = live.run("tenant", "set", "labs", "--weight", "3")  # said while nobody leads
    assert (code, out.startswith("tenant labs: weight 3")) == (OK, True), errors
    assert live.run("sharing")[1] == "devices are shared by srsf, as ann said\n"
    code, _, errors = live.run("submit", live.file("second", "acme"))
    assert code == FAILED
    assert "second is refused: tenant acme may have 1 open task and has 1 (first): wait until" in errors

    acme, labs = live.json("tenants")
    assert (acme["tenant"], acme["weight"], acme["tasks"], acme["most_tasks"]) == ("acme", 2.0, ["first"], 1)
    assert (labs["tenant"], labs["weight"], labs["tasks"]) == ("labs", 3.0, [])
    (waits,) = live.json("queue")
    assert (waits["task"], waits["zone"], waits["slots"], waits["deltas"]) == ("first", "east", 0, 0)
    assert "no fleet reports any here" in waits["why"]
    live.until(lambda: live.json("devices", "--eligible-for", "first")["zones"]["east"]["eligible"] == 0)

    live.kill("global", 0.5)
    code, out, errors = live.run("task", "end-round", "first")
    assert (code, out) == (OK, "first: round 1 in east ends now with what came\n"), errors
    code, out, _ = live.run("tail", "global.ledger")
    lines = [x for x in out.splitlines() if " void" not in x]
    for fact, n in (
        ("tenant-set", 2),
        ("sharing-set", 1),
        ("wish-refused", 1),
        ("task-admitted", 1),
        ("task-updated", 1),
    ):
        assert sum(f" {fact} " in x for x in lines) >= n, fact
    facts = live.json("tasks")
    assert [(t["task"], t["state"]) for t in facts] == [("first", "open"), ("second", "refused")]


def test_a_silent_tenant_s_task_is_stopped_on_a_real_clock_and_a_kept_one_is_not(live: Killable) -> None:
    assert live.run("submit", live.file("quiet", "labs", "silent_s = 15"))[0] == OK
    assert live.run("submit", live.file("kept", "labs", "silent_s = 15"))[0] == OK
    began = time.monotonic()
    live.kill("global", 1.0)
    while live.state("quiet") != "ended":
        assert time.monotonic() - began < 120
        code, out, errors = live.run("task", "keep", "kept")
        assert (code, out) == (OK, "kept is kept: it is stopped unless something is said of it again within 15 s\n"), (
            errors
        )
        time.sleep(1)
    assert time.monotonic() - began > 10
    (quiet,) = [t for t in live.json("tasks") if t["task"] == "quiet"]
    assert quiet["why"] == "stopped by the silence of its tenant labs, of which nothing was heard for 15 s"
    assert live.state("kept") == "open"
    code, _, errors = live.run("task", "keep", "quiet")
    assert (code, "quiet has ended: stopped by the silence" in errors) == (FAILED, True)
