"""A Kafka broker of one's own: real Apache Kafka, for tests, for the demo and for a laptop. Needs Java and, once, Maven.

`LocalBroker` lives as long as the process that started it: a watchdog stops it even if that one is killed. The detached
functions leave it running, with its whereabouts in the folder, for `olearning broker start|stop|status`. A folder keeps
its data from one start to the next.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams import archive
from streams.jars import BrokerError, find_java, jars

_HOST = "127.0.0.1"
_CLUSTER = "4L6g3nShTxeMCtKxx86swQ"
_SETTINGS = """process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{listen}:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={insync}
unclean.leader.election.enable=false
leader.imbalance.check.interval.seconds=10
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=5
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={insync}
transaction.state.log.num.partitions=5
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms={session}
controller.quorum.fetch.timeout.ms={session}
"""
PATIENCE = 120.0
"""Seconds a broker may take until it answers: 4 where a core is idle, a minute and more where it mends its logs on a busy one."""
# Blocks until its parent is gone, then kills the broker, if that process id still is the broker.
_WATCH = """read _
args=$(tr '\\0' ' ' < /proc/$1/cmdline 2>/dev/null || ps -o args= -p $1)
case "$args" in *"$2"*) kill -9 $1;; esac"""


def settings(
    port: int, controller: int, data: str, host: str = _HOST, listen: str = _HOST, node: int = 1, voters: str = ""
) -> str:
    """The broker's server.properties: all brokers of one's own have these, wherever they run.

    `voters` names the controllers of a cluster ("1@host:port,2@…"), of which this is number `node`; "": it is alone.
    """
    replicas = min(3, voters.count("@") or 1)
    return _SETTINGS.format(
        host=host,
        listen=listen,
        port=port,
        controller=controller,
        data=data,
        node=node,
        voters=voters or f"{node}@{_HOST}:{controller}",
        replicas=replicas,
        insync=max(1, replicas - 1),
        session=3000 if replicas == 1 else 6000,  # several on one machine take time from each other
    )


def commands(java: str, jars: str, properties: str, *options: str) -> tuple[list[str], list[str]]:
    """What prepares the storage, once, and what is the broker. `options` are Java's."""
    command = [
        java,
        *options,
        "-Xmx512m",
        "-XX:+UseParallelGC",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{jars}/*",
    ]
    brief = [java, "-XX:TieredStopAtLevel=1", *command[1:]]  # for a second: nothing is worth compiling well
    prepare = [*brief, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", properties]
    return prepare, [*command, "kafka.Kafka", properties]


class _PortTaken(BrokerError):
    pass


@dataclass(frozen=True)
class Member:
    """A broker's place in a cluster: its number, the port of its controller, and all controllers ("1@host:port,2@…")."""

    node: int
    controller: int
    voters: str


class LocalBroker:
    """One broker with its data and its log in `folder`, on a free port if none is asked for. Alone, or a member of a cluster."""

    def __init__(
        self, folder: Path, port: int | None = None, member: Member | None = None, options: Sequence[str] | None = None
    ):
        """`options`: Java's, instead of the archive by which it starts faster."""
        self.folder, self.port, self.member, self.options = Path(folder).resolve(), port, member, options
        self._asked = port is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The Java process, if it was started."""
        return self._process.pid if self._process else None

    def start(self) -> str:
        """Start, wait until it is ready, and give the bootstrap servers. Raises `BrokerError`."""
        self._process, self.port = _launch(self.folder, self.port, self._asked, self.member, self.options)
        self._asked = True  # a restart keeps its address
        settings = str(self.folder / "server.properties")
        self._watchdog = subprocess.Popen(
            ["sh", "-c", _WATCH, "watch", str(self._process.pid), settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _await_ready(self._process, self.folder, self.bootstrap)
        except BaseException:
            self.stop()
            raise
        return self.bootstrap

    def stop(self, patience: float = 10) -> None:
        """Stop in good order, or after so many seconds at once; it may be started again, with its data and on its port."""
        process, self._process = self._process, None
        if process:
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        watchdog, self._watchdog = self._watchdog, None
        if watchdog:
            watchdog.communicate()

    def kill(self) -> None:
        """SIGKILL; it may be started again."""
        if self._process:
            self._process.kill()
        self.stop()

    def __enter__(self) -> "LocalBroker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# ------------------------------------------------------------------ a broker that stays


def start_detached(folder: Path, port: int | None = None) -> str:
    """Start a broker that outlives this process (or find the one that runs): its bootstrap servers."""
    folder = Path(folder).resolve()
    if running := status(folder):
        return str(running["bootstrap"])
    process, port = _launch(folder, port, port is not None)
    bootstrap = f"{_HOST}:{port}"
    state = {"pid": process.pid, "port": port, "bootstrap": bootstrap}
    (folder / "broker.json").write_text(json.dumps(state))
    try:
        _await_ready(process, folder, bootstrap)
    except BaseException:
        process.kill()
        process.wait()
        (folder / "broker.json").unlink()
        raise
    return bootstrap


def stop_detached(folder: Path) -> bool:
    """Stop the broker of that folder; False if none runs."""
    folder = Path(folder).resolve()
    running = status(folder)
    (folder / "broker.json").unlink(missing_ok=True)
    if not running:
        return False
    for sign, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        os.kill(running["pid"], sign)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not _is_ours(running["pid"], folder):
                return True
            time.sleep(0.05)
    raise BrokerError(f"the broker does not stop: kill process {running['pid']} yourself")


def status(folder: Path) -> dict[str, Any] | None:
    """Process id, port and bootstrap servers of the broker that runs detached in that folder, if one does."""
    folder = Path(folder).resolve()
    try:
        state: dict[str, Any] = json.loads((folder / "broker.json").read_text())
        return state if _is_ours(state["pid"], folder) else None
    except (OSError, ValueError, KeyError):
        return None


def _is_ours(pid: int, folder: Path) -> bool:
    """Is that process the broker of this folder? A process id may be another's by now, and a zombie is nobody."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return False
        line = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True).stdout
    return str(folder / "server.properties") in line


# ------------------------------------------------------------------ starting one


def _launch(
    folder: Path,
    port: int | None,
    asked: bool,
    member: Member | None = None,
    options: Sequence[str] | None = None,
) -> tuple["subprocess.Popen[bytes]", int]:
    """The process and its port; not ready yet."""
    java, kafka = find_java(), jars()
    if options is None:
        options = archive.options(java, kafka, _archive)
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(5):
        chosen, controller = port if asked and port else free_port(), member.controller if member else free_port()
        if asked and not _is_free(chosen):
            raise BrokerError(f"port {chosen} is taken: stop what listens there, or ask for another port")
        place = (member.node, member.voters) if member else (1, "")
        process = _spawn(
            java,
            kafka,
            folder,
            settings(chosen, controller, (folder / "data").as_posix(), node=place[0], voters=place[1]),
            options,
        )
        try:
            _await_port(process, folder, chosen)
        except _PortTaken:  # somebody was quicker: other ports
            continue
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process, chosen
    raise BrokerError("no free port found in five attempts: is something using them all up?")


def _archive(to: Path) -> None:
    """Have a broker leave its class archive."""
    broker = LocalBroker(to.parent / "broker", options=[f"-XX:ArchiveClassesAtExit={to}"])
    try:
        broker.start()
        broker.stop(patience=60)  # it writes the archive as it ends
    except BrokerError as e:
        raise OSError(str(e)) from e
    finally:
        broker.kill()


def _spawn(java: str, kafka: Path, folder: Path, said: str, options: Sequence[str]) -> "subprocess.Popen[bytes]":
    properties, data = folder / "server.properties", folder / "data"
    properties.write_text(said)
    prepare, serve = commands(java, str(kafka), str(properties), *options)
    with (folder / "broker.log").open("wb") as log:
        if not (data / "meta.properties").exists():
            done = subprocess.run(prepare, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            if done.returncode:
                raise BrokerError(f"the broker's storage could not be prepared:\n{_tail(folder)}")
        # A session of its own: Ctrl-C in the terminal is for us, and we stop the broker.
        return subprocess.Popen(serve, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _await_port(process: "subprocess.Popen[bytes]", folder: Path, port: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            tail = _tail(folder)
            taken = "already in use" in tail or "BindException" in tail
            raise (_PortTaken if taken else BrokerError)(f"the broker died at its start:\n{tail}")
        with socket.socket() as s:
            s.settimeout(1)
            if s.connect_ex((_HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise BrokerError(f"the broker does not listen after {PATIENCE:.0f} s:\n{_tail(folder)}")


def _await_ready(process: "subprocess.Popen[bytes]", folder: Path, bootstrap: str) -> None:
    await_ready(bootstrap, lambda: process.poll() is None, lambda: _tail(folder))


def await_ready(bootstrap: str, alive: Callable[[], bool], log: Callable[[], str]) -> None:
    """Wait until the broker answers. Raises `BrokerError`, with its log, if it does not live to do so in `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    # A thread, for an event loop may be running in this one.
    with ThreadPoolExecutor(1) as thread:
        while not thread.submit(lambda: asyncio.run(_answers(bootstrap))).result():
            if not alive():
                raise BrokerError(f"the broker died at its start:\n{log()}")
            if time.monotonic() > end:
                raise BrokerError(f"the broker does not answer after {PATIENCE:.0f} s:\n{log()}")
            time.sleep(0.1)


async def _answers(bootstrap: str) -> bool:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await client.start()
        return bool((await client.describe_cluster())["brokers"])
    except (TimeoutError, KafkaError, OSError):
        return False
    finally:
        await client.close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind((_HOST, 0))
        return int(s.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a stopped broker's lingering connections don't matter
        try:
            s.bind((_HOST, port))
        except OSError:
            return False
        return True


def _tail(folder: Path) -> str:
    lines = (folder / "broker.log").read_text(errors="replace").splitlines()
    return "\n".join(lines[-15:]) or "(its log is empty)"
