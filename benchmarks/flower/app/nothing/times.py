"""When what happened, one JSON line each, in a file that all processes of a run append to."""

import json
import time


def note(path: str, what: str, round: int, at: float | None = None) -> None:
    with open(path, "a") as file:
        file.write(json.dumps({"what": what, "round": round, "at": at or time.time()}) + "\n")
