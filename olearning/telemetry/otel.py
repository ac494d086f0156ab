"""Spans by OpenTelemetry's SDK, with IDs that are computed and not drawn. Comes with olearning[trace]."""

import atexit
import os
import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from olearning.telemetry.spans import Span
from schemas.tracing import Step

LINGER = 2.0
"""Seconds."""


class Given(IdGenerator):
    """The IDs of the span that is made next."""

    at = Step(1, 1)

    def generate_trace_id(self) -> int:
        return self.at.trace

    def generate_span_id(self) -> int:
        return self.at.span


def provider(kind: str, name: str) -> TracerProvider:
    """What the environment's OTEL_ variables say: where spans go, which traces are sampled, what the service is called."""
    about = {"service.instance.id": name}
    if "OTEL_SERVICE_NAME" not in os.environ:
        about["service.name"] = f"olearning-{kind}"
    made = TracerProvider(resource=Resource.create(about), id_generator=Given(), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    atexit.register(end, made)
    return made


def end(made: TracerProvider) -> None:
    """Send what is left, but not for longer than `LINGER`: a collector that is away holds up no role's end."""
    ending = threading.Thread(target=made.shutdown, daemon=True)
    ending.start()
    ending.join(LINGER)


class OpenTelemetry:
    """`Spans` for a provider whose IDs are `Given`."""

    def __init__(self, made: TracerProvider):
        assert isinstance(made.id_generator, Given)
        self.ids, self.sampler, self.tracer = made.id_generator, made.sampler, made.get_tracer("olearning")

    def sampled(self, trace: int) -> bool:
        """By the sampler for a root, whose word holds for all of the trace: a ratio is one of trace IDs."""
        return self.sampler.should_sample(None, trace, "round").decision.is_sampled()

    def take(self, span: Span) -> None:
        self.ids.at = span.at
        context = set_span_in_context(NonRecordingSpan(_context(span.parent))) if span.parent else None
        linked = [Link(_context(to)) for to in span.links]
        start, end = min(span.start, span.end) * 1_000_000, span.end * 1_000_000
        made = self.tracer.start_span(span.what, context, attributes=span.about, links=linked, start_time=start)
        if span.error:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(end)


def _context(at: Step) -> SpanContext:
    return SpanContext(at.trace, at.span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
