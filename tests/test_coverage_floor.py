"""The floor of the coverage only rises."""

import subprocess

from tests.coverage_floor import PYPROJECT, floor_in
from tests.quick import GIT, ROOT


def test_it_is_not_lower_than_in_the_commits_before() -> None:
    now = floor_in(PYPROJECT.read_text(encoding="utf-8"))
    for commit in ("HEAD", "HEAD~1", "HEAD~10"):
        show = [GIT, "show", f"{commit}:pyproject.toml"]
        before = subprocess.run(show, cwd=ROOT, check=False, capture_output=True, text=True)
        # A shallow clone lacks older commits, and those before the floor have none.
        if before.returncode == 0 and "fail_under" in before.stdout:
            assert now >= floor_in(before.stdout)
