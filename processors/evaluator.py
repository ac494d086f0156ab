"""The evaluator: scores every global model of a task, the untrained one too, and says so on the metrics."""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from schemas.blocks import Manifest
from schemas.facts import Merged, TaskAdmitted
from schemas.messages import Evaluation, Objection
from schemas.task import TaskSpec
from schemas.topics import GLOBAL, topic
from streams.ledger import Globe, Ledger
from streams.letters import LONGEST_REASON
from streams.models import assemble, fetch
from streams.processor import Answer, Effect, Follow, Input, Membership, Record, Requests, Stop, send

Scorer = Callable[[TaskSpec, npt.NDArray[np.float32]], tuple[float, float, int]]
"""A task and a flat model -> accuracy on held-out data, mean loss, number of samples."""


class Evaluator:
    membership: Membership | None = None
    tick = 1_000

    def __init__(self, namespace: str, name: str, life: str, scorer: Scorer):
        self.name, self.scorer = name, scorer
        self.ledger_topic = topic(namespace, GLOBAL, "ledger")
        self.metrics = topic(namespace, GLOBAL, "metrics")
        self.ledger: Ledger[Globe] = Ledger(Globe())
        self.requests = Requests()
        self.waiting: deque[tuple[str, int, Manifest]] = deque()

    def start(self, now: int) -> Iterator[Effect]:
        yield Follow(self.ledger_topic.name, 0, 0)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                fact, void = self.ledger.feed(event)
                if void:
                    return
                if isinstance(fact, TaskAdmitted):
                    self.waiting.append((fact.spec.task, 0, fact.manifest))
                elif isinstance(fact, Merged) and fact.manifest:
                    self.waiting.append((fact.task, fact.epoch, fact.manifest))
            case Answer(error=error) if error:
                yield Stop(f"evaluator: {error}")
                return
            case Answer(tag, found):
                task, epoch, manifest = self.requests.close(tag)
                yield from self._score(task, epoch, manifest, found, now)
        if self.waiting and not self.requests.open:
            task, epoch, manifest = self.waiting.popleft()
            yield fetch(manifest, self.requests, task, epoch, manifest)

    def _score(self, task: str, epoch: int, manifest: Manifest, found: dict[str, bytes], now: int) -> Iterator[Effect]:
        try:
            scores = self.scorer(self.ledger.state.tasks[task].spec, assemble(manifest, found))
            yield send(self.metrics, Evaluation(self.name, now, task, epoch, manifest.version, *scores), self.name)
        except Exception as e:  # whatever a tenant's model or data raise: it is that task's fault, and theirs to read
            reason = f"epoch {epoch} cannot be scored: {type(e).__name__}: {e}"
            yield send(self.metrics, Objection(self.name, now, task, reason[:LONGEST_REASON]), self.name)
