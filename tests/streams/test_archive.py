"""The class archive of brokers of one's own: made once for each Java, and never in the way."""

import os
from pathlib import Path

import pytest

from streams import archive


@pytest.fixture
def java(tmp_path: Path) -> str:
    (tmp_path / "java").write_text("one Java")
    return str(tmp_path / "java")


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    (tmp_path / "cache" / "kafka-1").mkdir(parents=True)
    return tmp_path / "cache" / "kafka-1"


def test_it_is_made_once_for_each_java(java: str, jars: Path) -> None:
    made: list[Path] = []

    def make(to: Path) -> None:
        made.append(to)
        to.write_text("classes")

    first = archive.options(java, jars, make)
    assert archive.options(java, jars, make) == first
    (there,) = jars.parent.glob("*.jsa")
    assert first == [f"-XX:SharedArchiveFile={there}"]
    assert there.read_text() == "classes"
    os.utime(java, (1, 1))  # another Java is there now
    assert archive.options(java, jars, make) != first
    assert len(made) == 2
    assert not [x for x in made if x.parent.exists()], "nothing is left"


def test_a_java_that_makes_none_is_asked_once(java: str, jars: Path) -> None:
    asked: list[Path] = []
    assert archive.options(java, jars, asked.append) == []
    assert archive.options(java, jars, asked.append) == []
    assert len(asked) == 1


def test_what_goes_wrong_in_the_making_is_tried_again_and_in_nobody_s_way(java: str, jars: Path) -> None:
    def full(to: Path) -> None:
        to.write_text("half")
        raise OSError("the disk is full")

    assert archive.options(java, jars, full) == []
    assert list(jars.parent.iterdir()) == [jars]
    assert archive.options(java, jars, lambda to: to.write_text("classes"))  # type: ignore[arg-type, func-returns-value]
