"""A task's global model out of the log: `olearning export`."""

from collections.abc import Callable, Iterable, Iterator
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
    task runs, then its record in `global.tasks`; `layout` where that is gone.
    """

    def __init__(
        self,
        namespace: str,
        task: str,
        take: Take,
        epoch: int | None = None,
        follow: bool = False,
        layout: Layout | None = None,
    ):
        super().__init__(namespace, "tasks", f"export-{task}")
        self.task, self.take, self.epoch, self.follow, self.layout = task, take, epoch, follow, layout
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
            if over and self.said and not self.layout:
                self.layout = self.said.get(over.submission) or self.said[max(self.said)]
            yield self._first(globe)
        elif self.follow and (newer := [n for n in self.models if n > self.asked]):
            yield self._ask(min(newer))
        elif not self.follow or over:
            yield Stop(f"{self.task}: that is all", ok=True)

    def _first(self, globe: Globe) -> Effect:
        if not self.models:
            there = ", ".join(sorted({*globe.tasks, *globe.over})) or "none"
            return Stop(f"there is no task {self.task}; there: {there}")
        if self.layout is None:
            return Stop(
                f"what tensors {self.task} has is kept no more, since it is over for long (`olearning prune --topics`): "
                "name its task file (--task-file)"
            )
        if (epoch := max(self.models) if self.epoch is None else self.epoch) not in self.models:
            known = ", ".join(map(str, sorted(self.models)))
            return Stop(
                f"no model of epoch {epoch} of {self.task} is known: the ledger, from its last checkpoint on, names those of {known}"
            )
        return self._ask(epoch)

    def _ask(self, epoch: int) -> Fetch:
        self.asked, model = epoch, self.models[epoch]
        self.models = {n: m for n, m in self.models.items() if n >= epoch}
        return fetch_global(self.namespace, model, self.requests, model)

    def _got(self, meaning: Any, value: Any, now: int) -> Iterable[Effect]:
        assert self.layout
        (model,) = meaning
        try:
            vector = assemble_global(model, value)
        except Lost as e:
            yield Stop(f"{e}: `olearning prune` deletes versions that no ledger names any more")
            return
        if vector.size != sum(self.layout.sizes):
            yield Stop(
                f"the model of {self.task} has {many(vector.size, 'value')}, and its tensors {sum(self.layout.sizes):,}: that is another task's file"
            )
            return
        self.take(model.version, self.layout, vector)
