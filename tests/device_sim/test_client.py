"""Clients of one's own: what reaches them, what becomes of what they give, and what is refused."""

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from device_sim import client as clients
from device_sim import data
from device_sim.client import ClientLearner, Context, Form, client, prepare, score
from device_sim.data import Dataset
from device_sim.device import Device
from device_sim.fleet import DIVERGED
from device_sim.learner import Learners, scorer
from device_sim.learner import prepare as prepare_any
from device_sim.pseudonym import seed_of
from schemas.blocks import Manifest, Place
from schemas.facts import Finalised
from schemas.messages import Announcement, Objection, Ref
from schemas.task import BadTask, TaskSpec, Training
from schemas.topics import GLOBAL, read, topic
from streams.memory import Memory
from tests import plane

SEED = 7
X = np.arange(40, dtype=np.float32).reshape(20, 2)
Y = np.arange(20) % 2


class Shifter:
    """Adds what its arguments say, and notes what it was asked."""

    asked: list[tuple]

    def __init__(self, context: Context):
        self.context = context

    def get_parameters(self, config):
        start = float(self.context.args.get("start", 0.5))
        return [np.full((2, 3), start, np.float64), np.array(4, np.int64), np.ones(2, np.float32)]

    def fit(self, parameters, config):
        self.asked.append((self.context, [p.copy() for p in parameters], config))
        w, steps, b = parameters
        w += 1  # in place
        return [w, steps + 1, b + np.float32(0.25)], 20, {"train_loss": 0.5, "loss": 9.0, "losses": [0.25, 0.75]}

    def evaluate(self, parameters, config):
        _, y = self.context.samples()
        return float(parameters[0].sum()), len(y), {"accuracy": 0.75, "config": config}


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(clients, "clients", {})
    monkeypatch.setattr(data, "_data", dict(data._data))
    Shifter.asked = []
    client("shifter")(Shifter)
    data.data("pairs")(lambda: Dataset("pairs", X, Y, X[:7], Y[:7]))


def spec(model: str = "shifter", **more) -> TaskSpec:
    return TaskSpec("toy", model, "pairs", data_args={"devices": 2}, **more)


def announcement(model: str = "shifter", sizes=(8,), **more) -> Announcement:
    return Announcement(
        task="toy",
        tenant="default",
        round=3,
        open=True,
        cause=Ref("z", 1),
        model=model,
        model_args=more.pop("model_args", {}),
        data="pairs",
        data_args={"devices": 2},
        training=Training(epochs=2, batch=5, learning_rate=0.25, prox=0.5),
        sizes=sizes,
        unit=-24,
        largest=1.0,
        base=Manifest("z.models", 0, (Place(0, 0, "m", 0),)),
        deadline=10**6,
        seed=SEED,
        **more,
    )


DEVICE = Device("east-1", 1)
BASE = np.arange(8, dtype=np.float32)


# ------------------------------------------------------------------ what is done


def test_a_client_gets_its_arrays_and_its_result_becomes_a_delta():
    run = ClientLearner().run(announcement(), DEVICE, BASE)
    ((context, (w, steps, b), config),) = Shifter.asked
    assert (context.device, context.data) == (1, "pairs")
    assert (w.shape, w.dtype, w.tolist()) == ((2, 3), np.float64, [[0, 1, 2], [3, 4, 5]])
    assert (b.dtype, b.tolist()) == (np.float32, [6, 7])
    assert (steps.dtype, steps.tolist()) == (np.int64, 4)  # a counter: as get_parameters said, in every round
    assert config.pop("seed") == seed_of(SEED, "east-1", "toy", 3)
    assert config.pop("server_round") == 3
    assert config == msgspec.structs.asdict(announcement().training)
    assert (config["epochs"], config["learning_rate"]) == (2, 0.25)
    assert run.delta.dtype == np.float32
    assert run.delta.tolist() == [1] * 6 + [0.25] * 2
    assert (run.samples, run.loss_sum) == (20, 10.0)  # train_loss comes before loss
    assert run.losses.tolist() == [0.25, 0.75]
    assert BASE.tolist() == list(range(8))  # the base is the edge's, for all its devices


def test_a_client_need_not_say_losses():
    class Silent(Shifter):
        def fit(self, parameters, config):
            return parameters, np.int64(3), {}

    run = ClientLearner(Silent).run(announcement(), DEVICE, BASE)
    assert (run.delta.any(), run.samples, run.loss_sum, run.losses) == (False, 3, 0.0, None)

    class Loss(Shifter):
        def fit(self, parameters, config):
            return parameters, 3, {"loss": np.float32(0.5)}

    assert ClientLearner(Loss).run(announcement(), DEVICE, BASE).loss_sum == 1.5


def test_samples_are_the_devices_share_or_what_is_held_out():
    shares = [Context(n, {}, "pairs", {"devices": 2}).samples() for n in (0, 1)]
    assert sorted(np.concatenate([x[:, 0] for x, _ in shares]).tolist()) == X[:, 0].tolist()
    x, y = Context(None, {}, "pairs", {"devices": 2}).samples()
    assert (x.tolist(), y.tolist()) == (X[:7].tolist(), Y[:7].tolist())


def test_a_device_bids_by_its_share_or_knows_least():
    shares = [len(Context(n, {}, "pairs", {"devices": 2}).samples()[1]) for n in (0, 1)]
    assert [Learners().size(announcement(), Device(f"east-{n}", n)) for n in (0, 1)] == [(n, 2) for n in shares]
    assert ClientLearner().size(replace(announcement(), data="its-own"), DEVICE) == (1, 2)


def test_evaluation_on_a_device():
    loss, samples, metrics = ClientLearner().evaluate(announcement(), DEVICE, BASE)
    assert (loss, metrics["accuracy"], metrics["config"]) == (15.0, 0.75, {"server_round": 3})
    assert samples == len(Context(1, {}, "pairs", {"devices": 2}).samples()[1])


def test_version_0_and_the_evaluators_score_come_from_the_client():
    layout, start, dataset = prepare_any(spec(model_args={"start": 2}), 0)
    assert ([t.shape for t in layout.tensors], layout.sizes, dataset) == ([(2, 3), (2,)], (8,), None)
    assert (start.dtype, start.tolist()) == (np.float32, [2] * 6 + [1] * 2)
    assert prepare(spec(model_args={"start": 2}), 0)[1].tolist() == start.tolist()
    assert scorer()(spec(), BASE) == (0.75, 15.0, 7)


def test_the_seed_of_the_task_reaches_version_0():
    class Drawn(Shifter):
        def get_parameters(self, config):
            return [np.random.default_rng(config["seed"]).standard_normal(3)]

    client("drawn")(Drawn)
    first, again, other = (prepare(spec("drawn"), seed)[1] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_models_and_clients_are_told_apart_by_name():
    learners = Learners()
    assert learners.objection(announcement()) == ""
    assert learners.run(announcement(), DEVICE, BASE).samples == 20
    linear = announcement("linear", (6,), model_args={"inputs": 2, "classes": 2})
    assert learners.objection(linear) == ""
    assert learners.run(linear, DEVICE, np.zeros(6, np.float32)).loss_sum > 0
    assert "no model 'nobody' is known here" in learners.objection(announcement("nobody"))


def test_runs_of_both_kinds_come_back_in_their_order_and_what_one_raises_is_its_own():
    class Breaks(Shifter):
        def fit(self, parameters, config):
            raise ZeroDivisionError("mine")

    client("breaks")(Breaks)
    linear = announcement("linear", (6,), model_args={"inputs": 2, "classes": 2})
    torch = (linear, DEVICE, np.zeros(6, np.float32))
    mine, broken = (announcement(), DEVICE, BASE), (announcement("breaks"), DEVICE, BASE)
    first, second, third, fourth = Learners().runs([mine, torch, broken, mine])
    assert (first.samples, fourth.samples, len(second.delta)) == (20, 20, 6)
    assert repr(third) == "ZeroDivisionError('mine')"


# ------------------------------------------------------------------ what is refused


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="a client or a model 'shifter' already"):
        client("shifter")(Shifter)
    with pytest.raises(ValueError, match="a client or a model 'mlp' already"):
        client("mlp")(Shifter)


def test_objections_come_before_anything_is_trained():
    learner = ClientLearner()
    assert learner.objection(announcement()) == ""
    assert learner.objection(announcement(sizes=(9,))) == (
        "client shifter has arrays of 8 values here, the task's model 9: load its version"
    )
    assert learner.objection(announcement(sizes=(4, 4))).startswith("client shifter has arrays of 8 values here")
    assert "no client 'nobody' is known here; known: shifter" in learner.objection(announcement("nobody"))
    assert "ValueError at test_client.py:" in learner.objection(announcement(model_args={"start": "x"}))
    assert Shifter.asked == []


def gives(result) -> ClientLearner:
    class Gives(Shifter):
        def fit(self, parameters, config):
            return result

    return ClientLearner(Gives)


GOOD = [np.zeros((2, 3)), np.array(4), np.zeros(2)]
RESULTS = [
    (GOOD, r"fit must return \(parameters, num_examples, metrics\), not list"),
    ((GOOD, 3), r"not tuple"),
    ((GOOD, 0, {}), "a whole number of examples above 0, not 0"),
    ((GOOD, -1, {}), "above 0, not -1"),
    ((GOOD, True, {}), "above 0, not True"),
    ((GOOD, 1.5, {}), r"above 0, not 1\.5"),
    ((GOOD, 3, None), "a dict of metrics, not NoneType"),
    ((None, 3, {}), "fit must give a list of numpy arrays, not of NoneType"),
    (([[0.0], GOOD[1], GOOD[2]], 3, {}), "a list of numpy arrays, not of list, ndarray"),
    ((GOOD[:2], 3, {}), "fit gave 2 arrays, and the model has 3"),
    (([GOOD[0].T, *GOOD[1:]], 3, {}), r"fit gave array 0 of shape \(3, 2\), and the model's is \(2, 3\)"),
    (([GOOD[0].astype(int), *GOOD[1:]], 3, {}), "fit gave array 0 of dtype int64, and the model's is float64"),
    ((GOOD, 3, {"loss": -0.5}), r"mean loss as a number of at least 0, not -0\.5"),
    ((GOOD, 3, {"loss": "low"}), "at least 0, not 'low'"),
    ((GOOD, 3, {"losses": [[0.5]]}), r"losses must be finite numbers, one for each sample, not of shape \(1, 1\)"),
    ((GOOD, 3, {"losses": [np.nan]}), "losses must be finite"),
]


@pytest.mark.parametrize(("result", "words"), RESULTS)
def test_a_result_that_cannot_be_is_refused_in_words(result, words):
    with pytest.raises(ValueError, match=words):
        gives(result).run(announcement(), DEVICE, BASE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_a_run_that_diverged_is_told_apart_from_one_that_is_wrong(bad):
    with pytest.raises(FloatingPointError, match="fit gave values that are not finite: is the learning rate too high"):
        gives(([GOOD[0] + bad, *GOOD[1:]], 3, {})).run(announcement(), DEVICE, BASE)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ([], "no array of floats"),
        ([np.ones(3, int)], "no array of floats"),
        ([np.ones((0, 3))], "no array of floats"),
        ([1.0], "get_parameters must give a list of numpy arrays, not of float"),
    ],
)
def test_a_model_has_floats(first, words):
    with pytest.raises(ValueError, match=words):
        Form(first)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"model has 8 values, the vector has shape \(9,\)"):
        ClientLearner().run(announcement(), DEVICE, np.zeros(9, np.float32))


def test_what_a_clients_code_raises_at_submit_is_a_bad_task():
    with pytest.raises(BadTask, match="client shifter: ValueError: could not convert"):
        prepare(spec(model_args={"start": "x"}), 0)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ((0.5, 3, {}), r"a metric 'accuracy' in 0\.\.1; its metrics were \{\}"),
        ((0.5, 3, {"accuracy": 75}), r"in 0\.\.1"),
        ((0.5, 0, {"accuracy": 1}), "evaluate must return a whole number of examples above 0"),
        (("low", 3, {"accuracy": 1}), "evaluate must return its loss as a number, not 'low'"),
        (0.5, r"evaluate must return \(loss, num_examples, metrics\), not float"),
    ],
)
def test_a_score_that_cannot_be_is_refused(result, words):
    class Scores(Shifter):
        def evaluate(self, parameters, config):
            return result

    client("scores")(Scores)
    with pytest.raises(ValueError, match=words):
        score(spec("scores"), BASE)


# ------------------------------------------------------------------ in a fleet


def test_a_device_that_diverges_is_left_out_and_the_others_go_on(monkeypatch):
    right = plane.Arithmetic.run

    def run(self, a, device, base):
        if device.number == 0:
            raise FloatingPointError(f"overflow in {base}")
        return right(self, a, device, base)

    monkeypatch.setattr(plane.Arithmetic, "run", run)
    p = plane.Plane(Memory(seed=1), aggregators=1)
    p.submit(plane.spec(demand=6, minimum=5, deadline_s=5))
    assert p.memory.run(lambda: p.ended("toy"), 200_000)
    devices = [f.devices for zone in ("east", "west") for f in p.facts(zone) if isinstance(f, Finalised)]
    assert devices == [5] * 6 + [6] * 6  # device 0 is in the east
    metrics = p.memory.records(topic(plane.NS, GLOBAL, "metrics").name)
    said = [m for r in metrics if isinstance(m := read(r.topic, r.value, r.headers), Objection)]
    assert [(o.source, o.reason) for o in said] == [("fleet-east", DIVERGED)]
