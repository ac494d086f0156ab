"""What operators see of a role while it runs: metrics, whether it is well, log lines, traces. `olearning/telemetry/metrics.py` is the list of
all metrics. Processors know nothing of this: their state is read between two inputs, and readings of ledgers tell what they fold."""
