"""Who reads a topic of the globe and the global ledger to their ends, and then acts: by saying one thing there, perhaps."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed, Message
from streams.ledger import Globe
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Requests, Send, Stop, send
from streams.reading import WRONG, Reading


class Listener:
    """Reads the topic to the end that it has, and the global ledger, and goes on reading both; `_next` says what comes of it."""

    membership: Membership | None = None
    tick = 100

    def __init__(self, namespace: str, what: str, name: str):
        self.namespace, self.name = namespace, name
        self.topic = topic(namespace, GLOBAL, what)
        self.reading = Reading(namespace, GLOBAL, Globe(), self._jumped)
        self.requests = Requests()
        self.end: int | None = None
        self.read = 0

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.reading.start()
        yield Ends(self.requests.new(("end",)), self.topic.name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            for effect in self._handle(event, now):
                yield effect
                if isinstance(effect, Stop):
                    return
        except WRONG as e:
            yield Stop(str(e))
            return
        yield from self._next(now)

    def _handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record(topic=name) if name == self.topic.name:
                self.read = event.offset + 1
                with suppress(Malformed):  # the coordinator says so
                    self._hear(event, read(name, event.value, event.headers))
            case Record(topic=name):
                got = yield from next(r for r in self._readings() if r.topic == name).record(event)
                if got and not got[1]:
                    self._holds(got[0])
            case Answer() if (effects := self._answered(event)) is not None:
                yield from effects
            case Answer(error=error) if error:
                yield Stop(f"{self.name}: {error}")
            case Answer(tag, value):
                match self.requests.close(tag):
                    case ("end",):
                        self.end = value[0]
                        yield Follow(self.topic.name, 0, 0)
                    case meaning:
                        yield from self._got(meaning, value, now)

    def _readings(self) -> Iterator[Reading]:
        """Of the ledgers that it reads."""
        yield self.reading

    def _answered(self, answer: Answer) -> list[Effect] | None:
        return next((effects for r in self._readings() if (effects := r.answer(answer)) is not None), None)

    @property
    def _ready(self) -> bool:
        """Whether all is read that was there."""
        return self.reading.caught_up and self.end is not None and self.read >= self.end

    def _jumped(self) -> Iterable[Effect]:
        """The global ledger is read from a checkpoint on."""
        return ()

    def _holds(self, fact: Message | None) -> None:
        """A fact of a ledger was accepted."""

    def _hear(self, record: Record, message: Message) -> None:
        """A record of the topic."""
        raise NotImplementedError

    def _got(self, meaning: Any, value: Any, now: int) -> Iterable[Effect]:
        """The answer to what was asked with that meaning."""
        raise NotImplementedError

    def _next(self, now: int) -> Iterator[Effect]:
        """What comes of what is known now."""
        raise NotImplementedError


class Speaker(Listener):
    """Says what is to be said, once, and stops with the verdict in the ledger: `submission` is where that landed, or -1."""

    def __init__(self, namespace: str, what: str, name: str, patience: int):
        super().__init__(namespace, what, name)
        self.patience = patience
        self.submission = -1
        self.began = 0

    def start(self, now: int) -> Iterator[Effect]:
        self.began = now
        yield from super().start(now)

    def _say(self, message: Message, key: str) -> Send:
        return send(self.topic, message, key, tag=self.requests.new(("sent",)))

    def _got(self, meaning: Any, value: Any, now: int) -> Iterable[Effect]:
        if meaning == ("sent",):
            self.submission = value[1]
        return ()
