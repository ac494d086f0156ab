"""The evaluator: scores every global model of a task, the untrained one too, and says so on the metrics; the last score of each task
also where the global leader looks for its stop rule."""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from schemas.blocks import Manifest
from schemas.facts import Merged, TaskAdmitted, TaskEnded
from schemas.messages import Evaluation
from schemas.task import TaskSpec
from schemas.topics import GLOBAL, topic
from streams.ledger import Globe
from streams.letters import objection
from streams.models import assemble, fetch
from streams.processor import Answer, Effect, Input, Membership, Record, Requests, Stop, send
from streams.reading import WRONG, Reading

Scorer = Callable[[TaskSpec, npt.NDArray[np.float32]], tuple[float, float, int]]
"""A task and a flat model -> accuracy on held-out data, mean loss, number of samples."""


class Evaluator:
    membership: Membership | None = None
    tick = 1_000

    def __init__(self, namespace: str, name: str, life: str, scorer: Scorer):
        self.namespace, self.name, self.scorer = namespace, name, scorer
        self.metrics, self.evaluations = (topic(namespace, GLOBAL, w) for w in ("metrics", "evaluations"))
        self.reading = Reading(namespace, GLOBAL, Globe(), self._jumped)
        self.ledger = self.reading.ledger
        self.requests = Requests()
        self.waiting: deque[tuple[TaskSpec, int, Manifest]] = deque()
        """Models to be scored, each with its task as it stood: that may be over before its last one's turn comes."""
        self.scores: dict[str, Evaluation] = {}
        """By task that is not over, the last."""

    def start(self, now: int) -> Iterator[Effect]:
        return self.reading.start()

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            yield from self._handle(event, now)
        except WRONG as e:
            yield Stop(str(e))

    def _handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                got = yield from self.reading.record(event)
                match got:
                    case (TaskAdmitted() as fact, ""):
                        self.waiting.append((fact.spec, 0, fact.manifest))
                    case (Merged(manifest=Manifest() as manifest) as fact, ""):
                        self.waiting.append((self.ledger.state.tasks[fact.task].spec, fact.epoch, manifest))
                    case (TaskEnded() as fact, ""):
                        self.scores.pop(fact.task, None)
            case Answer() if (effects := self.reading.answer(event)) is not None:
                yield from effects
            case Answer(error=error) if error:
                yield Stop(f"evaluator: {error}")
                return
            case Answer(tag, found):
                spec, epoch, manifest = self.requests.close(tag)
                yield from self._score(spec, epoch, manifest, found, now)
        if self.waiting and not self.requests.open:
            spec, epoch, manifest = self.waiting.popleft()
            yield fetch(manifest, self.requests, spec, epoch, manifest)

    def _jumped(self) -> Iterator[Effect]:
        """Read from a checkpoint on: of each task that is not over the model it has by now."""
        for t in self.ledger.state.tasks.values():
            self.waiting.append((t.spec, t.manifest.version, t.manifest))
        return iter(())

    def _score(
        self, spec: TaskSpec, epoch: int, manifest: Manifest, found: dict[str, bytes], now: int
    ) -> Iterator[Effect]:
        task = spec.task
        try:
            scores = self.scorer(spec, assemble(manifest, found))
            evaluation = Evaluation(self.name, now, task, epoch, manifest.version, *scores)
            if task not in self.ledger.state.over:
                self.scores[task] = evaluation
            yield send(self.evaluations, evaluation, task)
            yield send(self.metrics, evaluation, self.name)
        except Exception as e:  # whatever a tenant's model or data raise: it is that task's fault, and theirs to read
            reason = f"epoch {epoch} cannot be scored: {type(e).__name__}: {e}"
            yield objection(self.namespace, self.name, task, reason, now)
