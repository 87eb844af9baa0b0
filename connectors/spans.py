"""OpenTelemetry spans of requests to models, named by its conventions for generative AI.

A span says which model was asked, where, for how long, and how many tokens that took. It holds no prompt, no reply, no
key of an item or endpoint, and of an error only its kind: endpoints quote in their messages what they were sent.
Without an SDK spans go nowhere and cost next to nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from opentelemetry import trace

from loop.errors import BadConfig, TeacherError
from loop.ports import Completion, Request


@contextmanager
def asked(request: Request, table: str, address: str) -> Iterator[trace.Span]:
    """A span around one request; `table` is the one of the config that names the model."""
    attributes: dict[str, str | float] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": request.model,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.max_tokens": request.max_completion_tokens,
        "server.address": urlsplit(address).hostname or "",
        "preceptor.table": table,
    }
    with trace.get_tracer("preceptor").start_as_current_span(
        f"chat {request.model}",
        kind=trace.SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except TeacherError as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(trace.StatusCode.ERROR)
            raise


def answered(span: trace.Span, completion: Completion) -> None:
    """Note the tokens that the endpoint reports."""
    for name, count in (("input_tokens", completion.input_tokens), ("output_tokens", completion.output_tokens)):
        if count is not None:
            span.set_attribute(f"gen_ai.usage.{name}", count)


@contextmanager
def exported(wanted: bool) -> Iterator[None]:
    """Send spans by OTLP over HTTP while the block lasts, where they are wanted; the last ones at its end.

    Raises:
        BadConfig: the SDK is not installed.
    """
    if not wanted:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
    except ImportError as error:
        raise BadConfig('tracking.spans needs OpenTelemetry\'s SDK: pip install "preceptor[otel]"') from error
    provider = TracerProvider(resource=Resource.create({"service.name": "preceptor"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
