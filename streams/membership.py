"""Being a member of a Kafka consumer group, only to learn which seats one has.

The consumer here is never polled and reads nothing: who has a seat follows partitions by a reader of its own.
Assignment is sticky, which in aiokafka 0.14 needs help: its assignor keeps its state on the class, so every consumer
gets a class of its own, and nobody tells it the generation, so we do. That touches private attributes; the contract
suite looks whether they still mean the same.
"""

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition, errors
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.protocol.group import LeaveGroupRequest

from streams.processor import Membership
from streams.queries import RECONNECT, TROUBLE, Cluster, Refused, close, pause
from streams.stranded import Stranded

log = logging.getLogger(__name__)


class _Notes(ConsumerRebalanceListener):
    """No heartbeat runs in these calls: they note what changed and return."""

    def __init__(self, consumer: AIOKafkaConsumer, own: type, assigned: Callable[[frozenset[int]], None]):
        self._consumer, self._own, self._assigned = consumer, own, assigned
        self._last: tuple[str, frozenset[int]] | None = None

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        pass  # all of them at each rebalance; most come back

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        coordinator = self._consumer._coordinator
        self._own.on_generation_assignment(coordinator.generation)  # type: ignore[attr-defined]
        self._consumer.pause(*assigned)  # nothing is to be fetched
        now = (coordinator.member_id, frozenset(tp.partition for tp in assigned))
        if now != self._last:  # a member that was put out and came back is told, even if its seats are the same
            self._last = now
            self._assigned(now[1])


class Member:
    """A member of a group, as long as `run` runs; cancelled, it leaves."""

    def __init__(
        self,
        cluster: Cluster,
        client_id: str,
        membership: Membership,
        session_timeout_ms: int,
        assigned: Callable[[frozenset[int]], None],
        again: Counter[str] | None = None,
    ):
        self._again = Counter() if again is None else again
        self._cluster, self._client_id, self._membership = cluster, client_id, membership
        self._session_timeout_ms, self._assigned = session_timeout_ms, assigned

    async def run(self) -> None:
        """Raises `Refused`."""
        attempt = 0
        while True:
            try:
                await self._cluster.known(self._membership.topic, math.inf)
                await self._belong()
            except errors.GroupAuthorizationFailedError:
                raise Refused(
                    f"this login may not join group {self._membership.group} (Read); docs/isolation.md says who needs what"
                ) from None
            except TROUBLE as e:
                self._again["joining"] += 1
                log.warning("group %s: joining again after %r", self._membership.group, e, extra=RECONNECT)
                await asyncio.sleep(pause(attempt))
                attempt += 1

    async def _belong(self) -> None:
        class Own(StickyPartitionAssignor):
            pass

        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._cluster.bootstrap,
            client_id=self._client_id,
            group_id=self._membership.group,
            enable_auto_commit=False,
            auto_offset_reset="latest",  # it reads nothing, but must have some
            partition_assignment_strategy=[Own],
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=min(3000, self._session_timeout_ms // 5),
            rebalance_timeout_ms=self._session_timeout_ms,
            max_poll_interval_ms=math.inf,  # never polled; 2**31 - 1 would put it out after 25 days
            **self._cluster.security.settings(),
        )
        try:
            await consumer.start()
            consumer.subscribe([self._membership.topic], listener=_Notes(consumer, Own, self._assigned))
            stranded = Stranded(consumer._client)
            while True:
                await asyncio.sleep(0.5)
                consumer._coordinator.check_errors()  # polling would do it; unseen, an error stops all coordination
                if await stranded.by(self._cluster.bootstrap):  # whoever joins anew is waited for as who it was
                    raise errors.KafkaError("no broker that it knows answers")
        finally:
            await asyncio.gather(close(consumer), _leave(consumer))


async def _leave(consumer: AIOKafkaConsumer) -> None:
    """Leave the group of a consumer that is being closed, also while it waits for a join.

    aiokafka leaves only once a join is answered, which takes a session if another member has died; by then closing has given up, and
    the next join waits for us, too. Kafka answers one request of a connection after the other, so this one goes by another.
    """
    await asyncio.sleep(0)  # closing has begun: it does not join again
    coordinator = consumer._coordinator
    node, member = getattr(coordinator, "coordinator_id", None), getattr(coordinator, "member_id", "")
    if node is not None and member:
        with contextlib.suppress(TimeoutError, errors.KafkaError):
            async with asyncio.timeout(2):
                await consumer._client.send(node, LeaveGroupRequest(coordinator.group_id, member))
