"""The peer's part that runs here: its environment's refusals, and what its notes come to. Flower itself is not run."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.flower import environment, peer
from benchmarks.plane import Failed


def test_the_lock_names_flower() -> None:
    assert environment.version().split(".")[0] == "1"


def test_without_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "LOCK", tmp_path / "flower.txt")
    with pytest.raises(Failed, match="from a checkout"):
        environment.binaries()


def test_without_a_network_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def no_network(command: list[str], **more: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="dns error")

    monkeypatch.setattr(environment, "FOLDER", tmp_path / "venv")
    monkeypatch.setattr(subprocess, "run", no_network)
    with pytest.raises(Failed, match=r"needs a package index: dns error"):
        environment.binaries()
    assert "making Flower's environment" in capsys.readouterr().err
    assert not (tmp_path / "venv" / ".ready").exists()  # so the next attempt makes it


def test_an_environment_of_another_lock_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[list[str]] = []
    folder = tmp_path / "venv"
    folder.mkdir()
    (folder / ".ready").write_text("another")
    monkeypatch.setattr(environment, "FOLDER", folder)
    monkeypatch.setattr(subprocess, "run", lambda command, **more: ran.append(command))
    assert environment.binaries() == folder / "bin"
    assert [c[1] for c in ran] == ["venv", "pip"]
    assert "--require-hashes" in ran[1]
    environment.binaries()
    assert len(ran) == 2


def test_a_run_that_stands_still_is_given_up_with_the_hubs_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(peer, "binaries", lambda: tmp_path)
    monkeypatch.setattr(peer.subprocess, "run", lambda *args, **more: done)
    monkeypatch.setattr(peer, "STANDING", 0.1)
    (tmp_path / "hub.log").write_text("database is locked")
    (tmp_path / "times.jsonl").write_text('{"what": "begin", "round": 1, "at": 1.0}\n')
    with pytest.raises(peer.GaveUp, match="database is locked"):
        peer._run(tmp_path, "hub", {}, 10, 5, 4)


def test_a_round_is_counted_from_the_first_reply_to_the_next_model() -> None:
    notes = []
    for n in (1, 2, 3, 4):
        at = 100.0 * n

        def note(what: str, after: float, n: int = n, at: float = at) -> None:
            notes.append({"what": what, "round": n, "at": at + after})

        note("begin", 0)
        for client in (0, 1):
            note("process", 2 + client)
            note("model", 5 + client)
            note("reply", 6 + client)
        note("received", 9)
        note("end", 10)
    got = peer._read(notes, 4)
    assert got.seconds == 99  # from 206 to 305, and so on; the first round and the last are left out
    assert got.settings["rounds"] == 2
    assert got.settings["made_of"] == {
        "round_to_round": 100,
        "begin_to_first_process": 2,
        "first_to_last_process": 1,
        "process_to_model": 3,
        "last_reply_to_all_received": 2,
        "aggregate": 1,
    }
