"""Raw results: a JSON line for each run, in `raw.jsonl`. A run that is there is not done again, so a long experiment goes on where it ended."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Settings = Mapping[str, Any]
"""What makes a run the run that it is, as JSON has it; its seed among them."""
Row = dict[str, Any]
"""A line: the settings, `commit` of the code that ran, `took_s`, and what came out as `result`."""


class Runs:
    """The runs in a folder. Raises `ValueError` for a file that holds something else."""

    def __init__(self, folder: Path, commit: str):
        self.file, self.commit = folder / "raw.jsonl", commit
        self.rows: dict[str, Row] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for n, text in enumerate(self.file.read_text().splitlines() if self.file.exists() else (), start=1):
            try:
                row = json.loads(text)
                self.rows[_key(row["settings"])] = row
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self.file}, line {n}, is no run; remove the line, or write to another folder"
                ) from None

    def of(self, settings: Settings, work: Callable[[], Any]) -> Any:
        """The result of the run with these settings: from the file, or else by `work`, and then it is in the file."""
        key = _key(settings)
        if key not in self.rows:
            began = time.perf_counter()
            result = json.loads(json.dumps(work()))  # as a later look at the file will see it
            took = round(time.perf_counter() - began, 2)
            self.rows[key] = {"settings": dict(settings), "commit": self.commit, "took_s": took, "result": result}
            with self.file.open("a") as f:
                f.write(json.dumps(self.rows[key]) + "\n")
        return self.rows[key]["result"]


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)
