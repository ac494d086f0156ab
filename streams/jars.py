"""What a broker of one's own is run from: Java, and Kafka's jars, which Maven brings into the user's cache, once."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

VERSION = "4.3.1"
JAVA = 17
_POM = """<project><modelVersion>4.0.0</modelVersion><groupId>olearning</groupId><artifactId>jars</artifactId>
<version>1</version><packaging>pom</packaging><dependencies>{}</dependencies></project>"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
_KAFKA = (f"org.apache.kafka:kafka_2.13:{VERSION}", "org.slf4j:slf4j-simple:1.7.36")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class BrokerError(Exception):
    """There is no broker, and the text says what to do about it."""


def find_java() -> str:
    """The command of a Java that is new enough. Raises `BrokerError`."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    if not java:
        raise BrokerError(f"no java found: install a Java runtime, version {JAVA} or newer, or set JAVA_HOME")
    says = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', says)
    if not found or int(found[1]) < JAVA:
        version = found[1] if found else "of an unknown version"
        raise BrokerError(f"{java} is Java {version}, Kafka {VERSION} needs {JAVA} or newer: install that one")
    return java


def jars() -> Path:
    """The folder of Kafka's jars, in the user's cache; Maven brings them there the first time."""
    return from_maven(f"kafka-{VERSION}", *_KAFKA)


def from_maven(name: str, *artifacts: str) -> Path:
    """The folder of that name in the user's cache, with these artifacts (group:artifact:version) and what they need. Raises `BrokerError`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "olearning"
    kept = cache / name
    if kept.exists():
        return kept
    mvn = shutil.which("mvn")
    if not mvn:
        raise BrokerError(f"{name} is not in {cache} and no mvn found: install Maven, it is needed once")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        pom, new = Path(work, "pom.xml"), Path(work, "jars")
        pom.write_text(_POM.format("".join(_DEPENDENCY.format(*a.split(":")) for a in artifacts)))
        command = [mvn, "-B", "-q", "-f", str(pom), _COPY, f"-DoutputDirectory={new}", "-DincludeScope=runtime"]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ran.returncode:
            told = "\n".join((ran.stdout + ran.stderr).strip().splitlines()[:5])
            raise BrokerError(f"Maven could not fetch {name}; is this machine offline?\n{told}")
        try:
            new.rename(kept)  # all or nothing
        except OSError:  # somebody was quicker
            if not kept.exists():
                raise
    return kept
