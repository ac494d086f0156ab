"""What the devices behind a gateway hear: what is said to all of its zone, of each task the last; and what is for one of them alone.

A device asks with the cursor that it was given last, and gets what came since.
"""

from collections import OrderedDict, deque
from itertools import takewhile

import msgspec

Letter = tuple[int, str, bytes]
"""(number, which topic, message)."""
MOST_OVER = 100
"""Last words on tasks that are kept for devices which have not heard them."""


class News:
    """Of one life of a gateway: a cursor of another one is none."""

    def __init__(self, life: str, zone: str):
        self.life, self.zone = life, zone
        self._seq = 0
        self._all: OrderedDict[str, Letter] = OrderedDict()
        """By task, and the plan under its key: what was said last to all, the newest last."""
        self._same: tuple[tuple[int, int, int], bytes] = (0, 0, 0), b""
        """The last letters without mail: how many of the news, up to which message, at what time. What is said to all is said to thousands
        at once, and is made once."""
        self._over: deque[str] = deque()

    @property
    def newest(self) -> int:
        """The number of what was said last to all; 0: nothing was."""
        return next(reversed(self._all.values()), (0, "", b""))[0]

    def publish(self, key: str, raw: bytes) -> None:
        """Say it to all, in the place of what was said before."""
        self._seq += 1
        self._all[key] = self._seq, "announcements", raw
        self._all.move_to_end(key)

    def over(self, task: str) -> None:
        """The next that is published of a task is the last."""
        self._over.append(task)
        if len(self._over) > MOST_OVER:
            self._all.pop(self._over.popleft(), None)

    def put(self, mail: deque[Letter], what: str, raw: bytes) -> None:
        """Say it to one."""
        self._seq += 1
        mail.append((self._seq, what, raw))

    def after(self, cursor: str) -> int:
        """The message up to which a device has heard all."""
        life, _, seq = cursor.rpartition(":")
        return int(seq) if life == self.life and seq.isdecimal() else 0

    def letters(self, mail: deque[Letter], after: int, now: int) -> bytes:
        """What came after that message, as it travels."""
        news = list(takewhile(lambda x: x[0] > after, reversed(self._all.values())))
        what = len(news), self._seq if news else after, now
        if mail or self._same[0] != what:
            new = sorted([*news, *(x for x in mail if x[0] > after)], key=lambda x: x[0])
            messages = [{"topic": topic, "message": msgspec.Raw(raw)} for _, topic, raw in new]
            cursor = f"{self.life}:{self._seq if new else after}"
            body = msgspec.msgpack.encode({"cursor": cursor, "now": now, "zone": self.zone, "messages": messages})
            if not mail:
                self._same = what, body
            return body
        return self._same[1]
