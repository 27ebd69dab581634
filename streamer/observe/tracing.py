"""OpenTelemetry traces, off unless ``trace_endpoint`` is set: from a producer's record to the window that holds it.

A producer's record carries its span in the ``traceparent`` header (https://www.w3.org/TR/trace-context/). A window is a
separate trace that *links* the spans of its members, since it has many causes and a span only one parent. The time in
each stage is measured anyway, so a window's spans are made when it is published; tracing costs nothing before that.

Whole sessions are sampled, by a hash of the name: producer and worker choose the same ones without communication, and a
chosen session is traced completely.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from zlib import crc32

from streamer.errors import UsageError
from streamer.events import Window
from streamer.settings import Settings

if TYPE_CHECKING:  # an extra
    from opentelemetry.trace import Span, SpanContext

STAGES = (
    "handover",
    "batch",
    "decode",
    "infer",
    "publish",
)  # of a closed window, in order
MAX_LINKS = 128  # as many as collectors keep of a span
HEADER = "traceparent"
TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


def tracer(settings: Settings, service: str) -> Tracer | None:
    """The maker of spans; ``None`` if tracing is off.

    Args:
        service: Name of this program in traces.

    Raises:
        UsageError: OpenTelemetry is not installed.
    """
    return None if settings.trace_endpoint is None else Tracer(settings.trace_endpoint, settings.trace_ratio, service)


class Tracer:
    """Makes spans and sends them in a separate thread; those that the collector does not take in time are dropped.

    Args:
        endpoint: OTLP over HTTP, such as ``http://localhost:4318/v1/traces``.
        ratio: Share of sessions that are traced.
    """

    def __init__(self, endpoint: str, ratio: float, service: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise UsageError(
                f"STREAMER_TRACE_ENDPOINT needs {error.name}: pip install 'streamer-multimodal[trace]'"
            ) from None
        self._limit = ratio * 2**32
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("streamer")

    def chosen(self, session: str) -> bool:
        """Whether a session is traced."""
        return crc32(session.encode()) < self._limit

    def sending(self, topic: str, session: str) -> Span | None:
        """The span of a record that is being sent, which the caller must end; ``None`` if its session is not traced."""
        from opentelemetry.trace import SpanKind

        if not self.chosen(session):
            return None
        names = {"messaging.system": "kafka", "messaging.destination.name": topic, "streamer.session": session}
        return self._tracer.start_span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=names)

    def window(
        self, window: Window, status: str, closed_us: int, latencies_us: dict[str, int], *, run_early: bool
    ) -> None:
        """The trace of a window that has just been published.

        Args:
            closed_us: When it closed, microseconds since the epoch.
            latencies_us: Time in each stage after that, microseconds.
            run_early: The prediction is that of its early run, so it was neither decoded nor inferred after that.
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, SpanKind, set_span_in_context

        if not self.chosen(window.session):
            return
        records = [event.record for events in window.events for event in events]
        begin_us = min((record.log_time_us for record in records), default=closed_us)
        whole = self._tracer.start_span(
            "window",
            Context(),
            SpanKind.CONSUMER,
            {
                "streamer.session": window.session,
                "streamer.window.id": window.id,
                "streamer.window.closed_by": str(window.closed_by),
                "streamer.window.records": len(records),
                "streamer.window.status": status,
                "streamer.window.run_early": run_early,
            },
            [Link(context) for context in _contexts(record.headers for record in records)][:MAX_LINKS],
            begin_us * 1000,
        )
        parent = set_span_in_context(whole)
        self._tracer.start_span("align", parent, start_time=begin_us * 1000).end(closed_us * 1000)
        at_us = closed_us
        for stage in STAGES:
            if stage in latencies_us:
                span = self._tracer.start_span(stage, parent, start_time=at_us * 1000)
                at_us += latencies_us[stage]
                span.end(at_us * 1000)
        whole.end(at_us * 1000)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def traceparent(span: Span) -> bytes:
    """The header's value."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()


def _contexts(headers: Iterable[tuple[tuple[str, bytes], ...]]) -> Iterator[SpanContext]:
    """The spans that records name; malformed ones are ignored, as the specification requires."""
    from opentelemetry.trace import SpanContext, TraceFlags

    for pairs in headers:
        for name, value in pairs:
            if name == HEADER and (match := TRACEPARENT.fullmatch(value or b"")) is not None:
                trace_id, span_id, flags = (int(part, 16) for part in match.groups())
                yield SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
