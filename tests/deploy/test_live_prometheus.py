"""A real Prometheus scrapes a real server: every panel has data, every alert is evaluated, exemplars name traces."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry import trace

from contract.errors import RequestError
from serving.client.blocking_client import RankingClient
from serving.graph.feature_writer import FeatureWriter
from serving.graph.users import UserStore
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE
from tests.ports import free_port
from tests.serving.redis_server import SERVER, Redis
from tests.staged_bundle import publish_staged
from tests.tiny_bundle import publish_tiny

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
PROMETHEUS = shutil.which("prometheus")
TRACE = "0af7651916cd43dd8448eb211c80319c"

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None or SERVER is None,
    reason="prometheus or redis-server is not installed (Debian: apt-get install prometheus redis-server)",
)


@contextmanager
def prometheus(folder: Path, scraped: int) -> Iterator[str]:
    """The address of one that scrapes a port each second, with the alerts of deploy/."""
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{scraped}"]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    assert PROMETHEUS is not None
    command = [
        PROMETHEUS,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log, stdout=log) as child:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()


def asked(address: str, path: str, **parameters: Any) -> Any:
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(f"{address}/api/v1/{path}?{query}") as answer:  # noqa: S310 our own server
            return json.loads(answer.read())["data"]
    except (urllib.error.URLError, ConnectionError):
        return {}


def result_of(address: str, expression: str) -> list[Any]:
    return list(asked(address, "query", query=expression).get("result", []))


class Sampled(trace.NoOpTracer):
    """A tracer whose spans are all sampled, as children of one trace."""

    @contextmanager
    def start_as_current_span(self, *_: Any, **__: Any) -> Iterator[trace.Span]:  # type: ignore[override]
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        yield trace.NonRecordingSpan(trace.SpanContext(int(TRACE, 16), 7, is_remote=False, trace_flags=flags))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A traced server with a canary, a shadow, a cascade, a log and pushed features."""
    folder = tmp_path_factory.mktemp("live")
    publish_tiny(folder / "store", folder / "work0", seed=1)
    bundle = publish_staged(folder / "store", folder / "work1", cascade=2)
    pushes = Redis(folder)
    FeatureWriter(bundle, UserStore(pushes.url, 1)).put_users({1: {"activity": 0.5}})
    arms = {"tiny": {"canary": {"version": 1, "share": 0.5}, "shadow": {"version": 1, "share": 1.0}}}
    (folder / "traffic.json").write_text(json.dumps(arms), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer", lambda _: Sampled())
        patch.setattr("serving.observe.telemetry.SAMPLE", 2)
        settings = ServerSettings(
            store=folder / "store",
            port=0,
            metrics_port=0,
            traffic=folder / "traffic.json",
            traces=True,
            log=folder / "log",
            user_store=pushes.url,
        )
        try:
            with start(settings) as server:
                yield server
        finally:
            pushes.stop()


def traffic(client: RankingClient) -> None:
    """Rankings by known and unknown users, and a wrong request."""
    for user in range(40):
        client.rank(user, [100, 101, 7], {"tab": "nowhere"} if user % 2 else {}, user_features={"activity": 99.0})
    client.rank(1, [100, 101])
    with pytest.raises(RequestError):
        client.rank(1, [100], {"colour": "red"})


def panel_expressions() -> list[str]:
    board = json.loads((DEPLOY / "grafana" / "server.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [each.replace("$__rate_interval", "30s").replace("$model", ".*") for each in expressions]


def test_every_panel_shows_data_and_every_alert_is_evaluated(running: RunningServer, tmp_path: Path) -> None:
    assert running.metrics is not None
    empty, end = panel_expressions(), time.monotonic() + PATIENCE
    with (
        prometheus(tmp_path, running.metrics.port) as address,
        RankingClient(f"127.0.0.1:{running.port}", seconds=PATIENCE) as client,
    ):
        while empty and time.monotonic() < end:
            traffic(client)
            time.sleep(0.5)
            empty = [each for each in empty if not result_of(address, each)]
        assert empty == []
        (group,) = asked(address, "rules", type="alert")["groups"]
        while any(rule["health"] == "unknown" for rule in group["rules"]) and time.monotonic() < end:
            time.sleep(0.5)
            (group,) = asked(address, "rules", type="alert")["groups"]
        assert {rule["name"]: rule["health"] for rule in group["rules"] if rule["health"] != "ok"} == {}
        assert result_of(address, 'up{job="moerank"}')[0]["value"][1] == "1"
        found = asked(address, "query_exemplars", query="moerank_latency_seconds_bucket", start=0, end=time.time() + 9)
        assert {each["labels"]["trace_id"] for series in found for each in series["exemplars"]} == {TRACE}


def test_exemplars_stand_in_open_metrics_alone(running: RunningServer) -> None:
    assert running.metrics is not None
    with RankingClient(f"127.0.0.1:{running.port}", seconds=PATIENCE) as client:
        client.rank(1, [100])
    time.sleep(1.1)
    pages = {}
    for kind in ("application/openmetrics-text; version=1.0.0", "text/plain"):
        request = urllib.request.Request(f"http://127.0.0.1:{running.metrics.port}/metrics", headers={"Accept": kind})
        with urllib.request.urlopen(request) as answer:  # noqa: S310 the same
            pages[kind.split(";")[0]] = answer.read().decode()
    assert f'# {{trace_id="{TRACE}"}}' in pages["application/openmetrics-text"]
    assert TRACE not in pages["text/plain"]
