"""An upgrade: every process is ended in good order (SIGTERM) and started again, one after the other, while a task is trained by
sentinels (`test_sentinels.py`). Nothing is lost or doubled, each ends well, and nobody waits out a session for its seats."""

import asyncio
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from olearning.planes import Processes
from streams.processor import Stop
from tests.integration.test_sentinels import DEVICES, Watch, check, fleet, roles, submitter

SESSION = 60_000
"""ms. Whose seats are taken in less than half of it has left its group, and was not missed."""


async def run(bootstrap: str, folder: Path) -> tuple[Watch, dict[str, float]]:
    namespace = f"rolling-{secrets.token_hex(4)}"
    said: list[str] = []
    plane = Processes(bootstrap, folder, said.append, SESSION, 0.5)
    watch, took = Watch(namespace), {}
    devices: asyncio.Task[Stop] | None = None

    def seats(name: str) -> set[tuple[str, int]]:
        """What a process holds, with the tokens."""
        held = {f"shard {i}": s for i, s in enumerate(watch.zone.state.shards)}
        held |= {"zone": watch.zone.state.leader, "globe": watch.globe.state.leader}
        return {(what, h.token) for what, h in held.items() if h.holder == name}

    async def until(what: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, f"not in time: {what}, in round {watch.round()}; took: {took}; said: {said}"
            assert devices
            assert not devices.done(), devices.result().reason
            await asyncio.sleep(0.01)

    async def restart(name: str, last: int) -> int:
        """End it in the next round, with all its slots given, and await its successors: that round."""
        await until("a new round", lambda: last < watch.round()[0] and watch.round()[1] == DEVICES)
        last, before, child, began = watch.round()[0], seats(name), plane.children[name], time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 60) == 0, said
        await until(f"what {name} held is taken", lambda: not before & seats(name))
        took[f"{name}, {len(before)} seats"] = time.monotonic() - began
        await until(f"{name} is started again", lambda: plane.children[name] is not child)
        return last

    try:
        await plane.start(roles(namespace))
        watching = asyncio.create_task(plane.host(lambda life: watch))
        devices = asyncio.create_task(plane.host(lambda life: fleet(namespace, life)))
        submitted = await plane.host(lambda life: submitter(namespace, life))
        assert submitted.ok, submitted.reason
        last = 0
        for name in list(plane.children):
            last = await restart(name, last)
        await asyncio.wait_for(watching, 200)
        assert watching.result().ok, watching.result().reason
    finally:
        if devices:
            devices.cancel()
            await asyncio.wait({devices})
        await plane.stop()
    return watch, took


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_a_rolling_restart_loses_nothing_and_waits_for_nobody(broker: str, tmp_path: Path) -> None:
    watch, took = asyncio.run(run(broker, tmp_path))
    for name, seconds in took.items():
        print(f"{name}: {seconds:.1f} s")
    check(watch)
    assert sum("0 seats" not in name for name in took) >= 3, f"hardly anybody held anything: {took}"
    assert max(took.values()) < SESSION / 2000, took
