"""Submitting a task: version 0 of its model, then the task itself, then the configurator's verdict."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from schemas.blocks import Layout
from schemas.modules import Structure
from schemas.task import Submission, TaskSpec
from schemas.topics import GLOBAL, topic
from streams.ledger import Globe
from streams.models import Writing
from streams.processor import Answer, Effect, Ends, Input, Membership, Record, Requests, Stop, send
from streams.reading import WRONG, Reading


class Submitter:
    """Stops when the ledger has the verdict: ok if the task is admitted, else with the reason."""

    membership: Membership | None = None
    tick = 100

    def __init__(
        self,
        namespace: str,
        life: str,
        spec: TaskSpec,
        layout: Layout,
        vector: npt.NDArray[np.float32],
        seed: int = 0,
        patience: int = 30_000,
        structure: Structure | None = None,
    ):
        """`structure` of a modular task's model."""
        self.name, self.life, self.patience = f"submit-{spec.task}", life, patience
        self.namespace, self.spec, self.layout, self.vector, self.seed = namespace, spec, layout, vector, seed
        self.structure = structure
        self.models, self.tasks = topic(namespace, GLOBAL, "models"), topic(namespace, GLOBAL, "tasks")
        self.reading = Reading(namespace, GLOBAL, Globe())
        self.ledger = self.reading.ledger
        self.requests = Requests()
        self.partitions = 0
        self.writing: Writing | None = None
        self.submission = -1
        self.began = 0

    def start(self, now: int) -> Iterator[Effect]:
        self.began = now
        yield from self.reading.start()
        yield Ends(self.requests.new(("models",)), self.models.name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            yield from self._handle(event, now)
        except WRONG as e:
            yield Stop(str(e))

    def _handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record():
                yield from self.reading.record(event)
            case Answer() if (effects := self.reading.answer(event)) is not None:
                yield from effects
            case Answer(error=error) if error:
                yield Stop(f"{self.name}: {error}")
                return
            case Answer(tag, value):
                match self.requests.close(tag):
                    case ("models",):
                        self.partitions = len(value)
                    case ("block", key) if self.writing and self.writing.stored(key, value):
                        submission = Submission(
                            self.spec, self.layout, self.writing.manifest, self.seed, structure=self.structure
                        )
                        tag = self.requests.new(("submitted",))
                        yield send(self.tasks, submission, self.spec.task, tag=tag)
                    case ("submitted",):
                        self.submission = value[1]
        yield from self._next(now)

    def _next(self, now: int) -> Iterator[Effect]:
        globe, task = self.ledger.state, self.spec.task
        if self.writing is None:
            if self.partitions and self.reading.caught_up:
                if globe.knows(task):
                    yield Stop(f"a task named {task} exists already, and names are never used again: choose another")
                    return
                self.writing = Writing(self.models, self.partitions, task, 0, self.life, self.vector, self.layout.sizes)
                yield from self.writing.sends(self.requests, "block")
        elif admitted := globe.tasks.get(task):
            mine = admitted.manifest.blocks[0].key == self.writing.first
            taken = f"a task named {task} was submitted by someone else just now: choose another name"
            yield Stop(f"{task} runs in {', '.join(admitted.zones)}" if mine else taken, ok=mine)
        elif task in globe.over:
            yield Stop(f"{task} has ended: {globe.over[task].why}")
        elif (refused := globe.refused.get(task)) and 0 <= self.submission <= refused.submission:  # or a copy of it
            yield Stop(f"{task} is refused: {refused.reason}")
        if now - self.began > self.patience:
            yield Stop(f"no verdict on {task} within {self.patience / 1000:g} s: {self._why()}")

    def _why(self) -> str:
        globe = self.ledger.state
        if not globe.leader.token:
            return "there is no global coordinator (olearning run global)"
        if wanted := [z for z in self.spec.zones if z not in globe.zones]:
            return f"zones {', '.join(wanted)} have not joined; joined: {', '.join(globe.zones) or 'none'}"
        return f"does the global coordinator run, and the coordinators of its zones? Joined: {', '.join(globe.zones) or 'none'}"
