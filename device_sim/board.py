"""What is announced in a zone, as an edge keeps it for its devices."""

from dataclasses import dataclass, field

from schemas.messages import Announcement
from schemas.sharing import SharingPlan


@dataclass
class Board:
    """What is announced in a zone, for all its devices; kept by the edge. By task: the last round, when it was heard (ms), and why the
    devices here cannot train it, or "". And the plan of the zone's sharing policy, if there is one."""

    zone: str
    rounds: dict[str, Announcement] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    objections: dict[str, str] = field(default_factory=dict)
    plan: SharingPlan | None = None

    def newer(self, a: Announcement) -> bool:
        """Whether it says more than what is known of its task: what comes late, or again, does not."""
        last = self.rounds.get(a.task)
        return last is None or last.cause.ledger != a.cause.ledger or last.cause.offset < a.cause.offset

    def takes(self, task: str, round: int) -> bool:
        """Whether a delta of that round may still count, as far as is announced."""
        return (a := self.rounds.get(task)) is not None and a.takes(round)

    def replan(self, plan: SharingPlan) -> bool:
        """Note a plan; whether it is another one, and no older."""
        if self.plan and (plan == self.plan or plan.at < self.plan.at):
            return False
        self.plan = plan
        return True
