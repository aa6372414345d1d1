"""Health and metrics over HTTP, for this machine only: `/health` as JSON, `/metrics` as Prometheus reads it.

`/health` answers 200 while the runtime is READY or DEGRADED and 503 when it is in FAULT.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from perception.deadline.condition import Level
from perception.deadline.run import Running
from perception.errors import OutputError, TollgateError
from perception.latency import LatencyRecorder

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
except ImportError as error:  # pragma: no cover - exercised by an environment without the extra
    raise TollgateError("prometheus_client is not installed; run: pip install 'tollgate[metrics]'") from error

LOCALHOST = "127.0.0.1"
QUANTILES = (50.0, 99.0, 99.9)


@contextmanager
def served(running: Running, port: int) -> Iterator[int]:
    """Answer on a port of the loopback interface while the block runs; lends the port, which 0 lets the kernel choose.

    Raises:
        OutputError: the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(running))

    class Answer(BaseHTTPRequestHandler):
        """One request."""

        def do_GET(self) -> None:
            """Health or metrics; anything else is not there."""
            if self.path == "/health":
                level = running.condition.level
                self._send(503 if level is Level.FAULT else 200, "application/json", health_document(running))
            elif self.path == "/metrics":
                self._send(200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))
            else:
                self.send_error(404, "expected /health or /metrics")

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002  (named so by its base)
            """Say nothing: it would be written over the screen."""

        def _send(self, code: int, kind: str, content: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = _bound(port, Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="endpoint", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _bound(port: int, answer: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    try:
        return ThreadingHTTPServer((LOCALHOST, port), answer)
    except OSError as error:
        raise OutputError(f"port {port}: cannot be served ({error.strerror}); choose another --health-port") from error


def health_document(running: Running) -> bytes:
    """The state, every reason, and the processes that hold engines."""
    condition = running.condition
    lanes = {lane.name: {"state": lane.state.value, "starts": lane.starts} for lane in running.crew.all_lanes}
    document = {"state": condition.level.name, "reasons": condition.reasons, "engines": lanes}
    return json.dumps(document).encode() + b"\n"


class _Collector:
    """Reads a run whenever Prometheus asks; nothing is counted twice."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def collect(self) -> Iterator[Metric]:
        """Every metric, now."""
        running = self._running
        yield GaugeMetricFamily("tollgate_health", "0 READY, 1 DEGRADED, 2 FAULT", value=running.condition.level)
        yield CounterMetricFamily("tollgate_events", "changes of condition", value=running.condition.events_total)
        yield CounterMetricFamily("tollgate_engine_restarts", "engine processes replaced", value=running.crew.restarts)
        yield GaugeMetricFamily("tollgate_unpublished_frames", "wait for a sink", value=running.publisher.backlog)
        yield GaugeMetricFamily("tollgate_overload_steps", "taken", value=len(running.loop.ladder.given_up))
        yield from self._streams()

    def _streams(self) -> Iterator[Metric]:
        frames = CounterMetricFamily("tollgate_frames", "published", labels=("model", "camera", "status"))
        age = SummaryMetricFamily("tollgate_age_seconds", "capture to publication", labels=("model", "camera"))
        tail = GaugeMetricFamily("tollgate_age_quantile_seconds", "of age", labels=("model", "camera", "quantile"))
        gap = GaugeMetricFamily("tollgate_longest_gap_seconds", "between own results", labels=("model", "camera"))
        for (model, camera), stream in tuple(self._running.publisher.tally.streams.items()):
            for status, count in tuple(stream.frames.items()):
                frames.add_metric((model, camera, status.value), count)
            gap.add_metric((model, camera), stream.longest_gap_ns / 1e9)
            recorder = LatencyRecorder.of_state(stream.age.state())
            if recorder.samples:
                age.add_metric((model, camera), recorder.samples, recorder.samples * recorder.mean_ns / 1e9)
            for percent in QUANTILES:
                if (value_ns := recorder.percentile_or_none_ns(percent)) is not None:
                    tail.add_metric((model, camera, f"{percent / 100:g}"), value_ns / 1e9)
        yield from (frames, age, tail, gap)
