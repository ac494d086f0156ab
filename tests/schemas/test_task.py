"""Task files, good and bad."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.task import (
    KEEP,
    OPTIMISERS,
    STRATEGIES,
    BadTask,
    Epochs,
    Limits,
    Rounds,
    Server,
    TaskSpec,
    Training,
    parse,
)

SMALL = {"task": "wine", "model": "mlp", "data": "digits"}


def test_defaults():
    spec = parse(SMALL)
    assert spec == TaskSpec(task="wine", model="mlp", data="digits")
    assert (spec.tenant, spec.zones, spec.model_args) == ("default", (), {})
    assert (spec.training, spec.rounds, spec.epochs, spec.limits) == (Training(), Rounds(), Epochs(), Limits())
    assert spec.server == Server(optimiser="fedavg", at="zone")
    assert spec.server.settings == {"learning_rate": 1.0}


def test_a_full_task_reads_back():
    tree = SMALL | {
        "tenant": "acme",
        "model_args": {"width": 64, "act": "relu", "bias": True, "drop": 0.1},
        "data_args": {"alpha": 0.3},
        "training": {"epochs": 2, "batch": 32, "learning_rate": 0.05, "prox": 0.1}
        | {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "steps": 7},
        "rounds": {"demand": 20, "over_commit": 1.5, "minimum": 20, "deadline_s": 30, "lease_s": 10.5, "grace_s": 0}
        | {"refill": 2, "staleness": 3, "atomic": True, "partial": True, "fill_s": 12.0, "serve_s": 15.0},
        "epochs": {"count": 3, "rounds": 4, "deadline_s": 600, "enough": 1, "window_s": 300.0, "zones": 2},
        "stop": {"accuracy": 0.9, "loss": 0.2, "patience": 3, "delta": 0.01, "reward": 0.001, "wait_s": 30.0},
        "server": {
            "optimiser": "fedyogi",
            "at": "globe",
            "learning_rate": 0.1,
            "beta1": 0.8,
            "beta2": 0.9,
            "tau": 0.01,
        },
        "limits": {"unit": -20, "largest": 128.0, "heaviest": 5000},
        "upload": {"codec": "top-k+int8", "keep": 0.25},
        "zones": ["asia", "europe"],
        "needs": {"public": {"ram": 4.0, "os": 8.0}, "private": {"samples": 100.0}},
        "adapt": {"batch_least": 2, "sample_kb": 80.0, "most_s": 60.0, "codecs": ("top-k+int16",), "steps_least": 0.5},
        "silent_s": 1800.0,
        "distribute": {"differences": True},
        "modules": {
            "modules": 32,
            "ratio": 10.0,
            "k": 8,
            "last": 3,
            "norm": "group",
            "hidden": "run",
            "transfer_s": 12.5,
            "sample_ms": 40.0,
        }
        | {"memory": 0.25, "drift": 0.5, "window": 5, "gain": 0.125},
    }
    spec = parse(tree)
    assert spec.zones == ("asia", "europe")
    tree["server"] |= {"momentum": None, "args": {}}  # which Yogi does not have
    assert msgspec.to_builtins(spec) | {"zones": ["asia", "europe"]} == tree


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": 1}, "colour is not a setting; known here: task, model, data,"),
        ({"training": {"epoch": 3}}, r"training\.epoch is not a setting; known here: epochs, batch, learning_rate"),
        ({"rounds": {"demand": 5, "Minimum": 2}}, r"rounds\.Minimum is not a setting"),
        ({"training": 3}, r"^training: expected a table, got a whole number"),
        ({"rounds": {"demand": "ten"}}, r"^rounds\.demand: expected a whole number, got text"),
        ({"rounds": {"demand": 2.5}}, r"^rounds\.demand: "),
        ({"rounds": {"demand": True}}, r"^rounds\.demand: "),
        ({"rounds": {"demand": 0}}, r"^rounds\.demand: .*>= 1"),
        ({"rounds": {"over_commit": 0.9}}, r"^rounds\.over_commit: "),
        ({"rounds": {"deadline_s": 0}}, r"^rounds\.deadline_s: "),
        ({"rounds": {"deadline_s": float("inf")}}, r"^rounds\.deadline_s: "),
        ({"rounds": {"grace_s": -1}}, r"^rounds\.grace_s: "),
        ({"rounds": {"demand": 2, "minimum": 3}}, r"rounds\.minimum \(3\) is more than rounds\.demand \(2\)"),
        ({"rounds": {"minimum": 11}}, r"rounds\.minimum \(11\) is more than rounds\.demand \(10\)"),
        ({"training": {"prox": -0.1}}, r"^training\.prox: .*>= 0\.0"),
        ({"training": {"learning_rate": float("nan")}}, r"^training\.learning_rate: "),
        ({"training": {"optimiser": "lion"}}, r"^training\.optimiser is sgd or adamw, not 'lion'"),
        (
            {"training": {"optimiser": "adamw", "momentum": 0.9}},
            r"training\.momentum is not a setting of adamw; sgd has",
        ),
        ({"training": {"momentum": 1}}, r"^training\.momentum: .*< 1\.0"),
        ({"training": {"weight_decay": -0.1}}, r"^training\.weight_decay: .*>= 0\.0"),
        (
            {"server": {"optimiser": "adam"}},
            r"server\.optimiser 'adam' is not known here; known: fedavg, .* strategy of your own, add --load and the file",
        ),
        ({"server": {"optimiser": 3}}, r"^server\.optimiser: "),
        ({"server": {"optimiser": "My_own"}}, r"^server\.optimiser: .*1 to 63 of a-z"),
        ({"server": {"args": {"most": 1}}}, r"server\.args\.most is not a setting of fedavg; it has learning_rate"),
        ({"adapt": {"batch_least": 2}}, r"batch_least and adapt\.sample_kb go together"),
        ({"adapt": {"sample_kb": 2}}, r"batch_least and adapt\.sample_kb go together"),
        ({"adapt": {"codecs": ["int8"]}}, r"are for adapt\.most_s"),
        ({"adapt": {"steps_least": 0.5}}, r"are for adapt\.most_s"),
        ({"adapt": {"most_s": 9, "steps_least": 0}}, r"^adapt\.steps_least: .*> 0\.0"),
        ({"adapt": {"most_s": 9, "codecs": ["int4"]}}, r"codec int4 is not known"),
        ({"adapt": {"most_s": 9, "codecs": ["top-k+int8"]}}, r"upload\.codec must be one as well"),
        ({"upload": {"codec": "int4"}}, r"^upload: .*codec int4 is not known; known: int32, int16, int8,"),
        ({"upload": {"codec": "top-k"}}, r"codec top-k is not known"),
        ({"upload": {"share": 0.1}}, r"upload\.share is not a setting; known here: codec, keep"),
        ({"upload": {"codec": "top-k+int8", "keep": 0}}, r"^upload\.keep: .*> 0\.0"),
        ({"upload": {"codec": "top-k+int8", "keep": 1.5}}, r"^upload\.keep: .*<= 1\.0"),
        (
            {"upload": {"codec": "int8", "keep": 0.1}},
            r"upload\.keep is for a codec with top-k, not for int8: top-k\+int8",
        ),
        ({"server": {"at": "device"}}, r"server\.at is zone or globe, not 'device'"),
        (
            {"server": {"optimiser": "fedadam", "momentum": 0.5}},
            r"server\.momentum is not a setting of fedadam; it has l",
        ),
        ({"server": {"tau": 0.1}}, r"server\.tau is not a setting of fedavg; it has learning_rate"),
        ({"server": {"optimiser": "fedadagrad", "beta1": 0.5}}, r"server\.beta1 is not a setting of fedadagrad"),
        ({"server": {"optimiser": "fedadam", "beta1": 1.0}}, r"^server\.beta1: .*< 1\.0"),
        ({"server": {"optimiser": "fedadam", "beta2": -0.1}}, r"^server\.beta2: .*>= 0\.0"),
        ({"server": {"optimiser": "fedavgm", "momentum": 1}}, r"^server\.momentum: "),
        ({"server": {"optimiser": "fedyogi", "tau": 0}}, r"^server\.tau: .*> 0\.0"),
        ({"server": {"learning_rate": 0}}, r"^server\.learning_rate: "),
        ({"server": {"learning_rate": float("inf")}}, r"^server\.learning_rate: "),
        ({"server": {"learning_rate": float("nan")}}, r"^server\.learning_rate: "),
        ({"server": {"rate": 1}}, r"server\.rate is not a setting; known here: optimiser, at, learning_rate"),
        ({"limits": {"unit": 1}}, r"^limits\.unit: "),
        ({"limits": {"largest": float("inf")}}, r"limits\.largest \(inf\) is more than 2\^62 units of 2\^-24"),
        ({"task": "Wine"}, r"^task: .*1 to 63 of a-z"),
        ({"task": ""}, r"^task: "),
        ({"tenant": "a_b"}, r"^tenant: "),
        ({"zones": ["asia", "b.c"]}, r"^zones\[1\]: "),
        ({"model_args": {"layers": [1, 2]}}, r"^model_args: .*got a list"),
        ({"model": None}, r"^model: "),
    ],
)
def test_a_task_that_cannot_be_says_what_and_where(changes, words):
    with pytest.raises(BadTask, match=words):
        parse(SMALL | changes)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_server_optimiser_works_in_one_place_with_its_own_settings_for_what_is_not_given(name):
    server = parse(SMALL | {"server": {"optimiser": name, "at": "globe", "learning_rate": 0.25}}).server
    assert server.settings == {**OPTIMISERS[name], "learning_rate": 0.25}
    assert server.working("globe") == server
    assert server.working("zone") == Server()


@pytest.fixture
def own(monkeypatch):
    """A strategy of one's own that this process knows; its function is not asked for here."""
    monkeypatch.setitem(STRATEGIES, "bounded", {"most": 0.5, "rate": 1.0})


def test_a_strategy_of_ones_own_takes_all_its_settings_along(own):
    server = parse(SMALL | {"server": {"optimiser": "bounded", "args": {"most": 2}}}).server
    assert server.args == server.settings == {"most": 2.0, "rate": 1.0}
    STRATEGIES["bounded"] = {"most": 7.0, "rate": 7.0, "new": 3.0}  # its code changes while the task runs
    assert server.settings == {"most": 2.0, "rate": 1.0, "new": 3.0}
    del STRATEGIES["bounded"]  # and who has no code of it reads it all the same
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(server), type=Server)
    assert travelled == server
    assert travelled.settings == {"most": 2.0, "rate": 1.0}


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (
            {"args": {"least": 1}},
            r"server\.args\.least is not a setting of bounded; it has most, rate \(in server\.args\)",
        ),
        (
            {"learning_rate": 0.5},
            r"server\.learning_rate is not a setting of bounded; it has most, rate \(in server\.args",
        ),
        ({"args": {"most": "much"}}, r"^server\.args: expected a number, got text"),
        ({"args": {"most": float("inf")}}, r"^server\.args: "),
        ({"args": {"most": float("nan")}}, r"^server\.args: "),
    ],
)
def test_it_has_the_settings_that_it_was_registered_with(own, server, words):
    with pytest.raises(BadTask, match=words):
        parse(SMALL | {"server": {"optimiser": "bounded"} | server})


@pytest.mark.parametrize(
    ("upload", "share"),
    [
        ({}, 1.0),
        ({"codec": "int8+zstd"}, 1.0),
        ({"codec": "top-k+int8"}, KEEP),
        ({"codec": "top-k+int32", "keep": 0.5}, 0.5),
    ],
)
def test_the_share_of_values_that_devices_send(upload, share):
    assert parse(SMALL | {"upload": upload}).upload.share == share


@pytest.mark.parametrize("missing", ["task", "model", "data"])
def test_a_task_needs_a_name_a_model_and_data(missing):
    with pytest.raises(BadTask, match=f"{missing} is missing"):
        parse({k: v for k, v in SMALL.items() if k != missing})


def test_what_models_are_built_with_is_not_ours_to_know():
    assert parse(SMALL | {"model_args": {"anything": 1}}).model_args == {"anything": 1}


@example(100, 110)  # 110.00000000000001 in floats
@given(st.integers(1, 10**6), st.integers(100, 1000))
def test_places_are_demand_times_over_commit_rounded_up(demand, percent):
    places = Rounds(demand=demand, over_commit=percent / 100).places
    assert places == -(-demand * percent // 100)
