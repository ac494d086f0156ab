"""Every metric there is. What a role shows is taken from here, and so is docs/metrics.md: `python -m olearning.telemetry.metrics`.

Names are in base units (seconds, bytes; counters end in `_total`). Labels are bounded: by zones, tasks and tenants that were
admitted, and by words of this code. A device's name is never one, nor is text that a stranger wrote.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import add

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from streams.pulse import BOUNDS

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
ROUNDS = (1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1_800.0, 3_600.0, 10_800.0)
"""Seconds: bounds for how long rounds take."""
EVERY, COORDINATORS, ZONE, GLOBE, AGGREGATOR, SCHEDULER, EVALUATOR, EDGE, VIEW = (
    "every role", "global and zone", "zone", "global", "aggregator", "scheduler", "evaluator", "fleet and gateway", "up, monitor",
)  # fmt: skip
"""Who shows it."""


@dataclass(frozen=True)
class Metric:
    """A row of the list. `name` without `_total`: the library appends it."""

    by: str
    kind: str
    name: str
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    joined: Callable[[float, float], float] = add
    """What two roles of one process make of a series that both show."""

    @property
    def full(self) -> str:
        """As it is asked for."""
        return f"{self.name}_total" if self.kind == COUNTER else self.name


def _m(
    by: str, kind: str, name: str, labels: str, about: str, bounds: tuple[float, ...] = (), joined: Callable = add
) -> Metric:
    return Metric(by, kind, f"olearning_{name}", about, tuple(labels.split()), bounds, joined)


# ------------------------------------------------------------------ every role

INFO = _m(
    EVERY, GAUGE, "role_info", "role name zone version", "1: this role runs here; `zone` is empty for the globe's"
)
READY = _m(
    EVERY, GAUGE, "ready", "role name", "1 once it has read its ledgers to the ends they had, else 0; as `/readyz`"
)
LAG = _m(
    EVERY, GAUGE, "loop_lag_seconds", "", "the longest that the event loop made others wait in the last 15 to 30 s"
)
RUNS = _m(
    EVERY,
    HISTOGRAM,
    "handle_seconds",
    "",
    "how long a processor took for a run of inputs: one, or up to 32 records",
    BOUNDS,
)
QUEUE = _m(EVERY, GAUGE, "input_queue", "", "inputs that are ready and not handed over yet")
READ = _m(
    EVERY,
    COUNTER,
    "read_records",
    "lane",
    "records that were handed over; `lane`: control, mail (devices' words) or bulk (tensors)",
)
READ_BYTES = _m(EVERY, COUNTER, "read_bytes", "lane", "their values' bytes")
SENT = _m(EVERY, COUNTER, "sent_records", "lane", "records that were sent")
SENT_BYTES = _m(EVERY, COUNTER, "sent_bytes", "lane", "their values' bytes")
AGAIN = _m(
    EVERY,
    COUNTER,
    "reconnects",
    "what",
    "clients replaced or questions put again after trouble with the broker: reading, appending, asking, joining",
)
LETTERS = _m(
    EVERY, COUNTER, "dead_letters", "what", "dead letters that it wrote, by the kind of topic the record was in"
)
LEADER = _m(
    "global, zone, scheduler",
    GAUGE,
    "leader",
    "scope",
    "1 for who leads a zone, the globe, or speaks as scheduler; 0 for who stands by",
    joined=max,
)

# ------------------------------------------------------------------ ledgers

FACTS = _m(COORDINATORS, COUNTER, "facts", "scope fact", "facts of its ledger that it saw accepted since it started")
VOIDS = _m(
    COORDINATORS, COUNTER, "facts_void", "scope fact", "facts of its ledger that it saw refused (void) since it started"
)
RECORDS = _m(COORDINATORS, COUNTER, "ledger_records", "scope", "records of its ledger below the fold's position")
UNCHECKED = _m(
    COORDINATORS,
    GAUGE,
    "ledger_records_after_checkpoint",
    "scope",
    "records since the last checkpoint: what a restart reads at least",
)

# ------------------------------------------------------------------ a zone, from the fold of its ledger

BLOCKS = _m(
    ZONE,
    COUNTER,
    "blocks",
    "zone task outcome",
    "offsets of delta logs that commits cover, by outcome: counted, duplicate, late, invalid, incomplete, lost",
)
IDENTITY = _m(
    "zone, up, monitor",
    GAUGE,
    "identity_ok",
    "zone task",
    "1: every offset of the task's delta logs has exactly one outcome; 0: the books do not balance",
    joined=min,
)
STILL = _m(
    ZONE, GAUGE, "task_lost", "zone task", "1: the task stands still on a loss until a person gives it up, else 0"
)
OPENED = _m(ZONE, COUNTER, "rounds_opened", "zone task", "rounds that were opened")
CLOSED = _m(
    ZONE, COUNTER, "rounds_closed", "zone task why", "rounds closed since it started: demand, deadline, and so on"
)
FINALISED = _m(
    ZONE, COUNTER, "rounds_finalised", "zone task outcome", "rounds finalised since it started: model, or failed"
)
TO_CLOSE = _m(ZONE, HISTOGRAM, "round_close_seconds", "zone", "from a round's opening to its close", ROUNDS)
TO_END = _m(ZONE, HISTOGRAM, "round_seconds", "zone", "from a round's opening to its result", ROUNDS)
STATE = _m(
    ZONE,
    GAUGE,
    "round_state",
    "zone task state",
    "1 for the state that the task's round is in: open, closed, finalised",
)
DEADLINE = _m(
    ZONE, GAUGE, "round_deadline_timestamp_seconds", "zone task", "the deadline of a round that has no result yet"
)
SLOTS = _m(
    ZONE, GAUGE, "round_slots", "zone task state", "slots of the present round: admitted, delivered, lapsed, given-up"
)
DEMAND = _m(ZONE, GAUGE, "round_demand", "zone task", "devices that the present round wants")
STARVED = _m(ZONE, GAUGE, "rounds_starved", "zone task", "rounds in a row, up to the last, that got too few devices")
LOSS = _m(ZONE, GAUGE, "round_loss", "zone task", "mean loss of a sample in the last round that gave a model, in nats")
ADMITTED = _m(ZONE, COUNTER, "admissions", "zone task", "slots that were given")
REGISTERED = _m(ZONE, COUNTER, "registrations", "zone", "registrations that are dealt with")
WAITING = _m(ZONE, GAUGE, "registrations_waiting", "zone", "registrations that are read and not dealt with")
REFUSED = _m(
    ZONE,
    COUNTER,
    "refusals",
    "zone reason",
    "registrations refused since it started: not-open, needs, blocks, late, full, quota, plan",
)
NOBODY = _m(ZONE, GAUGE, "shards_unheld", "zone", "shards that no aggregator holds")
HUNGRY = _m(ZONE, GAUGE, "tenant_rounds_waiting", "zone tenant", "a tenant's open rounds that want more devices")
PLACE = _m(
    ZONE,
    GAUGE,
    "plan_place",
    "zone task policy",
    "the task's place in the sharing policy's plan, from 1, where its devices take it soonest; shown by who leads, of tasks that are in it",
)
SPENT = _m(
    ZONE, GAUGE, "tenant_day_bytes", "zone tenant", "bytes that a tenant's devices may have moved here today (UTC)"
)

# ------------------------------------------------------------------ the globe

TASKS = _m(
    GLOBE, GAUGE, "tasks", "state", "tasks by state: admitted, open, closed, merged; those that ended are left out"
)
EPOCH = _m(GLOBE, GAUGE, "epoch", "task", "the task's epoch")
MERGED = _m(GLOBE, COUNTER, "epochs_merged", "task outcome", "epochs that ended since it started: model, or nothing")
PRESENT = _m(
    GLOBE,
    GAUGE,
    "devices_present",
    "zone",
    "devices that checked in within a day and did not say goodbye, while it leads",
)
TENANT_TASKS = _m(GLOBE, GAUGE, "tenant_tasks", "tenant", "a tenant's tasks that have not ended")
TENANT_DEVICES = _m(GLOBE, GAUGE, "tenant_devices", "tenant", "devices at work for it")
TENANT_WEIGHT = _m(GLOBE, GAUGE, "tenant_weight", "tenant", "what it weighs")
TENANT_QUOTA = _m(
    GLOBE,
    GAUGE,
    "tenant_quota",
    "tenant of",
    "what it may have at most, of tasks, devices, bytes (a day); left out where there is no limit",
)
SHARING = _m(GLOBE, GAUGE, "sharing_policy_info", "policy", "1: by this policy devices are shared")

# ------------------------------------------------------------------ the others

HELD = _m(AGGREGATOR, GAUGE, "shards_held", "zone", "shards that it holds by the ledger")
COMMITS = _m(AGGREGATOR, COUNTER, "commits", "zone outcome", "its own commits since it started: accepted, or void")
TAKEN = _m(AGGREGATOR, COUNTER, "aggregated_blocks", "zone task", "delta blocks that it read since it took up the task")
TAKEN_BYTES = _m(AGGREGATOR, COUNTER, "aggregated_bytes", "zone task", "their bytes")
UNREAD = _m(
    AGGREGATOR, GAUGE, "unread_blocks", "zone task", "blocks that lie in the logs of its shards and are not read"
)
BACKLOG = _m(AGGREGATOR, GAUGE, "backlog_bytes", "zone task", "their bytes, by the mean size of a block")
AGE = _m(
    AGGREGATOR, GAUGE, "backlog_age_seconds", "zone task", "for how long the oldest of them has lain there", joined=max
)

WORKERS = _m(SCHEDULER, GAUGE, "scheduler_workers", "zone", "aggregators that a zone has")
WANTED = _m(SCHEDULER, GAUGE, "scheduler_wanted_workers", "zone", "aggregators that its load calls for")
ARRIVING = _m(SCHEDULER, GAUGE, "scheduler_arriving_bytes_per_second", "zone", "deltas that arrive")
ALL_BACKLOG = _m(SCHEDULER, GAUGE, "scheduler_backlog_bytes", "zone", "deltas that are not aggregated")
CAPACITY = _m(
    SCHEDULER, GAUGE, "scheduler_capacity_bytes_per_second", "zone", "what one aggregator was seen to do; 0: unknown"
)

ACCURACY = _m(EVALUATOR, GAUGE, "accuracy_ratio", "task", "accuracy of the last global model that was scored, 0 to 1")
SCORED_LOSS = _m(EVALUATOR, GAUGE, "loss", "task", "its mean loss of a sample")
SCORED = _m(EVALUATOR, GAUGE, "scored_epoch", "task", "the epoch it is of; 0: the untrained model")
TO_SCORE = _m(EVALUATOR, GAUGE, "models_to_score", "", "models that wait to be scored")

DEVICES = _m(
    EDGE,
    GAUGE,
    "devices",
    "zone state",
    "devices of a fleet, or that a gateway heard of within the hour: asleep, idle, asking, registered, training",
)
BUSY = _m(
    EDGE,
    GAUGE,
    "devices_busy",
    "zone",
    "devices of a fleet, in whichever state but asleep, of which other work takes a share",
)
GIVEN = _m(EDGE, COUNTER, "delta_blocks_sent", "zone", "delta blocks that were sent")
GIVEN_BYTES = _m(EDGE, COUNTER, "delta_bytes_sent", "zone", "their records' bytes")
FETCHED = _m(EDGE, COUNTER, "model_fetched_bytes", "zone", "bytes of models that were read from the log")
HANDED = _m(
    EDGE,
    COUNTER,
    "model_handed_bytes",
    "zone",
    "bytes of models that devices began to train from, out of the edge's copy",
)
UPLOADS = _m(EDGE, GAUGE, "upload_waiting_bytes", "zone", "bytes of deltas that have no upload credit yet")
LEFT = _m(
    EDGE, COUNTER, "delta_blocks_left", "zone", "delta blocks that were not sent, since their round was over meanwhile"
)
RECEIPTS = _m(
    EDGE, COUNTER, "receipts", "zone outcome", "blocks that the plane gave an outcome, as the receipts to a fleet said"
)

LOG_UNREAD = _m(
    VIEW,
    GAUGE,
    "log_unread_blocks",
    "zone task",
    "blocks in the delta logs that no commit covers, whoever should read them",
)

METRICS: tuple[Metric, ...] = tuple(x for x in globals().values() if isinstance(x, Metric))
"""All of them, in this order."""

# ------------------------------------------------------------------ what is read

Sample = tuple[Metric, tuple[str, ...], float]
"""A metric, its labels' values, and its value."""


class Strange(ValueError):
    """A sample that is not as the list says."""


def families(samples: Iterable[Sample]) -> Iterator[Family]:
    """The samples as the library writes them, one family a metric, one sample a series: Prometheus would refuse all if one came
    twice. Raises `Strange` for other labels than the list's."""
    found: dict[Metric, dict[tuple[str, ...], float]] = {}
    for metric, labels, value in samples:
        if len(labels) != len(metric.labels) or metric.kind == HISTOGRAM:
            raise Strange(f"{metric.name} {labels}: it is a {metric.kind} with the labels {metric.labels}")
        series = found.setdefault(metric, {})
        series[labels] = metric.joined(series[labels], value) if labels in series else value
    for metric, series in found.items():
        kind = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
        family = kind(metric.name, metric.about, labels=metric.labels)
        for labels, value in series.items():
            family.add_metric(labels, value)
        yield family


def histogram(metric: Metric, found: Iterable[tuple[tuple[str, ...], Sequence[int], float]]) -> Family:
    """Of each series: its labels, how many fell between the metric's bounds (and above the last), and their sum; what comes twice
    is one series, as in `families`."""
    family = HistogramMetricFamily(metric.name, metric.about, labels=metric.labels)
    series: dict[tuple[str, ...], tuple[Sequence[int], float]] = {}
    for labels, counts, total in found:
        before, so_far = series.get(labels, ([0] * len(counts), 0.0))
        series[labels] = [a + b for a, b in zip(before, counts, strict=True)], so_far + total
    for labels, (counts, total) in series.items():
        buckets, below = [], 0
        for bound, n in zip((*(str(b) for b in metric.bounds), "+Inf"), counts, strict=True):
            below += n
            buckets.append((bound, below))
        family.add_metric(labels, buckets, total)
    return family


# ------------------------------------------------------------------ the page


def page() -> str:
    """docs/metrics.md, after its first lines."""
    out = [HEAD]
    for by in dict.fromkeys(m.by for m in METRICS):
        out += [f"\n## Shown by: {by}\n", "| metric | kind | labels | what |", "|---|---|---|---|"]
        for m in METRICS:
            if m.by == by:
                labels = ", ".join(m.labels) or "–"
                out.append(f"| `{m.full}` | {m.kind} | {labels} | {m.about} |")
    return "\n".join(out) + "\n"


HEAD = """# Metrics

<!-- Made by `python -m olearning.telemetry.metrics > docs/metrics.md`; a test compares. -->

A role that is given `--metrics-port PORT` (or `OLEARNING_METRICS_PORT`) serves, on all addresses:

| path | what |
|---|---|
| `/metrics` | all below, for Prometheus |
| `/healthz` | 200 while it works on: its event loop turns, and its processor has handled an input within a minute (a tick comes far more often). 503 and why otherwise: start it again |
| `/readyz` | 200 once it has read its ledgers to the ends they had when it started. 503 and what it still reads otherwise. A broker that is away makes no role unready, nor ill: it goes on by itself |

No port: no server. `olearning up --metrics-port P` gives P to its own view, and P + 1, P + 2, … to its roles, and says which is which; with
`--memory` all roles are at P.

- Metrics from the fold of a ledger (`blocks`, `identity_ok`, rounds, admissions) are shown by every coordinator of a zone, the one that leads and those
  that stand by, and are equal: ask with `max by (zone, task) (…)`. They go on where they were after a restart.
- Where a person gives up partials that are lost (`olearning abandon`), their blocks go from `counted` to `lost`: the one case in which a counter
  goes down, and `rate` shows one jump.
- What is counted "since it started" begins at 0 in each process, as Prometheus expects.
- Series of a task are left out once it is over. There is no label with a device's name.
- State is read between two inputs of a processor, when Prometheus asks; a role that trains or scores meanwhile and does not answer within 5 s shows what does not
  need that: `loop_lag_seconds` says so.
- A zone's coordinator computes `identity_ok`, losses and refused commits by itself, from the ledger. So alerts need no process beside the roles;
  `olearning up` and the monitor add what only a view knows: `log_unread_blocks`, and an identity that also sees a log which lost its end.

Alerts: [deploy/prometheus](../deploy/prometheus/README.md). Dashboards: [deploy/grafana](../deploy/grafana/README.md). Logs and traces: [telemetry.md](telemetry.md)."""


if __name__ == "__main__":
    print(page(), end="")
