"""The operators' commands and tables against a plane in memory: what they say, as text and as JSON, and their exit codes."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from device_sim.fleet import Manner
from olearning.commands.tenants import setting
from olearning.errors import FAILED, OK, USAGE
from olearning.places import nth, place_words, places
from olearning.view import View
from schemas.messages import CheckIn, TenantsReport
from schemas.sharing import Needs, Quota, Rule, SharingPlan, Tenant, Turn
from schemas.task import parse
from schemas.topics import DAY, GLOBAL, read, topic
from streams.ledger import Spent
from streams.memory import Memory
from streams.processor import send
from tests.olearning.watched import watch
from tests.plane import LAYOUT, NS, Plane, spec

BUSY = Manner(training=(9_000, 9_000), reaction=50, report=500)


def plane(**more: Any) -> Plane:
    made = Plane(Memory(seed=3), **more)
    made.memory.run(limit=3_000)
    return made


def checkin(p: Plane, zone: str, devices: int, **abilities: float) -> None:
    for n in range(devices):
        name = f"{zone}-{n}-{len(abilities)}"
        p.memory.append(send(topic(NS, zone, "checkins"), CheckIn(name, abilities), name))


# ------------------------------------------------------------------ setting


def test_a_tenant_is_set_and_the_verdict_said(command):
    p = plane(devices=0)
    code, out, errors = command(p.memory, "tenant", "set", "acme", "--weight", "2.5", "--tasks", "3", "--by", "ann")
    assert (code, errors) == (OK, "")
    assert out == "tenant acme: weight 2.5, 3 open tasks, devices at work without limit, bytes a day without limit\n"
    assert command(p.memory, "tenant", "set", "acme", "--devices", "40", "--bytes", "1000000")[0] == OK
    assert replace(p.globe().tenant("acme"), by="") == Tenant("acme", 2.5, Quota(3, 40, 1_000_000))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("acme",), "say what to set: --weight, --tasks, --devices or --bytes"),
        (("acme", "--weight", "0"), "above 0"),
        (("acme", "--weight", "nan"), "above 0"),
        (("acme", "--tasks", "-1"), "--tasks"),
        (("Acme!", "--tasks", "1"), "tenant"),
    ],
)
def test_what_no_record_can_say_is_wrong_usage(command, words, said):
    code, _, errors = command(plane(devices=0).memory, "tenant", "set", *words)
    assert code == USAGE
    assert said in errors


def test_the_policy_is_shown_set_and_refused(command):
    p = plane(devices=0)
    assert command(p.memory, "sharing") == (OK, "devices are shared by reward\n", "")
    assert command(p.memory, "sharing", "set", "reward", "--by", "ann") == (OK, "devices are shared by reward\n", "")
    assert command(p.memory, "sharing") == (OK, "devices are shared by reward, as ann said\n", "")
    code, out, _ = command(p.memory, "sharing", "--json")
    assert (code, json.loads(out)) == (OK, {"policy": "reward", "args": {}, "by": "ann"})
    code, out, _ = command(p.memory, "sharing", "set", "irs-tiers", "--arg", "tiers=4")
    assert (code, out) == (OK, "devices are shared by irs-tiers (tiers=4)\n")
    code, _, errors = command(p.memory, "sharing", "set", "lottery", "--arg", "tickets=4")
    assert code == FAILED
    assert errors.startswith("olearning: it stays as it was: no sharing policy 'lottery' is known here")
    assert command(p.memory, "sharing", "set", "Not A Name")[0] == USAGE
    assert command(p.memory, "sharing", "set", "reward", "--arg", "tickets")[0] == USAGE


def test_settings_of_a_policy_are_what_they_look_like():
    said = [setting(x)[1] for x in ("a=4", "a=0.5", "a=true", "a=x=y", "a=")]
    assert said == [4, 0.5, True, "x=y", ""]
    assert [type(x) for x in said[:3]] == [int, float, bool]


def test_a_task_is_kept_and_its_round_ended(command):
    p = plane(devices=0)
    p.submit(replace(spec(), silent_s=60.0))
    p.memory.run(limit=2_000)
    code, out, _ = command(p.memory, "task", "keep", "toy")
    assert (code, out) == (OK, "toy is kept: it is stopped unless something is said of it again within 60 s\n")
    code, out, _ = command(p.memory, "task", "end-round", "toy", "--zone", "west")
    assert (code, out) == (OK, "toy: round 1 in west ends now with what came\n")
    assert p.globe().tasks["toy"].enough == {"west": 1}
    code, _, errors = command(p.memory, "task", "end-round", "wine")
    assert (code, errors) == (FAILED, "olearning: there is no task wine; there: toy\n")


# ------------------------------------------------------------------ looking


def test_tenants_are_shown_with_what_they_have_of_what_they_may(command):
    p = plane(manner=BUSY)
    command(p.memory, "tenant", "set", "acme", "--tasks", "2", "--devices", "12", "--weight", "2")
    for task, tenant in (("toy", "acme"), ("more", "labs")):
        p.submit(replace(spec(task), tenant=tenant))
        p.memory.run(limit=1_000)
    p.memory.run(limit=4_000)
    code, out, _ = command(p.memory, "tenants", "--json")
    acme, labs = json.loads(out)
    assert code == OK
    assert acme == {
        "tenant": "acme", "weight": 2.0, "tasks": ["toy"], "most_tasks": 2, "devices": 12, "most_devices": 12,
        "bytes": 12 * 2 * 4 * sum(LAYOUT.sizes), "most_bytes": 0,
        "share": 2 / 3, "share_now": 0.5, "waits": {"toy": ["east", "west"]},
    }  # fmt: skip
    assert (labs["tenant"], labs["weight"], labs["tasks"], labs["most_tasks"]) == ("labs", 1.0, ["more"], 0)
    text = command(p.memory, "tenants")[1]
    assert "1/2" in text
    assert "12/12" in text
    assert "devices are shared by reward" in text


def test_the_view_and_the_metrics_say_the_same_of_tenants():
    p = plane(manner=BUSY)
    view = watch(p)
    p.submit(replace(spec(), tenant="acme"))
    p.memory.run(limit=8_000)
    records = p.memory.records(topic(NS, GLOBAL, "metrics").name)
    said = [m for r in records if isinstance(m := read(r.topic, r.value, r.headers), TenantsReport)][-1]
    (t,) = view.snapshot(view.now).tenants
    s = said.tenants["acme"]
    assert (t.weight, len(t.tasks), t.devices, t.bytes) == (s.weight, s.tasks, s.devices, s.bytes)
    assert t.devices == 12


def test_bytes_of_today_are_those_of_all_zones_and_of_no_other_day():
    p = plane(devices=0)
    view = watch(p)
    p.memory.run(limit=2_000)
    book, now = view.books["east"].reading.ledger, 5 * DAY + 7
    p.memory.append(send(topic(NS, GLOBAL, "tenants"), Tenant("acme", quota=Quota(bytes=100)), "acme"))
    p.memory.run(limit=1_000)
    book.state = replace(book.state, spent={"acme": Spent(day=5, bytes=70)})
    view.heard = now
    assert [t.bytes for t in view.snapshot(now).tenants] == [70]
    view.heard = now + DAY
    assert [t.bytes for t in view.snapshot(now + DAY).tenants] == [0]


def row(p: Plane, command: Any, task: str = "toy", zone: str = "east") -> dict[str, Any]:
    code, out, errors = command(p.memory, "queue", "--json")
    assert (code, errors) == (OK, "")
    return next(r for r in json.loads(out) if (r["task"], r["zone"]) == (task, zone))


def test_the_queue_says_how_many_of_how_many_and_since_when(command):
    p = plane(manner=BUSY)
    p.submit(replace(spec(demand=9, minimum=1, over_commit=1.2, deadline_s=50), tenant="acme"))
    p.memory.run(limit=7_000)
    r = row(p, command)
    assert (r["tenant"], r["round"], r["state"]) == ("acme", 1, "open")
    assert (r["slots"], r["places"], r["deltas"], r["demand"]) == (6, 11, 0, 9)
    assert (r["eligible"], r["seen"]) == (6, 6)
    assert r["why"] == "9 of 9 devices (6 training)"
    assert 0 < r["since"] < p.memory.now
    text = command(p.memory, "queue")[1]
    assert "6/11" in text
    assert "0/9" in text


def test_a_round_to_come_is_in_the_queue_too(command):
    p = plane(devices=0)
    for zone in p.zones:
        p.hosts[f"zone-{zone}"].crash()
    p.submit(spec())
    p.memory.run(limit=2_000)
    r = row(p, command)
    assert (r["round"], r["state"], r["slots"], r["why"]) == (1, "to come", 0, "zone-east to open round 1")


def test_what_is_over_is_not_in_the_queue(command):
    p = plane()
    p.submit(spec(epochs=1, rounds=1))
    assert p.memory.run(lambda: p.ended("toy"), 60_000)
    p.memory.run(limit=2_000)
    assert json.loads(command(p.memory, "queue", "--json")[1]) == []
    assert "nothing" in command(p.memory, "queue")[1]


def test_a_round_that_only_has_to_be_finalised_is_not_in_the_queue(command):
    p = plane(aggregators=0)
    p.submit(spec(deadline_s=5, minimum=1))
    p.memory.run(limit=8_000)
    assert {p.zone(z).tasks["toy"].state for z in p.zones} == {"closed"}
    assert json.loads(command(p.memory, "queue", "--json")[1]) == []


def test_the_queue_says_that_the_tenant_s_devices_are_all_at_work(command):
    p = plane(manner=BUSY)
    command(p.memory, "tenant", "set", "acme", "--devices", "12")
    p.submit(replace(spec(demand=9, minimum=1, deadline_s=50), tenant="acme"))
    p.memory.run(limit=4_000)
    why = "quota of tenant acme: its 6 devices at once in this zone are at work"
    assert row(p, command)["why"] == f"9 of 9 devices: {why}"


def test_the_queue_says_that_today_s_bytes_are_used(command):
    p = plane(manner=BUSY)
    cost = 2 * 4 * sum(LAYOUT.sizes)
    command(p.memory, "tenant", "set", "acme", "--bytes", str(9 * cost))
    p.submit(replace(spec(demand=9, minimum=1, deadline_s=50), tenant="acme"))
    p.memory.run(limit=4_000)
    west = row(p, command, zone="west")
    assert west["slots"] == 4, "the zone's part is 4.5"
    assert f"bytes a day in this zone are used, a device takes {cost}" in west["why"]
    (t,) = json.loads(command(p.memory, "tenants", "--json")[1])
    assert (t["bytes"], t["most_bytes"]) == (8 * cost, 9 * cost)


def test_the_queue_says_that_nobody_can_do_it_and_why(command):
    """The devices came after the task was admitted."""
    p = plane(devices=0)
    p.submit(replace(spec(), needs=Needs(public={"ram": 8.0, "os": 10.0})))
    p.memory.run(limit=1_000)
    checkin(p, "east", 3, ram=4.0, os=12.0)
    p.memory.run(limit=8_000)
    why = "6 of 6 devices: none of the 3 devices seen within a day meets its needs (3 have ram below 8)"
    assert row(p, command)["why"] == why
    assert "no fleet reports any here" in row(p, command, zone="west")["why"], "nobody was seen there"


def test_the_queue_says_with_whom_devices_are_shared_once_somebody_said_how(command):
    p = plane(manner=BUSY)
    for task in ("toy", "more"):
        p.submit(spec(task, demand=9, minimum=1, deadline_s=50))
    p.memory.run(limit=3_000)
    assert "shared" not in row(p, command)["why"]
    command(p.memory, "sharing", "set", "srsf")
    assert row(p, command)["why"].endswith(", shared by srsf with more")


def test_the_queue_says_the_place_in_the_plan_and_under_which_policy(command):
    p = plane(manner=BUSY)
    command(p.memory, "tenant", "set", "labs", "--devices", "2")
    for task, demand, tenant in (("toy", 9, "acme"), ("more", 20, "acme"), ("held", 7, "labs")):
        p.submit(replace(spec(task, demand=demand, minimum=1, deadline_s=50), tenant=tenant))
    p.memory.run(limit=3_000)
    assert row(p, command)["place"] == {"policy": "reward", "first": 0, "last": 0, "of": 0, "chosen": True}
    assert "devices choose, under reward" in command(p.memory, "queue")[1]
    command(p.memory, "sharing", "set", "srsf")
    p.memory.run(limit=2_000)
    asked = {t: row(p, command, t)["place"] for t in ("more", "toy")}
    assert {t: (x["first"], x["last"], x["of"], x["policy"]) for t, x in asked.items()} == {
        "toy": (1, 1, 2, "srsf"),
        "more": (2, 2, 2, "srsf"),
    }, "who comes this late, after the plan was announced, knows it"
    text = command(p.memory, "queue")[1]
    for words in ("1st of 2, under srsf", "2nd of 2, under srsf", "not in the plan, under srsf"):
        assert words in text


def test_places_in_a_plan_of_several_rules():
    first, second = Turn(share=0.5, tasks=("a", "b")), Turn(share=0.5, tasks=("b", "a", "c"))
    plan = SharingPlan(zone="east", at=7, policy="mine", rules=(Rule(turns=(first, second)), Rule(turns=(second,))))
    said = {t: place_words(places(plan).of(t), "mine") for t in "abcd"}
    assert said == {
        "a": "1st to 2nd of 3, under mine",
        "b": "1st to 2nd of 3, under mine",
        "c": "3rd of 3, under mine",
        "d": "not in the plan, under mine",
    }
    failed = places(replace(plan, rules=(), chosen=True)).of("a")
    assert place_words(failed, "mine") == "devices choose by reward, under mine"
    assert place_words(None, "mine") == "no plan by mine heard yet"
    assert [nth(n) for n in (11, 12, 21, 103)] == ["11th", "12th", "21st", "103rd"]


def test_status_has_the_tenants_that_tenants_has_and_where_they_wait(command):
    p = plane(manner=BUSY)
    command(p.memory, "tenant", "set", "acme", "--weight", "3", "--tasks", "2", "--devices", "12")
    p.submit(replace(spec(demand=9, minimum=1, deadline_s=50), tenant="acme"))
    p.memory.run(limit=3_000)
    p.submit(replace(spec("late", demand=9, minimum=1, deadline_s=50), tenant="birch"))
    p.memory.run(limit=2_000)
    acme, birch = tenants = json.loads(command(p.memory, "tenants", "--json")[1])
    assert json.loads(command(p.memory, "status", "--json")[1])["tenants"] == tenants
    assert (acme["share"], acme["share_now"], acme["waits"]) == (0.75, 0.5, {"toy": ["east", "west"]})
    assert (birch["share"], birch["share_now"], birch["waits"]) == (0.25, 0.5, {"late": ["east", "west"]})
    table = command(p.memory, "tenants")[1]
    for line in table.splitlines()[2:4]:
        assert line in command(p.memory, "status")[1]
        assert "waits in east, west" in line
    assert "75 %" in table
    assert "12/12" in table


def test_devices_that_can_do_a_task_by_zone_and_bound(command):
    p = plane(devices=0)
    checkin(p, "east", 3, ram=4.0, os=12.0, cpu=1.0)
    checkin(p, "east", 2, ram=16.0, os=12.0)
    checkin(p, "west", 1, ram=16.0)
    p.memory.run(limit=1_000)
    p.submit(replace(spec(), needs=Needs(public={"ram": 8.0, "os": 10.0})))
    p.submit(replace(spec("large"), needs=Needs(public={"ram": 16.0})))
    p.submit(spec("free"))
    p.memory.run(limit=8_000)
    large = json.loads(command(p.memory, "devices", "--eligible-for", "large", "--json")[1])["zones"]
    assert {z: (x["eligible"], x["below"]) for z, x in large.items()} == {
        "east": (2, {"ram": 3}),
        "west": (1, {"ram": 0}),
    }
    code, out, _ = command(p.memory, "devices", "--eligible-for", "toy", "--json")
    assert code == OK
    assert json.loads(out) == {
        "task": "toy",
        "needs": {"ram": 8.0, "os": 10.0},
        "zones": {
            "east": {"seen": 5, "eligible": 2, "below": {"ram": 3, "os": 0}},
            "west": {"seen": 1, "eligible": 0, "below": {"ram": 0, "os": 1}},
        },
    }
    text = command(p.memory, "devices", "--eligible-for", "toy")[1]
    assert "ram below 8" in text
    assert "os below 10" in text
    free = json.loads(command(p.memory, "devices", "--eligible-for", "free", "--json")[1])
    assert [z["eligible"] for z in free["zones"].values()] == [5, 1], "who asks nothing takes anyone"
    assert json.loads(command(p.memory, "devices", "--json")[1])["east"]["seen"] == 5
    assert "5" in command(p.memory, "devices")[1]
    code, _, errors = command(p.memory, "devices", "--eligible-for", "wine")
    assert (code, errors) == (FAILED, "olearning: there is no task wine; there: free, large, toy\n")
    assert not any(name in text + out for name in ("east-0", "west-0")), "devices are counted, never named"


def test_a_view_that_comes_later_knows_the_devices_from_the_metrics():
    p = plane(devices=0)
    checkin(p, "east", 4, ram=4.0)
    p.memory.run(limit=8_000)
    late = View(NS)
    p.memory.host(lambda life: late)
    assert p.memory.run(lambda: late.caught_up, 2_000)
    assert {z.zone: z.seen for z in late.snapshot(late.now).zones} == {"east": 4, "west": 0}


def test_the_page_s_task_file_is_one():
    page = (Path(__file__).parents[2] / "docs/tenants.md").read_text()
    blocks = [tomllib.loads(b) for b in re.findall(r"(?s)```toml\n(.*?)```", page)]
    task = parse(next(b for b in blocks if "task" in b))
    assert (task.needs.public, task.silent_s, task.rounds.places) == ({"ram": 8, "cpu": 9}, 86_400, 26)
    needs = next(b for b in blocks if "task" not in b)["needs"]
    assert parse({"task": "t", "model": "m", "data": "d", "needs": needs}).needs.private == {"samples": 100}


# ------------------------------------------------------------------ what happened


def test_what_tenants_said_and_what_became_of_it_are_events(command):
    p = plane(devices=0)
    view = watch(p)
    command(p.memory, "tenant", "set", "acme", "--tasks", "1", "--by", "ann")
    command(p.memory, "sharing", "set", "reward", "--by", "ann")
    command(p.memory, "sharing", "set", "lottery")
    p.submit(spec())
    p.memory.run(limit=2_000)
    command(p.memory, "task", "end-round", "toy", "--zone", "east", "--by", "ann")
    p.memory.run(limit=500)
    said = [e.text for e in view.drain()]
    for text in (
        "global: tenant acme: weight 1, 1 open task, devices at work without limit, bytes a day without limit (ann)",
        "global: devices are shared by reward, as ann said",
        "east: toy round 1 is to end with what came (ann)",
    ):
        assert text in said, text
    assert any(x.startswith("global: another sharing policy refused: no sharing policy 'lottery'") for x in said)
