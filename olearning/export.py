"""A task's global model out of the log: `olearning export`."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from olearning.figures import many
from processors.speaker import Listener
from schemas.blocks import Last, Layout, Manifest
from schemas.task import Submission
from schemas.wire import Message
from streams.ledger import Globe
from streams.models import Lost, assemble_global, fetch_global
from streams.processor import Effect, Fetch, Record, Stop

Take = Callable[[int, Layout, npt.NDArray[np.float32]], None]
"""An epoch (0: the untrained model), the layout, and the model (n,)."""


class Export(Listener):
    """Hands a model of a task to `take`, and stops: that of an `epoch`, else the last. With `follow` it goes on with each that comes, until
    the task is over.

    Which epochs there are it knows from the global ledger, from its last checkpoint on. Which tensors there are says the ledger while the
    task runs, then its record in `global.tasks`; `layout` where that is gone. `say` hears of what could not be had on the way.
    """

    def __init__(
        self,
        namespace: str,
        task: str,
        take: Take,
        epoch: int | None = None,
        follow: bool = False,
        layout: Layout | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        super().__init__(namespace, "tasks", f"export-{task}")
        self.task, self.take, self.epoch, self.follow, self.say = task, take, epoch, follow, say
        self.layout: Layout | None = None
        self.given = layout
        self.said: dict[int, Layout] = {}
        """By offset, what the task's records in `global.tasks` say of its tensors."""
        self.models: dict[int, Manifest | Last] = {}
        """By epoch, where those models lie that the ledger named since it is read."""
        self.asked: int | None = None
        """The epoch whose model was asked for last."""

    def _hear(self, record: Record, message: Message) -> None:
        if isinstance(message, Submission) and record.key == message.spec.task == self.task:
            self.said[record.offset] = message.layout

    def _next(self, now: int) -> Iterator[Effect]:
        globe = self.reading.state
        t, over = globe.tasks.get(self.task), globe.over.get(self.task)
        if t:
            self.layout, self.models[t.manifest.version] = t.layout, t.manifest
        elif over:
            self.models.setdefault(over.model.version, over.model)
        if not self._ready or self.requests.open:
            return
        if self.asked is None:
            if over and not self.layout:
                self.layout = self.said.get(over.submission, self.given)
            yield from self._first(globe)
        elif self.follow and (newer := [n for n in self.models if n > self.asked]):
            yield self._ask(min(newer))
        elif not self.follow or over:
            yield Stop(f"{self.task}: that is all", ok=True)

    def _first(self, globe: Globe) -> Iterator[Effect]:
        epoch = max(self.models, default=0) if self.epoch is None else self.epoch
        refused = globe.refused.get(self.task)
        if not self.models and self.said and refused and refused.submission >= max(self.said):
            yield Stop(f"{self.task} is refused: {refused.reason}")
        elif not self.models and self.said:
            if not self.follow:
                yield Stop(f"{self.task} is submitted, and not admitted yet: it has no model (--follow waits)")
        elif not self.models:
            there = ", ".join(sorted({*globe.tasks, *globe.over})) or "none"
            yield Stop(f"there is no task {self.task}; there: {there}")
        elif self.layout is None:
            yield Stop(
                f"what tensors {self.task} has is kept no more, since it is over for long (`olearning prune --topics`): "
                "name its task file (--task-file)"
            )
        elif epoch not in self.models:
            known = ", ".join(map(str, sorted(self.models)))
            yield Stop(
                f"no model of epoch {epoch} of {self.task} is known: the ledger, from its last checkpoint on, names those of {known}"
            )
        else:
            yield self._ask(epoch)

    def _ask(self, epoch: int) -> Fetch:
        self.asked, model = epoch, self.models[epoch]
        self.models = {n: m for n, m in self.models.items() if n >= epoch}
        return fetch_global(self.namespace, model, self.requests, model)

    def _got(self, meaning: Any, value: Any, now: int) -> Iterator[Effect]:
        assert self.layout
        (model,) = meaning
        try:
            vector = assemble_global(model, value)
        except Lost as e:
            why = f"{e}; `olearning prune` deletes versions that no ledger names any more"
            if self.follow and max(self.models) > model.version:
                self.say(why)
            else:
                yield Stop(why)
            return
        if vector.size != sum(self.layout.sizes):
            yield Stop(
                f"the model of {self.task} has {many(vector.size, 'value')}, and its tensors {sum(self.layout.sizes):,}: that is another task's file"
            )
            return
        try:
            self.take(model.version, self.layout, vector)
        except OSError as e:
            yield Stop(f"cannot write {e.filename or 'the model'}: {e.strerror or e}")
