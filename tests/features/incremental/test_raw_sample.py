"""The sample of training rows that is carried from day to day is the one that all days together give."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.features.incremental.test_increment import days, world
from tests.features.raw_world import DAYS, raw_tables


def profiles(directory: Path) -> dict[str, Any]:
    """What the quality report says of each feature's sample, but for what it compares with the build before."""
    report = json.loads((directory / "features" / "quality.json").read_text(encoding="utf-8"))
    return {name: {**profile, "psi": None} for name, profile in report["features"].items()}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [200_000, 60])
def test_a_carried_sample_is_that_of_all_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("features.incremental.raw_sample.FEW", 0)
    monkeypatch.setattr("features.incremental.raw_sample.SAMPLE_ROWS", rows)
    tables = raw_tables()
    for count in range(3, DAYS + 1):
        world(tmp_path / "grown", days(tables, count))
    carry_over_folder = list((tmp_path / "grown" / "features-days" / "carried").glob("*.sample_*.parquet"))
    assert len(carry_over_folder) == 1
    world(tmp_path / "whole", tables)
    expected = profiles(tmp_path / "whole")
    assert any(profile["distinct"] for profile in expected.values())
    assert profiles(tmp_path / "grown") == expected
