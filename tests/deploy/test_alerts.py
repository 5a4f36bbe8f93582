"""Every alert is provoked in Prometheus's own rule tests, and stays silent where nothing is wrong."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ALERTS = Path(__file__).parent.parent.parent / "deploy" / "alerts.yaml"
RULES = {rule["alert"]: rule for rule in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]}
PROMTOOL = shutil.which("promtool")
WHERE = 'job="moerank",instance="a"'
MODEL = f'{WHERE},model="shop",version="3"'
OK = {f"nv_inference_request_success_total{{{MODEL}}}": "0+600x300", f"up{{{WHERE}}}": "1x300"}
BUCKET = f'moerank_latency_seconds_bucket{{{MODEL},phase="total"'
TASK = f'{MODEL},task="click"'

QUEUE = f'moerank_latency_seconds_bucket{{{MODEL},phase="queue"'
SHOP = f'{WHERE},model="shop"'
ARMS = {
    f'moerank_arm{{{SHOP},version="3",arm="current"}}': "1x300",
    f'moerank_arm{{{SHOP},version="4",arm="canary"}}': "1x300",
    f'nv_inference_request_success_total{{{SHOP},version="4"}}': "0+600x300",
}


def drifting(small: str) -> dict[str, str]:
    """Predictions of which so many are small, where 60 % of the validation rows had such."""
    buckets = {"0.1": small, "+Inf": "0+100x300"}
    expected = {"0.1": "0.6x300", "+Inf": "1x300"}
    return {f'moerank_prediction_bucket{{{TASK},le="{bound}"}}': values for bound, values in buckets.items()} | {
        f'moerank_prediction_expected_ratio{{{TASK},le="{bound}"}}': values for bound, values in expected.items()
    }


def failures(version: str, values: str) -> dict[str, str]:
    return {f'nv_inference_request_failure_total{{{SHOP},version="{version}",reason="DEFECT"}}': values}


def infer(version: str, quick: str) -> dict[str, str]:
    """Answers of which so many come within 10 ms, all within 100."""
    bucket = f'moerank_latency_seconds_bucket{{{SHOP},version="{version}",phase="infer"'
    return {f'{bucket},le="0.01"}}': quick, f'{bucket},le="0.1"}}': "0+100x300", f'{bucket},le="+Inf"}}': "0+100x300"}


def predicted(version: str, total: str) -> dict[str, str]:
    labels = f'{SHOP},version="{version}",task="click"'
    return {f"moerank_prediction_sum{{{labels}}}": total, f"moerank_prediction_count{{{labels}}}": "0+10x300"}


# By alert what provokes it, and the same series where nothing is wrong.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "ModelRefused": ({f"moerank_model_refused{{{MODEL}}}": "1x300"}, {}),
    "ReplicasDiffer": (
        {
            'moerank_model_version{instance="a",model="shop"}': "3x300",
            'moerank_model_version{instance="b",model="shop"}': "2x300",
        },
        {
            'moerank_model_version{instance="a",model="shop"}': "3x300",
            'moerank_model_version{instance="b",model="shop"}': "2x5 3x300",
        },
    ),
    "Refusing": (
        {f'moerank_errors_total{{{WHERE},reason="OVERLOADED"}}': "0+60x300"},
        {f'moerank_errors_total{{{WHERE},reason="OVERLOADED"}}': "60x300"},
    ),
    "Defect": (
        {f'moerank_errors_total{{{WHERE},reason="DEFECT"}}': "0x298 1x2"},
        {f'moerank_errors_total{{{WHERE},reason="DEFECT"}}': "1x300"},
    ),
    "StaleFeatures": (
        {f"moerank_unknown_items_total{{{MODEL}}}": "0+60x300", f"nv_inference_count_total{{{MODEL}}}": "0+100x300"},
        {f"moerank_unknown_items_total{{{MODEL}}}": "0+40x300", f"nv_inference_count_total{{{MODEL}}}": "0+100x300"},
    ),
    "UserStoreFails": (
        {f'moerank_user_store_total{{{WHERE},outcome="failed"}}': "0+1x300"},
        {f'moerank_user_store_total{{{WHERE},outcome="failed"}}': "7x300"},
    ),
    "TargetDown": ({f"up{{{WHERE}}}": "1x290 0x10"}, {f"up{{{WHERE}}}": "1x300"}),
    "Slow": (
        {f'{BUCKET},le="0.2"}}': "0+50x300", f'{BUCKET},le="0.5"}}': "0+60x300", f'{BUCKET},le="+Inf"}}': "0+60x300"},
        {f'{BUCKET},le="0.2"}}': "0+60x300", f'{BUCKET},le="0.5"}}': "0+60x300", f'{BUCKET},le="+Inf"}}': "0+60x300"},
    ),
    "Errors": (
        {f'moerank_errors_total{{{WHERE},reason="DEADLINE_EXCEEDED"}}': "0+12x300"},
        {f'moerank_errors_total{{{WHERE},reason="DEADLINE_EXCEEDED"}}': "0+3x300"},
    ),
    "WrongRequests": (
        {f'moerank_errors_total{{{WHERE},reason="REQUEST_INVALID"}}': "0+60x300"},
        {f'moerank_errors_total{{{WHERE},reason="REQUEST_INVALID"}}': "0+12x300"},
    ),
    "VersionFails": (
        {f'nv_inference_request_failure_total{{{MODEL},reason="DEFECT"}}': "0+12x300"},
        {f'nv_inference_request_failure_total{{{MODEL},reason="REQUEST_INVALID"}}': "0+12x300"},
    ),
    "ModelOld": (
        {f"moerank_model_created_timestamp_seconds{{{MODEL}}}": f"{-3 * 86400}x300"},
        {f"moerank_model_created_timestamp_seconds{{{MODEL}}}": "0x300"},
    ),
    "PredictionDrift": (
        {**drifting("0+9x300"), f"moerank_prediction_count{{{TASK}}}": "0+100x300"},
        {**drifting("0+60x300"), f"moerank_prediction_count{{{TASK}}}": "0+100x300"},
    ),
    "CanaryFails": (
        {**ARMS, **failures("3", "0+1x300"), **failures("4", "0+6x300")},
        {**ARMS, **failures("3", "0+6x300"), **failures("4", "0+6x300")},
    ),
    "CanarySlow": (
        {**ARMS, **infer("3", "0+100x300"), **infer("4", "0+90x300")},
        {**ARMS, **infer("3", "0+90x300"), **infer("4", "0+90x300")},
    ),
    "CanaryDiffers": (
        {**ARMS, **predicted("3", "0+1x300"), **predicted("4", "0+2x300")},
        {**ARMS, **predicted("3", "0+1x300"), **predicted("4", "0+1.2x300")},
    ),
    "Strangers": (
        {f'moerank_errors_total{{{WHERE},reason="UNAUTHENTICATED"}}': "0+120x300"},
        {f'moerank_errors_total{{{WHERE},reason="UNAUTHENTICATED"}}': "0+30x300"},
    ),
    "Late": (
        {f'moerank_errors_total{{{WHERE},reason="DEADLINE_EXCEEDED"}}': "0+30x300"},
        {f'moerank_errors_total{{{WHERE},reason="DEADLINE_EXCEEDED"}}': "0+6x300"},
    ),
    "Queue": (
        {f'{QUEUE},le="0.05"}}': "0+50x300", f'{QUEUE},le="0.1"}}': "0+60x300", f'{QUEUE},le="+Inf"}}': "0+60x300"},
        {f'{QUEUE},le="0.05"}}': "0+59x300", f'{QUEUE},le="0.1"}}': "0+60x300", f'{QUEUE},le="+Inf"}}': "0+60x300"},
    ),
    "PredictionRate": (
        {
            f"moerank_prediction_sum{{{TASK}}}": "0+3x300",
            f"moerank_prediction_count{{{TASK}}}": "0+10x300",
            f"moerank_task_base_rate{{{TASK}}}": "0.1x300",
        },
        {
            f"moerank_prediction_sum{{{TASK}}}": "0+1.2x300",
            f"moerank_prediction_count{{{TASK}}}": "0+10x300",
            f"moerank_task_base_rate{{{TASK}}}": "0.1x300",
        },
    ),
    "PushedFeaturesStale": (
        {f"moerank_pushed_newest_timestamp_seconds{{{WHERE}}}": "60x300"},
        {f"moerank_pushed_newest_timestamp_seconds{{{WHERE}}}": "0+60x300"},
    ),
}
MINUTES = 299


def fires(folder: Path, alert: str, series: dict[str, str]) -> bool:
    """Whether an alert is firing after five hours of these series, as Prometheus evaluates it."""
    expression = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    test: dict[str, Any] = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in {**OK, **series}.items()],
                "promql_expr_test": [{"expr": expression, "eval_time": f"{MINUTES}m", "exp_samples": []}],
            }
        ],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(test), encoding="utf-8")
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "FAILED" in said or "SUCCESS" in said, said
    return "SUCCESS" not in said


def test_every_alert_has_a_case_and_a_severity() -> None:
    assert set(CASES) == set(RULES)
    assert {rule["labels"]["severity"] for rule in RULES.values()} == {"page", "ticket"}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt-get install prometheus)")
@pytest.mark.parametrize("alert", sorted(RULES))
def test_an_alert_fires_when_provoked_and_not_otherwise(tmp_path: Path, alert: str) -> None:
    provoked, calm = CASES[alert]
    assert fires(tmp_path, alert, provoked)
    assert not fires(tmp_path, alert, calm)
