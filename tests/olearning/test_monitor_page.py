"""The live page in a real browser, over a plane in memory: what it shows is what the plane does, at both widths, by keyboard, from this machine alone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESKTOP, PHONE = (1280, 900), (390, 844)
PROMISE = "OLEARNING_TEST_CHROMIUM"
WAIT_MS = 45_000
"""A machine under load may take so long; else it is a second or two."""
pytestmark = [pytest.mark.program, pytest.mark.xdist_group("page")]  # one browser, one plane


def chromium() -> str:
    """Where it is. Promised and missing is a failure; else the test is left out, in words."""
    if promised := os.environ.get(PROMISE):
        assert shutil.which(promised), f"{PROMISE}={promised} promises a Chromium, and there is none"
        return promised
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip(f"no Chromium here: install Debian's package chromium, or say where one is by {PROMISE}")
    return found


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield browser
        browser.close()


class Served:
    """The page of `tests.olearning.served`, in a process of its own."""

    def __init__(self, *words: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://localhost:{self.port}/"
        command = [sys.executable, "-m", "tests.olearning.served", str(self.port), "--tasks", "2", *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def served(browser):
    s = Served()
    yield s
    s.process.communicate(timeout=20)  # its input ends
    assert s.process.returncode == 0


@pytest.fixture
def locked(browser, tmp_path: Path):
    """One that asks for a password."""
    file = tmp_path / "who"
    file.write_text("ann:correct horse\n")
    s = Served("--tasks", "1", "--password-file", str(file))
    yield s
    s.process.communicate(timeout=20)
    assert s.process.returncode == 0


class Looked:
    """A page that was opened, and what went wrong in it."""

    def __init__(
        self, browser, served: Served, size: tuple[int, int], query: str = "", login: dict[str, str] | None = None
    ):
        viewport = dict(zip(("width", "height"), size, strict=True))
        self.context = browser.new_context(viewport=viewport, http_credentials=login)
        for _ in range(3):  # the browser gives up what it loads when a network of this machine comes or goes
            self.page, self.wrong, self.outside = self.context.new_page(), [], []
            self.page.set_default_timeout(WAIT_MS)
            self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
            self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
            self.page.on("request", lambda r: self.outside.append(r.url))
            self.page.goto(served.url + query)
            if not any("ERR_NETWORK_CHANGED" in w for w in self.wrong):
                break
        self.page.wait_for_selector(".panels")

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).first.inner_text().split())

    def until(self, selector: str, pattern: str) -> str:
        """Wait for an element with text like that."""
        found = self.page.locator(selector).filter(has_text=re.compile(pattern)).first
        found.wait_for(state="visible", timeout=WAIT_MS)
        return " ".join(found.inner_text().split())

    def close(self) -> None:
        self.context.close()
        elsewhere = [u for u in self.outside if not re.match(r"(http|ws)://localhost:|data:|blob:", u)]
        assert elsewhere == [], "it asks another machine"
        assert self.wrong == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_shows_what_the_plane_does(browser, served, size):
    look = Looked(browser, served, size)
    look.until(".tile", r"Tasks\s*2 running")
    look.until(".tile", r"Every offset\s*✓\s*adds up")
    look.until(".tile", r"Shards\s*✓\s*8 OK\s*of 8 in 2 zones")
    look.until(".tile", r"Devices\s*\d+ training\s*of 16")
    look.until(".task", r"toy-0\s*acme")
    look.until(".zone", r"east\s*[☀☾]\s*\d\d:\d\d (day|night)\s*✓\s*OK")
    assert look.page.locator(".mark:visible").count() == 2
    # Figures move with the plane, without a new load of the page.
    offsets = [int(look.until(".tile", "accounted for").split("adds up")[1].split()[0].replace(",", ""))]
    look.page.wait_for_function(
        "was => +document.querySelector('.tiles').innerText.match(/([\\d,]+) accounted/)[1].replace(',', '') > was",
        arg=offsets[0],
    )
    width = look.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], "it must be scrolled sideways"
    for tab, words in (
        ("Zones", "agg-east-0"),
        ("Deltas", r"offsets = [\d,]+ counted"),
        ("Sharing", "toy-1"),
        ("Events", "opened"),
    ):
        look.page.get_by_role("tab", name=tab).click()
        look.until(".q-tab-panel", words)
        width = look.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1], f"{tab} must be scrolled sideways"
    look.close()


def test_a_long_namespace_pushes_nothing_out_of_a_phone_s_first_line(browser, served):
    look = Looked(browser, served, PHONE)
    look.until(".names .note", "led by")
    starts, ends = look.page.evaluate("""() => {
        document.querySelector('.names .note').textContent = 'demo-0123456789ab · led by global-of-all-of-it'
        const box = name => document.querySelector('.top ' + name).getBoundingClientRect()
        const parts = ['.mark-o', '.names', '.fresh', '.turn'].map(box)
        return [parts.map(b => b.top), parts.map(b => b.bottom)]
    }""")
    assert max(starts) < min(ends), "the first line has become two"
    look.close()


def test_all_of_it_can_be_reached_by_keyboard(browser, served):
    look = Looked(browser, served, DESKTOP)
    look.until(".task", "toy-0")
    page, focus = look.page, "document.activeElement.ariaLabel || document.activeElement.innerText || ''"
    page.keyboard.press("Tab")
    assert page.evaluate(focus) == "To the content"
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focus).strip())
        if reached[-1] == "Overview":
            break
    assert "Dark or light" in reached
    assert reached[-1] == "Overview"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    look.until(".q-tab-panel", "what it waits for")
    assert "tab=Tasks" in page.url
    button = page.get_by_role("button", name="toy-1")
    button.focus()
    page.keyboard.press("Enter")
    assert look.until(".detail h2", "toy-1") == "toy-1"
    assert "task=toy-1" in page.url
    charts = page.locator(".detail .chart[role=img]")
    labels = [charts.nth(n).get_attribute("aria-label") for n in range(charts.count())]
    assert [x.split(":")[0] for x in labels] == ["Loss by round", "Held-out data"]
    for role in ("main", "banner", "tablist"):
        assert page.get_by_role(role).count() == 1, role
    assert page.locator("[role=status]").count() == 1
    look.close()


def test_what_fails_is_said_at_once_and_a_hang_does_not_look_alive(browser, served):
    look = Looked(browser, served, PHONE)
    look.until(".light", "nothing to look at")
    served.say("break west")
    look.until(".tile", r"Every offset\s*✗\s*does not add up")
    look.until(".light", "1 to look at")
    look.until(".problems", "west: offsets do not add up: commits cover")
    served.say("refuse martian")
    look.until(".task", "zones mars are not known")
    served.say("freeze")
    look.until(".light", r"no answer from the log for \d+\ss")
    look.until(".live", "as of")
    served.say("thaw")
    look.until(".live", "live")
    served.process.send_signal(signal.SIGSTOP)  # the monitor itself stands still
    try:
        look.until(".stale", "No word from the monitor for")
        assert look.page.evaluate("document.body.classList.contains('is-stale')")
    finally:
        served.process.send_signal(signal.SIGCONT)
    look.page.wait_for_function("!document.body.classList.contains('is-stale')")
    look.close()


def test_with_the_password_it_is_live_and_without_it_there_is_nothing(browser, locked):
    live = "_nicegui_ws/socket.io/?EIO=4&transport="
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(locked.url + live + "polling", timeout=10)
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://localhost:{locked.port}/{live}websocket")
    with urllib.request.urlopen(locked.url + "healthz", timeout=10) as answer:
        assert answer.read() == b"ok\n"
    look = Looked(browser, locked, DESKTOP, login={"username": "ann", "password": "correct horse"})
    beat = int(look.text(".pulse"))
    look.page.wait_for_function(f"Number(document.querySelector('.pulse').innerText) > {beat + 1}", timeout=WAIT_MS)
    (cookie,) = look.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    with connect(
        f"ws://localhost:{locked.port}/{live}websocket",
        additional_headers={"Cookie": f"{cookie['name']}={cookie['value']}"},
    ) as opened:
        assert str(opened.recv()).startswith("0{")
    look.close()


def test_an_error_in_the_page_would_be_seen(browser, served):
    look = Looked(browser, served, DESKTOP)
    look.page.evaluate("fetch('http://127.0.0.2:1/').catch(() => console.error('seen'))")
    look.page.wait_for_timeout(500)
    with pytest.raises(AssertionError, match="it asks another machine"):
        look.close()
    look.outside.clear()
    with pytest.raises(AssertionError):
        look.close()


def test_where_chromium_is_promised_it_is_there_or_the_test_fails(monkeypatch):
    monkeypatch.setenv(PROMISE, "/nowhere/chromium")
    with pytest.raises(AssertionError, match="promises a Chromium"):
        chromium()
