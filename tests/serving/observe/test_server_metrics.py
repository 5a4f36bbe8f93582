"""Metrics and logs: what an operator sees."""

import json
import logging
import random
import socket
import struct
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.errors import RequestError, UnavailableError
from serving.client.blocking_client import RankingClient
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from serving.observe import metrics_page
from serving.observe.logs import JsonFormatter
from serving.observe.telemetry import SAMPLE
from tests.patience import PATIENCE
from tests.tiny_bundle import publish_tiny


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.observe.metrics_page.PAGE_SECONDS", 0.0)


def scrape(server: RunningServer) -> dict[tuple[str, str], float]:
    """Samples by name and task or reason."""
    assert server.metrics is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics.port}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, sample.labels.get("reason") or sample.labels.get("task") or ""): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_what_was_done(store: Path, tmp_path: Path) -> None:
    settings = ServerSettings(store=store, port=0, metrics_port=0, poll_seconds=600)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        for _ in range(SAMPLE + 1):
            client.rank(99, [100, 101, 7])
        with pytest.raises(RequestError):
            client.rank(1, [100], {"colour": "red"})
        seen = scrape(server)
        publish_tiny(store, tmp_path / "two", seed=1)
        server.registry.refresh()
        later = scrape(server)
    asked = SAMPLE + 1
    assert seen["nv_inference_request_success_total", ""] == asked
    assert seen["nv_inference_count_total", ""] == 3 * asked
    assert seen["nv_inference_request_failure_total", "REQUEST_INVALID"] == 1
    assert seen["moerank_errors_total", "REQUEST_INVALID"] == 1
    assert seen["moerank_unknown_users_total", ""] == asked
    assert seen["moerank_unknown_items_total", ""] == asked
    assert seen["moerank_prediction_count", "like"] == 2 * 3
    phases = ("queue", "compute_input", "compute_infer", "compute_output")
    parts = [seen[f"nv_inference_{phase}_duration_us_total", ""] for phase in phases]
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(seen["nv_inference_request_duration_us_total", ""])
    assert (seen["moerank_model_version", ""], later["moerank_model_version", ""]) == (1, 2)
    assert (seen["moerank_swaps_total", ""], later["moerank_swaps_total", ""]) == (0, 1)
    assert seen["process_open_fds", ""] > 0


def test_a_refused_version_is_visible(store: Path, tmp_path: Path) -> None:
    settings = ServerSettings(store=store, port=0, metrics_port=0, poll_seconds=600)
    with start(settings) as server:
        second = publish_tiny(store, tmp_path / "two", seed=random.Random(0).randrange(9))  # noqa: S311 any seed will do
        (second / "model.onnx").unlink()
        server.registry.refresh()
        assert scrape(server)["moerank_model_refused", ""] == 1


def test_a_metrics_port_in_use_is_a_clear_error(store: Path, server: RunningServer) -> None:
    with pytest.raises(UnavailableError, match="--metrics-port"):
        start(ServerSettings(store=store, port=0, metrics_port=server.port))


def test_log_lines_for_machines_are_json_with_the_request_id() -> None:
    record = logging.LogRecord("moerank.server", logging.ERROR, "", 0, "%s failed", ("Rank",), None)
    record.request_id = "abc"
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "Rank failed"
    assert (line["level"], line["request_id"]) == ("ERROR", "abc")
    assert "\n" not in JsonFormatter().format(record)


def test_however_many_scrape_the_page_is_made_once_a_second(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.observe.metrics_page.PAGE_SECONDS", 600.0)
    with start(ServerSettings(store=store, port=0, metrics_port=0)) as server:
        for _ in range(20):
            scrape(server)
        assert server.metrics is not None
        assert server.metrics.page.made == 1


def test_scrapers_that_say_nothing_or_leave_are_forgotten_without_a_word_in_the_log(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics_page._Handler, "timeout", 0.2)
    with start(ServerSettings(store=store, port=0, metrics_port=0)) as server:
        assert server.metrics is not None
        address = ("127.0.0.1", server.metrics.port)
        with socket.create_connection(address, PATIENCE) as silent, socket.create_connection(address, PATIENCE) as slow:
            slow.sendall(b"GET /metr")
            assert silent.recv(1) == slow.recv(1) == b""
        for _ in range(20):
            with socket.create_connection(address, PATIENCE) as gone:
                # It ends with a reset, not with a farewell.
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                gone.sendall(b"GET /metrics HTTP/1.1\r\n" + b"x: y\r\n" * 200)
        assert scrape(server)
    assert "Traceback" not in capfd.readouterr().err
