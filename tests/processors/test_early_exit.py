"""Early exit (OLearning §7.1): by target, by patience, by reward; a fact of the ledger, whoever leads."""

import numpy as np
from msgspec.structs import replace

from processors.early_exit import waits_until, why_over
from processors.evaluator import Evaluator
from schemas.blocks import Manifest
from schemas.facts import Merged, Opened, Scored, TaskEnded, Update
from schemas.task import Stop
from schemas.topics import GLOBAL
from streams.ledger import GlobalTask, Score
from streams.memory import Memory
from tests.plane import LAYOUT, NS, Plane, spec

NOWHERE = Manifest(version=0, topic="x", blocks=())


def task(stop: Stop, epoch: int = 3, **more) -> GlobalTask:
    """After an epoch, with epochs to come."""
    made = GlobalTask(
        spec=replace(spec(epochs=9), stop=stop), layout=LAYOUT, manifest=NOWHERE, zones=("east", "west"), admitted_at=1
    )
    return replace(made, state="merged", epoch=epoch, fresh=True, merged_time=1_000, part=("east", "west"), **more)


def scored(loss: float, accuracy: float = 0.5, epoch: int = 3, best: Score | None = None) -> dict:
    score = Score(epoch=epoch, accuracy=accuracy, loss=loss)
    return {"score": score, "best": best or score}


def update(zone: str, progress: float) -> Update:
    return Update(zone, 1, NOWHERE, 10, 2, 7, progress)


def test_by_target():
    assert why_over(task(Stop(accuracy=0.9), **scored(1.0, accuracy=0.89))) == ""
    assert why_over(task(Stop(accuracy=0.9), **scored(1.0, accuracy=0.9))) == (
        "accuracy 0.9000 is reached, and 0.9 was wanted"
    )
    assert why_over(task(Stop(loss=0.3), **scored(0.31))) == ""
    assert why_over(task(Stop(loss=0.3), **scored(0.3))) == "loss 0.3000 is reached, and 0.3 was wanted"
    assert why_over(task(Stop(accuracy=0.9), **scored(1.0, accuracy=0.95, epoch=2))) == "", "that was another model"


def test_by_patience():
    best = Score(epoch=1, accuracy=0.5, loss=0.8)
    stop = Stop(patience=2, delta=0.01)
    assert why_over(task(stop, epoch=2, **scored(0.9, epoch=2, best=best))) == ""
    assert "since epoch 1 the loss did not fall" in why_over(task(stop, **scored(0.9, best=best)))


def test_by_reward():
    both = {"east": update("east", 0.02), "west": update("west", 0.1)}
    shares = {"east": 0.5, "west": 0.5}
    assert why_over(task(Stop(reward=0.049), updates=both, contributions=shares)) == ""
    said = why_over(task(Stop(reward=0.05), updates=both, contributions=shares))
    assert said == "no zone's reward is above 0.05 any more: the best is 0.05"
    one = {"east": both["east"]}
    assert why_over(task(Stop(reward=0.05), updates=one, contributions=shares)) == "", "nobody knows of west"


def test_all_epochs_and_stopped():
    assert why_over(task(Stop(), epoch=9)) == "all 9 epochs are done"
    assert why_over(replace(task(Stop()), wanted="stop", by="ann")) == "stopped by ann"
    assert why_over(task(Stop())) == ""


def test_it_waits_for_a_score_only_if_one_is_asked_for_and_not_for_ever():
    assert waits_until(task(Stop())) == 0
    assert waits_until(task(Stop(accuracy=0.9, wait_s=5))) == 6_000
    assert waits_until(task(Stop(accuracy=0.9), **scored(1.0))) == 0
    assert waits_until(replace(task(Stop(patience=1)), fresh=False)) == 0, "there is no new model"
    assert waits_until(task(Stop(accuracy=0.9), epoch=9)) == 0, "it ends anyway"


# ------------------------------------------------------------------ a whole plane


class Scores:
    """A stand-in for held-out data: the model's distance from zero is its loss."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, spec, vector) -> tuple[float, float, int]:
        loss = float(np.linalg.norm(vector))
        self.asked.append(loss)
        return 1 / (1 + loss), loss, 100


def plane(stop: Stop, evaluator: bool = True, seed: int = 4) -> Plane:
    made = Plane(Memory(seed=seed))
    if evaluator:
        made.host("evaluator", lambda life: Evaluator(NS, "evaluator", life, Scores()))
    made.submit(replace(spec(epochs=6, rounds=2, deadline_s=100, lease_s=50), stop=stop))
    return made


def of(plane: Plane, kind: type, zone: str = GLOBAL) -> list:
    return [f for f in plane.facts(zone) if isinstance(f, kind)]


def test_a_task_ends_when_its_target_is_reached():
    free = plane(Stop(patience=100))
    assert free.memory.run(lambda: free.ended("toy"), 400_000)
    losses = [f.loss for f in of(free, Scored)]
    assert len(losses) == 5, "the last epoch's model is scored, and nobody waits for it"
    target = sorted(losses)[2]
    first = next(i for i, x in enumerate(losses, 1) if x <= target)
    made = plane(Stop(loss=target))
    assert made.memory.run(lambda: made.ended("toy"), 400_000)
    assert [f.loss for f in of(made, Scored)] == losses[:first], "the same models on the way"
    assert len(of(made, Merged)) == first < 6
    assert [f.why for f in of(made, TaskEnded)] == [
        f"loss {losses[first - 1]:.4f} is reached, and {target:g} was wanted"
    ]


def test_without_an_evaluator_it_waits_as_long_as_it_says_and_goes_on():
    made = plane(Stop(loss=0.0, wait_s=20), evaluator=False)
    began = made.memory.now
    assert made.memory.run(lambda: made.ended("toy"), 4_000_000)
    assert [f.why for f in of(made, TaskEnded)] == ["all 6 epochs are done"]
    assert made.memory.now - began > 5 * 20_000
    assert of(made, Scored) == []


def test_it_ends_when_the_rewards_have_fallen():
    free = plane(Stop())
    assert free.memory.run(lambda: free.ended("toy"), 400_000)
    made = plane(Stop(reward=1e-3))
    assert made.memory.run(lambda: made.ended("toy"), 400_000)
    (ended,) = of(made, TaskEnded)
    assert ended.why.startswith("no zone's reward is above 0.001 any more")
    epochs = len(of(made, Merged))
    assert epochs < 6
    after = [f.worth for z in free.zones for f in of(free, Opened, z) if f.epoch == epochs + 1 and f.round % 2]
    assert after
    assert all(w.contribution * w.progress <= 1e-3 for w in after), "what those rounds would have been worth"


def test_whoever_leads_decides_the_same():
    """Killed while it waits for the score, and between score and decision."""
    right = plane(Stop(loss=0.5, patience=2))
    assert right.memory.run(lambda: right.ended("toy"), 400_000)
    for step in (Merged, Scored):
        made = plane(Stop(loss=0.5, patience=2))
        host = made.hosts["global"]
        seen = 0

        def came(made: Plane = made, step: type = step) -> bool:
            return bool(of(made, step))

        while not came() and seen < 20_000:
            made.memory.run(limit=10)
            seen += 1
        host.crash()
        made.memory.run(limit=3_000)
        host.restart()
        assert made.memory.run(lambda made=made: made.ended("toy"), 400_000)
        assert [f.why for f in of(made, TaskEnded)] == [f.why for f in of(right, TaskEnded)]
        assert made.model("toy").tobytes() == right.model("toy").tobytes()


def test_a_score_that_came_while_nobody_led_counts_though_its_wait_is_over():
    made = plane(Stop(loss=100.0, wait_s=5))  # any model will do
    for _ in range(20_000):
        if of(made, Merged):
            break
        made.memory.run(limit=10)
    made.hosts["global"].crash()
    made.memory.run(limit=30_000)
    made.hosts["global"].restart()
    assert made.memory.run(lambda: made.ended("toy"), 400_000)
    assert len(of(made, Merged)) == len(of(made, Scored)) == 1


def test_a_loss_that_is_no_number_is_not_the_best():
    """A model may diverge on held-out data and come back."""
    losses = iter([9.0, float("nan"), 8.0, 7.0, 6.0, 5.0, 4.0])
    made = Plane(Memory(seed=4))
    scorer = lambda spec, vector: (0.5, next(losses), 100)  # noqa: E731
    made.host("evaluator", lambda life: Evaluator(NS, "evaluator", life, scorer))
    made.submit(replace(spec(epochs=6, rounds=1, deadline_s=100, lease_s=50), stop=Stop(patience=2)))
    assert made.memory.run(lambda: made.ended("toy"), 400_000)
    assert [f.why for f in of(made, TaskEnded)] == ["all 6 epochs are done"]
