"""A Kafka broker of one's own in Docker, for where Java is missing: the same broker as the local one, from an image of Apache Kafka."""

import os
import secrets
import shlex
import shutil
import subprocess
from pathlib import Path

from streams.broker import await_ready, commands, free_port, settings
from streams.jars import VERSION, BrokerError

IMAGE = "OLEARNING_BROKER_IMAGE"
"""Names another image than apache/kafka; it needs `java` on the path and Kafka's jars in `JARS`, as that one has."""
JARS = "/opt/kafka/libs"
_HOST, _CONTROLLER, _FOLDER = "127.0.0.1", 9093, "/broker"
_SHELL = """set -f
if [ ! -e {folder}/data/meta.properties ]; then {prepare} || exit 1; fi
exec 3<&0
{serve} & broker=$!
(cat <&3 >/dev/null; kill $broker) &
wait $broker
"""
"""Ends with the broker, and ends the broker when its standard input ends: that is with us, however we end."""


def image() -> str:
    return os.environ.get(IMAGE) or f"apache/kafka:{VERSION}"


class DockerBroker:
    """One broker in a container, with its data and its log in `folder`, on a free port; a restart keeps port and data."""

    def __init__(self, folder: Path):
        self.folder, self.port = Path(folder).resolve(), 0
        self.image = image()
        self._docker = "docker"
        self._name = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"{_HOST}:{self.port}"

    def start(self) -> str:
        """Start, wait until it is ready, and give the bootstrap servers; the first time, Docker pulls the image. Raises `BrokerError`."""
        self._docker = shutil.which("docker") or ""
        if not self._docker:
            raise BrokerError("no docker found: install Docker")
        self._engine("no Docker engine answers ({}): start Docker, or name its address in DOCKER_HOST", "version")
        try:
            self._engine("", "image", "inspect", self.image)
        except BrokerError:
            self._engine(
                f"{self.image} can't be pulled ({{}}): name an image that is there in {IMAGE}", "pull", self.image
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = [self.port] if self.port else [free_port() for _ in range(5)]
        for i, self.port in enumerate(ports):
            self._run(self.port)
            try:
                await_ready(self.bootstrap, self._lives, self._tail)
                return self.bootstrap
            except BaseException as e:
                self.stop()
                taken = "already allocated" in self._tail() or "already in use" in self._tail()
                if not (isinstance(e, BrokerError) and taken) or i == len(ports) - 1:
                    self.port = 0 if len(ports) > 1 else self.port
                    raise
        raise AssertionError("there is at least one port")

    def stop(self) -> None:
        """Stop in good order; it may be started again, with its data and on its port."""
        process, self._process = self._process, None
        if not process:
            return
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            subprocess.run([self._docker, "kill", self._name], capture_output=True)
            process.kill()
            process.wait()

    def _run(self, port: int) -> None:
        said = settings(port, _CONTROLLER, f"{_FOLDER}/data", _HOST, listen="0.0.0.0")
        (self.folder / "server.properties").write_text(said)
        prepare, serve = map(shlex.join, commands("java", JARS, f"{_FOLDER}/server.properties"))
        script = _SHELL.format(folder=_FOLDER, prepare=prepare, serve=serve)
        self._name = f"olearning-broker-{secrets.token_hex(4)}"
        # As us, so that what it writes is ours.
        command = [
            *(self._docker, "run", "--interactive", "--rm", "--name", self._name, "--init"),
            *("--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{self.folder}:{_FOLDER}"),
            *("--publish", f"{_HOST}:{port}:{port}", "--entrypoint", "sh", self.image, "-c", script),
        ]
        with (self.folder / "broker.log").open("wb") as log:
            # A session of its own: Ctrl-C in the terminal is for us, and we stop the broker.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    def _engine(self, complaint: str, *words: str) -> None:
        done = subprocess.run([self._docker, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise BrokerError(complaint.format((done.stderr.strip().splitlines() or ["it does not say why"])[-1]))

    def _lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _tail(self) -> str:
        lines = (self.folder / "broker.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:]) or "(its log is empty)"
