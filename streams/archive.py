"""A class archive for brokers of one's own: Java keeps in it what it made of Kafka's classes, and a broker is up in about half the time.

It lies beside the jars in the user's cache, one for each Java, and is made once, of a broker that starts and stops again, as the archive
in Apache's own image of Kafka is. Java looks by itself whether an archive is of this Java and these jars, and goes without one that is not.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from schemas.wire import checksum


def options(java: str, jars: Path, make: Callable[[Path], None]) -> list[str]:
    """By which Java reads the archive. If there is none yet, `make` writes it to a path: where it raises `OSError`, Java goes without this
    time; where it writes nothing, this Java cannot, and goes without from then on."""
    try:
        program = Path(java).resolve()
        this = checksum(f"{program} {program.stat().st_mtime_ns}".encode())
        archive = jars.with_name(f"{jars.name}-{this:016x}.jsa")
        if not archive.exists():
            with tempfile.TemporaryDirectory(dir=jars.parent) as work:
                new = Path(work, archive.name)
                make(new)
                new.touch()
                new.rename(archive)
        return [f"-XX:SharedArchiveFile={archive}"] if archive.stat().st_size else []
    except OSError:
        return []
