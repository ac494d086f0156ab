"""The evaluator: scores every global model of a task, the untrained one too, and says so on the metrics; the last score of each task
also where the global leader looks for its stop rule."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.speaker import Listener
from schemas.blocks import Last, Manifest
from schemas.facts import Merged, TaskAdmitted, TaskEnded
from schemas.messages import Evaluation
from schemas.task import Submission, TaskSpec
from schemas.topics import GLOBAL, KEPT, read, topic
from schemas.wire import Malformed, Message
from streams.letters import objection
from streams.models import Lost, assemble_global, fetch_global
from streams.processor import Effect, Ends, Follow, Input, Record, Unfollow, send

Scorer = Callable[[TaskSpec, npt.NDArray[np.float32]], tuple[float, float, int]]
"""A task and a flat model -> accuracy on held-out data, mean loss, number of samples."""


class Evaluator(Listener):
    """Scores the models that nobody has scored: what the ledger names beyond the last score of each task.

    Of a task that ended while no evaluator was there it scores the last model, if the task is over for no longer than deltas are kept.
    Of versions that are deleted by now it says nothing, where newer ones took their place. Two evaluators score much twice; they come to
    the same.
    """

    tick = 1_000

    def __init__(self, namespace: str, name: str, life: str, scorer: Scorer):
        super().__init__(namespace, "evaluations", name)
        self.scorer = scorer
        self.metrics, self.tasks = (topic(namespace, GLOBAL, w) for w in ("metrics", "tasks"))
        self.waiting: deque[tuple[TaskSpec, Manifest | Last]] = deque()
        """Models to be scored, each with its task as it stood: that may be over before its last one's turn comes."""
        self.scores: dict[str, Evaluation] = {}
        """By task that is not over, the last, whoever gave it."""
        self.missed: dict[str, Submission | None] = {}
        """Tasks that ended while no evaluator was there, with what was submitted, once that is read."""
        self.begun = False
        self.tasks_end = 0

    @property
    def left(self) -> int:
        """How many models are still to be scored."""
        return len(self.waiting) + sum(len(asked) == 2 for asked in self.requests.open.values()) if self.begun else 0

    def _handle(self, event: Input, now: int) -> Iterator[Effect]:
        if isinstance(event, Record) and event.topic == self.tasks.name:
            yield from self._submitted(event)
        else:
            yield from super()._handle(event, now)

    def _jumped(self) -> Iterator[Effect]:
        """Of each task that is not over the model it has by now; of those that were not, and are over by now, the last."""
        over = self.reading.state.over
        self.waiting += [(t.spec, t.manifest) for t in self.reading.state.tasks.values()]
        ended = {task: e.version for task, e in self.scores.items() if task in over} if self.begun else {}
        for task in ended:
            del self.scores[task]
        yield from self._miss([task for task, n in ended.items() if n < over[task].model.version])

    def _miss(self, tasks: Iterable[str]) -> Iterator[Effect]:
        """Ask what was submitted of tasks that are over, to score their last models."""
        asked = bool(self.missed)
        self.missed |= dict.fromkeys(tasks)
        if self.missed and not asked:
            yield Ends(self.requests.new(("tasks",)), self.tasks.name)

    def _holds(self, fact: Message | None) -> None:
        match fact:
            case TaskAdmitted():
                self.waiting.append((fact.spec, fact.manifest))
            case Merged(manifest=Manifest() as manifest):
                self.waiting.append((self.reading.state.tasks[fact.task].spec, manifest))
            case TaskEnded() if self.begun:
                self.scores.pop(fact.task, None)

    def _hear(self, record: Record, message: Message) -> None:
        if isinstance(message, Evaluation) and record.key == message.task and self._new(message.task, message.version):
            if self.begun and message.task not in self.reading.state.tasks:
                return
            self.scores[message.task] = message

    def _new(self, task: str, version: int) -> bool:
        return task not in self.scores or self.scores[task].version < version

    def _next(self, now: int) -> Iterator[Effect]:
        if self._ready and not self.begun:
            self.begun = True
            yield from self._begin(now)
        while self.begun and self.waiting and not self.requests.open:
            spec, model = self.waiting.popleft()
            if self._new(spec.task, model.version):
                yield fetch_global(self.namespace, model, self.requests, spec, model)

    def _begin(self, now: int) -> Iterator[Effect]:
        """All is read that was there: what of it is to be scored?"""
        over = self.reading.state.over
        young = {task for task, x in over.items() if x.time >= now - KEPT}
        wanted = [(s, m) for s, m in self.waiting if s.task in young or s.task not in over]
        self.waiting = deque((s, m) for s, m in wanted if self._new(s.task, m.version))
        there = {(s.task, m.version) for s, m in wanted}
        last = {task: over[task].model.version for task in young}
        missed = [t for t, n in last.items() if self._new(t, n) and (t, n) not in there]
        self.scores = {task: e for task, e in self.scores.items() if task in self.reading.state.tasks}
        yield from self._miss(missed)

    def _submitted(self, record: Record) -> Iterator[Effect]:
        """A record of `global.tasks`, which is read for those that were missed: what held for one is where the ledger says."""
        over = self.reading.state.over
        with suppress(Malformed):
            s = read(record.topic, record.value, record.headers)
            if (
                isinstance(s, Submission)
                and record.key == (task := s.spec.task) in self.missed
                and record.offset == over[task].submission
            ):
                self.missed[task] = s
        if record.offset + 1 >= self.tasks_end:
            self.waiting += [(s.spec, over[task].model) for task, s in self.missed.items() if s]
            self.missed = {}
            yield Unfollow(self.tasks.name, 0)

    def _got(self, meaning: Any, value: Any, now: int) -> Iterator[Effect]:
        match meaning:
            case ("tasks",):
                self.tasks_end = value[0]
                yield Follow(self.tasks.name, 0, 0)
            case (spec, model):
                yield from self._score(spec, model, value, now)

    def _score(self, spec: TaskSpec, model: Manifest | Last, found: dict[str, bytes], now: int) -> Iterator[Effect]:
        task, epoch = spec.task, model.version
        if not self._new(task, epoch):  # another evaluator was quicker
            return
        try:
            scores = self.scorer(spec, assemble_global(model, found))
            evaluation = Evaluation(self.name, now, task, epoch, model.version, *scores)
            if task in self.reading.state.tasks:
                self.scores[task] = evaluation
            yield send(self.metrics, evaluation, self.name)
            yield send(self.topic, evaluation, task)  # last: who is killed in between says it again
        except Exception as e:  # whatever a tenant's model or data raise: it is that task's fault, and theirs to read
            if isinstance(e, Lost) and epoch < self._newest(task):
                self._leave_out(task)
                return
            reason = f"epoch {epoch} cannot be scored: {type(e).__name__}: {e}"
            yield objection(self.namespace, self.name, task, reason, now)

    def _newest(self, task: str) -> int:
        """The version of the task's model by now."""
        globe = self.reading.state
        return globe.over[task].model.version if task in globe.over else globe.tasks[task].manifest.version

    def _leave_out(self, task: str) -> None:
        """Versions of a task are being deleted: score the newest alone."""
        newest = self._newest(task)
        self.waiting = deque((s, m) for s, m in self.waiting if s.task != task or m.version >= newest)
