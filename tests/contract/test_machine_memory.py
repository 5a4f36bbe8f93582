"""The memory that a process may use, by the machine and its control groups."""

from pathlib import Path

import psutil
import pytest

from contract.machine_memory import available_memory, total_memory
from tests.contract.control_group_tree import machine

GIB = 2**30


def test_a_containers_limit_counts_where_its_own_path_is_not_seen(tmp_path: Path) -> None:
    files = {"memory.max": f"{GIB // 4}\n", "memory.current": f"{GIB // 8}\n"}
    root = machine(tmp_path, "0::/kubepods/pod7/main\n", **files)
    assert total_memory(root) == GIB // 4
    assert available_memory(root) == GIB // 8


def test_the_tightest_of_the_groups_around_counts(tmp_path: Path) -> None:
    files = {"a/memory.max": f"{GIB // 4}\n", "a/b/memory.max": "max\n", "a/b/c/memory.max": f"{GIB // 2}\n"}
    assert total_memory(machine(tmp_path, "0::/a/b/c\n", **files)) == GIB // 4


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path) -> None:
    membership = "5:cpu:/x\n4:memory:/box\n0::/\n"
    files = {"memory/box/memory.limit_in_bytes": f"{GIB // 2}\n", "memory/memory.limit_in_bytes": str(2**63 - 4096)}
    assert total_memory(machine(tmp_path, membership, **files)) == GIB // 2


@pytest.mark.parametrize("membership", ["", "0::/\n"])
def test_without_a_limit_it_is_the_machines(tmp_path: Path, membership: str) -> None:
    assert total_memory(machine(tmp_path, membership)) == psutil.virtual_memory().total
    assert total_memory(tmp_path / "nothing") == psutil.virtual_memory().total
