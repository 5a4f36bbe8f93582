"""The query by which KEDA scales, as Prometheus evaluates it: high where calls wait, 0 without calls, else nothing."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_manifests import PRODUCTION, of_kind

PROMTOOL = shutil.which("promtool")
QUEUE = 'moerank_latency_seconds_bucket{instance="a",phase="queue"'
PENDING = {'nv_inference_pending_request_count{instance="a"}': "0x30"}
WAITING = {f'{QUEUE},le="0.01"}}': "0+10x30", f'{QUEUE},le="0.1"}}': "0+100x30", f'{QUEUE},le="+Inf"}}': "0+100x30"}
RESTING = {f'{QUEUE},le="0.01"}}': "10x30", f'{QUEUE},le="0.1"}}': "100x30", f'{QUEUE},le="+Inf"}}': "100x30"}


def trigger() -> Any:
    return of_kind("ScaledObject", PRODUCTION)["spec"]["triggers"][0]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt-get install prometheus)")
@pytest.mark.parametrize(
    ("series", "expected"),
    [(PENDING | WAITING, [{"value": 0.09}]), (PENDING | RESTING, [{"value": 0}]), (PENDING, [{"value": 0}]), ({}, [])],
    ids=["calls wait", "no calls", "no calls ever", "no replica"],
)
def test_the_query_is_a_number_as_long_as_there_is_a_replica(
    tmp_path: Path, series: dict[str, str], expected: list[dict[str, float]]
) -> None:
    (tmp_path / "rules.yaml").write_text("groups: []\n", encoding="utf-8")
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    # To the fourth digit: 90 of 100 calls lie eight ninths into the second bucket.
                    {
                        "expr": f"round({trigger()['metadata']['query']}, 0.0001)",
                        "eval_time": "20m",
                        "exp_samples": expected,
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test), encoding="utf-8")
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_any_replica_the_fallback_decides() -> None:
    assert trigger()["metadata"]["ignoreNullValues"] == "false"
    assert of_kind("ScaledObject", PRODUCTION)["spec"]["fallback"]["replicas"] > 0
