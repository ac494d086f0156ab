"""Flower's environment, made when it is first asked for: `.venv-flower` beside `.venv`, from the hashes in `locks/flower.txt`."""

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.plane import Failed

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "locks" / "flower.txt"
FOLDER = ROOT / ".venv-flower"


def binaries() -> Path:
    """The folder of its programs; made if need be. Raises `Failed`."""
    if not LOCK.exists():
        raise Failed(f"Flower runs from a checkout of this project only: there is no {LOCK.name} in {LOCK.parent}")
    wanted, ready = hashlib.sha256(LOCK.read_bytes()).hexdigest(), FOLDER / ".ready"
    if not ready.exists() or ready.read_text() != wanted:
        print(f"making Flower's environment in {FOLDER.name} from {LOCK.name} (200 MB, once)", file=sys.stderr)
        uv, python = Path(sys.executable).with_name("uv"), FOLDER / "bin" / "python"
        _run([str(uv), "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(FOLDER)])
        # Compiled: it starts a process for each message, and would else compile itself each time where Python may not write.
        how = ("--quiet", "--compile-bytecode", "--require-hashes")
        _run([str(uv), "pip", "sync", *how, "--python", str(python), str(LOCK)])
        ready.write_text(wanted)
    return FOLDER / "bin"


def version() -> str:
    """Flower's, as locked."""
    return next(x.split("==")[1].split()[0] for x in LOCK.read_text().splitlines() if x.startswith("flwr=="))


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise Failed(f"{command[0]} is not there: `make env` installs it") from None
    except subprocess.CalledProcessError as e:
        raise Failed(
            f"Flower's environment could not be made, which needs a package index: {e.stderr.strip()[-500:]}"
        ) from None
