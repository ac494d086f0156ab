"""Task files: TOML, checked before anything is sent."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olearning.errors import USAGE, Trouble
from schemas.task import BadTask, TaskSpec, parse


def parse_task(file: Path | str | Mapping[str, Any]) -> TaskSpec:
    """The task in a file, or what one would say, as a dict. Raises `Trouble` that names file, place and what to change."""
    tree, where = (dict(file), "the task") if isinstance(file, Mapping) else (read_toml(Path(file)), str(file))
    try:
        return parse(tree)
    except BadTask as e:
        raise Trouble(f"{where}: {e}", USAGE) from None


def read_toml(path: Path) -> dict[str, Any]:
    """What a file of settings says. Raises `Trouble` for one that cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise Trouble(f"cannot read {path}: {e.strerror}", USAGE) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise Trouble(f"{path} is not TOML: {e}", USAGE) from None
