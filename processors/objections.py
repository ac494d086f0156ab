"""What a leader cannot do for a task: said once on the metrics. That task stands still; the others go on.

A strategy of one's own is code that this process may lack, or that fails. Neither may end a leader, which others need, and no
ledger fact comes of it: whoever leads next and has the code goes on where the task stands.
"""

from collections.abc import Iterator

from learning.strategies import unknown
from schemas.task import Server
from streams.letters import objection
from streams.processor import Send


class Objections:
    def __init__(self, namespace: str, name: str):
        self.namespace, self.name = namespace, name
        self.failed: dict[str, str] = {}
        """By task, how its strategy failed in this leadership."""
        self.said: dict[str, str] = {}

    def why(self, task: str, server: Server) -> str:
        """Why the server's step cannot be done here, or ""."""
        return unknown(server) or self.failed.get(task, "")

    def say(self, task: str, reason: str, now: int) -> Iterator[Send]:
        if self.said.get(task) != reason:
            self.said[task] = reason
            yield objection(self.namespace, self.name, task, reason, now)
