"""Spans by OpenTelemetry's SDK, with IDs that are computed and not drawn. Comes with olearning[trace]."""

import atexit
import os
import threading
from collections.abc import Iterable, Mapping

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

    def span(
        self,
        what: str,
        at: Step,
        parent: Step | None,
        start: int,
        end: int,
        about: Mapping[str, str | int],
        links: Iterable[Step] = (),
        error: str = "",
    ) -> None:
        self.ids.at = at
        context = set_span_in_context(NonRecordingSpan(_context(parent))) if parent else None
        linked = [Link(_context(to)) for to in links]
        span = self.tracer.start_span(what, context, attributes=about, links=linked, start_time=start * 1_000_000)
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end * 1_000_000)


def _context(at: Step) -> SpanContext:
    return SpanContext(at.trace, at.span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
