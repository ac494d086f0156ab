"""Task files: TOML, checked before anything is sent."""

import tomllib
from pathlib import Path

from olearning.errors import USAGE, Trouble
from schemas.task import BadTask, TaskSpec, parse


def parse_task(path: Path) -> TaskSpec:
    """The task in a file. Raises `Trouble` that names file, place and what to change."""
    try:
        return parse(tomllib.loads(path.read_text()))
    except OSError as e:
        raise Trouble(f"cannot read {path}: {e.strerror}", USAGE) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise Trouble(f"{path} is not TOML: {e}", USAGE) from None
    except BadTask as e:
        raise Trouble(f"{path}: {e}", USAGE) from None
