"""Simulation: the same seed gives the same run, dropping what is read changes nothing, bad scenarios are refused in words."""

from pathlib import Path

import numpy as np
import pytest

from olearning.errors import Trouble
from olearning.outcome import lines
from olearning.roles import population
from olearning.scenario import Loaded, load
from olearning.simulating import simulate
from olearning.simulation import Simulation
from olearning.sweeper import Sweeper
from processors.quotas import working
from schemas.facts import Admitted
from schemas.messages import Registration
from schemas.sharing import SharingPlan, meets
from schemas.topics import parse, read, topic
from schemas.wire import checksum
from streams.ledger import Zone
from streams.processor import Answer, Follow, Record
from streams.reading import Reading
from tests.plane import LAYOUT, START, Arithmetic

TEXT = """
seed = {seed}
[zones]
east = {{ devices = 8, utc_offset = 2 }}
west = {{ devices = 8, utc_offset = -2 }}
[devices]
day_seconds = 60
travel = 0.3
drop = 0.1
interrupted = 0.2
resend = 0.2
[[tasks]]
task = "toy"
model = "arithmetic"
data = "none"
rounds = {{ demand = 4, minimum = 2, deadline_s = 8, lease_s = 4 }}
epochs = {{ count = 4, rounds = 3, deadline_s = 60 }}
"""


TASK = """
[[tasks]]
task = "d"
model = "linear"
data = "digits"
rounds.demand = 2
epochs = { count = 1, rounds = 1 }
"""


def loaded(folder: Path, seed: int = 1, text: str = TEXT) -> Loaded:
    file = folder / "scenario.toml"
    file.write_text(text.format(seed=seed))
    return load(file)


def scored(spec, vector) -> tuple[float, float, int]:
    loss = float(np.linalg.norm(vector))
    return 1 / (1 + loss), loss, 10


def simulated(folder: Path, seed: int = 1, text: str = TEXT) -> Simulation:
    made = Simulation(loaded(folder, seed, text), Arithmetic(), lambda spec, seed: (LAYOUT, START), scored)
    shares = list(made.run())
    assert shares == sorted(shares), "it never goes back"
    assert shares[-1] == 1.0
    return made


def test_the_same_seed_is_the_same_run_and_another_another(tmp_path):
    one, two, other = simulated(tmp_path), simulated(tmp_path), simulated(tmp_path, seed=2)
    results = [s.result.as_json() for s in (one, two, other)]
    for r in results:
        r.pop("seconds"), r.pop("updates_per_s")
    assert results[0] == results[1]
    assert results[0]["tasks"]["toy"]["model"] != results[2]["tasks"]["toy"]["model"]


def test_it_says_what_each_epoch_came_to(tmp_path):
    r = simulated(tmp_path).result
    assert [e.epoch for e in r.epochs] == [0, 1, 2, 3, 4]
    assert all(e.loss is not None for e in r.epochs)
    assert [e.at for e in r.epochs[1:]] == sorted(e.at for e in r.epochs[1:])
    assert r.why == {"toy": "all 4 epochs are done"}
    assert r.updates > 4 * 2 * 3 * 2
    assert "toy: 4 epochs; accuracy" in lines(r)[0]


def test_dropping_what_was_read_changes_nothing_and_frees_memory(tmp_path, monkeypatch):
    swept = simulated(tmp_path)
    monkeypatch.setattr(Sweeper, "sweep", lambda self: None)
    whole = simulated(tmp_path)
    assert swept.result.models == whole.result.models
    assert swept.result.updates == whole.result.updates

    def held(s: Simulation, what: str) -> int:
        spans = [
            s.memory.span(t, p)
            for t, logs in s.memory.topics.items()
            if parse(t).kind.what == what
            for p in range(len(logs))
        ]
        return sum(end - start for start, end in spans)

    for what in ("deltas", "partials", "registrations", "admissions", "receipts"):
        assert held(swept, what) < held(whole, what) / 2, what
    assert held(whole, "deltas") > 200


def test_at_the_finest_clock_too(tmp_path, monkeypatch):
    """20 ms between two looks: longer than the plane takes from a block to the fact that names it."""
    text = TEXT.replace("[devices]\nday_seconds = 60", "[clock]\ntick_ms = 1\n[devices]\nday_seconds = 10")
    text = text.replace("count = 4", "count = 2")
    swept = simulated(tmp_path, text=text)
    monkeypatch.setattr(Sweeper, "sweep", lambda self: None)
    assert simulated(tmp_path, text=text).result.models == swept.result.models


def test_it_ends_after_the_days_that_it_is_given(tmp_path):
    text = TEXT.replace("count = 4", "count = 4000").replace("[zones]", "days = 2\n[zones]")
    s = simulated(tmp_path, text=text)
    assert s.result.why == {"toy": ""}
    assert 120_000 <= s.result.virtual_ms < 150_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("devices = 8, utc_offset = 2", "devices = -1"), "devices"),
        (("day_seconds = 60", "day_second = 60"), "devices.day_second is not a setting; known here: day_seconds"),
        (("demand = 4", "demnd = 4"), "rounds.demnd is not a setting"),
        (("[[tasks]]", "[[tasks]]\ntask = 'x'"), "is not TOML"),
        (("east", "East"), "zone 'East'"),
        (("travel = 0.3", "travel = 2"), "travel"),
        (("seed = {seed}", f"seed = {2**63}"), "seed: expected a whole number <= 9223372036854775807"),
        (("[devices]", "[clock]\ntick_ms = 0\n[devices]"), "clock.tick_ms: expected a whole number >= 1"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused_in_words(tmp_path, change, words):
    with pytest.raises(Trouble, match=r"scenario\.toml") as e:
        loaded(tmp_path, text=TEXT.replace(*change))
    assert words in str(e.value)


def test_from_code_a_scenario_is_a_file_or_a_dict(tmp_path):
    task = {
        "task": "d",
        "model": "linear",
        "data": "digits",
        "rounds": {"demand": 2},
        "epochs": {"count": 1, "rounds": 1},
    }
    scenario = {"zones": {"east": {"devices": 3}}, "tasks": [task], "evaluate": False}
    (tmp_path / "s.toml").write_text("zones.east.devices = 3\nevaluate = false\n" + TASK)
    of_dict, of_file = simulate(scenario), simulate(tmp_path / "s.toml")
    assert of_dict.updates >= 2
    assert of_dict.models == of_file.models
    assert simulate(scenario, models=tmp_path / "models").models == of_dict.models
    with np.load(tmp_path / "models" / "d.npz") as file:
        shape = {name: file[name].shape for name in file.files}
        vector = np.concatenate([file[name].ravel() for name in file.files])
    assert shape == {"1.weight": (10, 64), "1.bias": (10,)}
    assert f"{checksum(vector.tobytes()):016x}" == of_dict.models["d"]
    with pytest.raises(Trouble, match=r"^the scenario: no day 'always' is known; known: nights, habits$"):
        simulate(scenario | {"devices": {"day": "always"}})


def test_a_zone_s_devices_may_live_in_several_places(tmp_path):
    """Each is what it would be in a zone of that name."""
    places = "utc_offset = {{ east = 2, west = -2 }}"
    text = TEXT.replace("travel = 0.3\n", "")
    one = text.replace("east = {{ devices = 8, utc_offset = 2 }}", "all = {{ devices = 16, " + places + " }}")
    one = one.replace("west = {{ devices = 8, utc_offset = -2 }}\n", "")
    apart, together = loaded(tmp_path, text=text), loaded(tmp_path, text=one)
    crowds = [population(z, apart.options(z, first)).devices() for z, first in (("east", 0), ("west", 8))]
    found = population("all", together.options("all", 0)).devices()
    assert [(d.id, d.number, d.nights) for d in found] == [(d.id, d.number, d.nights) for c in crowds for d in c]
    assert [d.learns(0).utc_offset_h for d in found] == [2.0] * 8 + [-2.0] * 8
    assert {d.zone for d in found} == {"all"}


class Watcher:
    """Folds a zone's ledger, and notes what devices say when they register."""

    name, membership, tick = "watcher", None, 1_000

    def __init__(self, zone: str):
        self.zone, self.reading = zone, Reading("sim", zone, Zone())
        self.said: dict[str, dict[str, float]] = {}
        self.slots: dict[str, set[str]] = {}
        self.most: dict[str, int] = {}
        self.policies: set[str] = set()

    def start(self, now: int):
        yield from self.reading.start()
        for what in ("registrations", "announcements"):
            yield from (Follow(topic("sim", self.zone, what).name, p, 0) for p in range(4))

    def handle(self, event, now: int):
        match event:
            case Record(topic=name) if name == self.reading.topic:
                got = yield from self.reading.record(event)
                if got and isinstance(got[0], Admitted) and not got[1]:
                    for s in got[0].slots:
                        self.slots.setdefault(s.task, set()).add(s.device)
                    for tenant, n in working(self.reading.state).items():
                        self.most[tenant] = max(n, self.most.get(tenant, 0))
            case Record():
                match read(event.topic, event.value, event.headers):
                    case Registration(device=device, abilities=abilities):
                        self.said[device] = abilities
                    case SharingPlan(policy=policy):
                        self.policies.add(policy)
            case Answer():
                yield from self.reading.answer(event) or ()


@pytest.mark.program
def test_tenants_share_phones_as_their_scenario_says():
    """`scenarios/tenants.toml`, with arithmetic for training: the policy, what labs needs of a phone, and the quota of acme."""
    found = load(Path(__file__).parents[2] / "scenarios" / "tenants.toml")
    watcher = Watcher("east")
    made = Simulation(found, Arithmetic(), lambda spec, seed: (LAYOUT, START), None, [watcher])
    for _ in made.run():
        pass
    assert watcher.policies == {"max-min"}
    assert {task: len(who) > 10 for task, who in watcher.slots.items()} == dict.fromkeys(
        ("acme-digits", "beta-digits", "labs-digits"), True
    )
    needs = next(s for s in found.specs if s.task == "labs-digits").needs.public
    assert all(meets(watcher.said[d], needs) for d in watcher.slots["labs-digits"])
    assert not all(meets(watcher.said[d], needs) for d in watcher.slots["beta-digits"])
    assert 5 < watcher.most["acme"] <= 20, "half of its quota of 40 is this zone's"
    assert made.globe.processor.globe.tenant("acme").weight == 2  # type: ignore[attr-defined]


def test_what_tenants_cannot_have_ends_the_simulation_in_words(tmp_path):
    text = TEXT.replace("[devices]", "[sharing]\npolicy = 'luck'\n[devices]", 1)
    made = Simulation(loaded(tmp_path, text=text), Arithmetic(), lambda spec, seed: (LAYOUT, START), scored)
    with pytest.raises(ValueError, match=r"the sharing policy is refused: no sharing policy 'luck' is known"):
        for _ in zip(made.run(), range(100), strict=False):
            pass
    text = TEXT.replace("[devices]", "[[tenants]]\ntenant = 'a'\n[[tenants]]\ntenant = 'a'\n[devices]", 1)
    with pytest.raises(Trouble, match="a tenant is named twice"):
        loaded(tmp_path, text=text)


def test_who_lives_in_several_places_does_not_travel(tmp_path):
    text = TEXT.replace("devices = 8, utc_offset = 2", "devices = 8, utc_offset = {{ a = 2, b = 3 }}")
    with pytest.raises(Trouble, match=r"devices of east live at several UTC offsets: set devices\.travel to 0"):
        loaded(tmp_path, text=text)


def test_days_must_have_a_length(tmp_path):
    text = TEXT.replace("day_seconds = 60\n", "").replace("[zones]", "days = 2\n[zones]")
    with pytest.raises(Trouble, match=r"days \(2\) need a length"):
        loaded(tmp_path, text=text)


def test_a_scenario_without_tasks_is_refused(tmp_path):
    with pytest.raises(Trouble, match="at least one zone and one task"):
        loaded(tmp_path, text="seed = {seed}\ntasks = []\n[zones]\na = {{ devices = 1 }}\n")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Trouble, match="cannot read"):
        load(tmp_path / "nothing.toml")


def test_a_task_that_is_refused_ends_the_simulation_in_words(tmp_path):
    """No word of it would come any more: it would go on for ever."""
    text = TEXT.replace("rounds = 3, deadline_s = 60", "rounds = 3, deadline_s = 60, zones = 3")
    made = Simulation(loaded(tmp_path, text=text), Arithmetic(), lambda spec, seed: (LAYOUT, START), scored)
    with pytest.raises(ValueError, match=r"toy is refused: epochs\.zones \(3\) is more than the 2 zones"):
        for _ in zip(made.run(), range(100), strict=False):
            pass
