"""Which tests `make quick` runs: those of what changed since a commit, for at most some seconds.

A pytest plugin (``-p tests.quick``). Of a changed file it selects the tests that mirror its place (for features/encode
those in tests/features/encode), those that import it by name, changed tests themselves, and always the tests of the
house. Other files are not even imported.
"""

import ast
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GIT = shutil.which("git") or "git"
ALWAYS = {Path("tests/test_house.py")}
TOOK_LONG = {"slow", "pairs", "long", "gpu"}
_STARTED = pytest.StashKey[float]()
_CHOSEN = pytest.StashKey[set[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--changed-since", default="HEAD", help="the commit to compare with")
    parser.addoption("--budget", type=float, default=45.0, help="seconds after which the rest is left out")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = time.monotonic()
    tests = {file.relative_to(ROOT) for file in (ROOT / "tests").rglob("test_*.py")}
    config.stash[_CHOSEN] = concerned(changed_files(config.getoption("--changed-since")), tests)


def changed_files(since: str) -> set[Path]:
    """Files that differ from a commit, also those that git does not know yet; without any, those of that commit."""
    against = git("diff", "--name-only", since) | git("ls-files", "--others", "--exclude-standard")
    return against or git("diff", "--name-only", f"{since}~1", since)


def git(*arguments: str) -> set[Path]:
    ran = subprocess.run([GIT, *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return {Path(line) for line in ran.stdout.splitlines()}


def concerned(changed: set[Path], tests: set[Path]) -> set[Path]:
    """The test files, below tests/, that a change concerns."""
    modules = {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in changed if file.suffix == ".py"
    }
    mirrors = {Path("tests") / file.parent for file in changed}
    names = {f"test_{file.stem}.py" for file in changed}
    return {
        test
        for test in tests
        if test in changed | ALWAYS
        # The whole room of a file in a room; of one at a package's root the test of its name.
        or (test.parent in mirrors and (len(test.parts) > 3 or test.name in names))
        or imported_by(test) & modules
    }


def imported_by(test: Path) -> set[str]:
    tree = ast.parse((ROOT / test).read_bytes())
    return {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.suffix == ".py" and collection_path.name.startswith("test_"):
        return collection_path.relative_to(ROOT) not in config.stash[_CHOSEN] or None
    return None


# After tests/conftest.py, which puts the files first that take long.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    quick = [item for item in items if not TOOK_LONG & {mark.name for mark in item.iter_markers()}]
    long = [item for item in items if item not in set(quick)]
    config.hook.pytest_deselected(items=long)
    changed = changed_files(config.getoption("--changed-since"))
    named = {f"test_{file.stem}.py" for file in changed} | {file.name for file in changed}
    slower = {item.path for item in long}
    # What the change is about comes first, and what may be left out last.
    items[:] = sorted(quick, key=lambda item: (item.path.name not in named, item.path in slower))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.monotonic() - item.config.stash[_STARTED] > item.config.getoption("--budget"):
        pytest.skip("the seconds of `make quick` are over; `make test` runs it")
