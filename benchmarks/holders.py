"""Who holds which shard, as the ledger says now."""

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.ledger import Ledger, Zone
from streams.processor import Record


async def holders(bootstrap: str, ledger: str) -> dict[int, str]:
    """Shard -> name of its holder; a shard that nobody holds is left out."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        tp = TopicPartition(ledger, 0)
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        consumer.seek(tp, 0)
        fold: Ledger[Zone] = Ledger(Zone())
        while fold.state.position < end:
            for r in (await consumer.getmany(timeout_ms=100)).get(tp, ()):
                fold.feed(Record(ledger, 0, r.offset, None, r.value, r.timestamp, r.headers))
        return {s: h.holder for s, h in enumerate(fold.state.shards) if h.holder}
    finally:
        await consumer.stop()
