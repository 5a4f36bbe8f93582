"""OpenTelemetry spans of calls: children of the caller's span, with the phases of the call as attributes.

Only the API is used. Where the process has a tracer provider, as under ``opentelemetry-instrument``, spans go there;
without one they cost next to nothing and go nowhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import propagate, trace

from contract.errors import MoerankError
from serving.graph.context import CallContext


class Tracing:
    """Makes the span of a call."""

    def __init__(self) -> None:
        """Take the process's tracer."""
        self._tracer = trace.get_tracer("moerank")

    @contextmanager
    def call(self, service: str, method: str, call: CallContext) -> Iterator[None]:
        """A span around the body, which fails if the body does; the caller's ``traceparent`` names its parent."""
        carrier = {name: value for name, value in call.metadata.items() if isinstance(value, str)}
        with self._tracer.start_as_current_span(
            f"{service}/{method}",
            context=propagate.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "moerank.request_id": call.request_id,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            about = span.get_span_context()
            if about.trace_flags.sampled:
                call.clock.trace = trace.format_trace_id(about.trace_id)
            try:
                yield
            except Exception as error:
                reason = error.reason if isinstance(error, MoerankError) else "DEFECT"
                span.set_attribute("moerank.reason", reason)
                span.set_status(trace.StatusCode.ERROR, reason)
                raise
            finally:
                for phase, nanoseconds in call.clock.total.items():
                    span.set_attribute(f"moerank.{phase}_us", nanoseconds / 1000)
