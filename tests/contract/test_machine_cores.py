"""The cores that a process may use, by its affinity and the quotas of its control groups."""

import os
from pathlib import Path

import pytest

from contract.machine_cores import usable_cores
from tests.contract.control_group_tree import machine


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def test_a_containers_quota_counts_where_its_own_path_is_not_seen(tmp_path: Path) -> None:
    assert usable_cores(machine(tmp_path, "0::/kubepods/pod7/main\n", **{"cpu.max": "200000 100000\n"})) == 2


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("250000 100000", 3), ("max 100000", 64), ("", 64)])
def test_a_part_of_a_core_counts_as_one(tmp_path: Path, quota: str, cores: int) -> None:
    assert usable_cores(machine(tmp_path, "0::/a\n", **{"a/cpu.max": quota})) == cores


def test_the_tightest_of_the_groups_around_counts(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "800000 100000"}
    assert usable_cores(machine(tmp_path, "0::/a/b/c\n", **files)) == 3


@pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("-1", 64)])
def test_the_first_version_of_control_groups_counts_too(tmp_path: Path, quota: str, cores: int) -> None:
    membership = "5:cpuset:/x\n4:cpu,cpuacct:/box\n0::/\n"
    files = {"cpu/box/cpu.cfs_quota_us": quota, "cpu/box/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "-1"}
    assert usable_cores(machine(tmp_path, membership, **files)) == cores


def test_without_a_quota_it_is_the_affinitys(tmp_path: Path) -> None:
    assert usable_cores(machine(tmp_path, "0::/\n")) == usable_cores(tmp_path / "nothing") == 64
