"""README and guide are true: their files are written, their commands run, and they print lines of the form shown."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page_commands import Shell, commands, opened_shell, work_through_all

# Only against a hang: on a quiet machine all of it takes five minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/guide.md")}
TEXT = "\n".join(PAGES.values())

# Not run, and why.
NOT_RUN = {
    "source .venv/bin/activate": "the commands below run with that directory on the path",
    "make demo": "minutes of set-up, download and training; the flow's own tests run its steps",
    "make test": "this is it",
    "make clean": "it would remove the environment that runs the tests",
    "make setup DEVICE=gpu": "it installs gigabytes for a device that may not be there",
    "make demo DEVICE=gpu": "the same",
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with opened_shell(tmp_path_factory.mktemp("readme"), NOT_RUN) as shell:
        yield shell


def test_what_it_says_works_from_top_to_bottom(shell: Shell) -> None:
    # One test: each chapter goes on with the files and servers of those before it.
    work_through_all(TEXT, shell)


def test_make_has_the_targets_that_are_not_run() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    lines = {command.line for command in commands(TEXT)}
    assert lines >= NOT_RUN.keys(), "the list of what is not run names a command that the README does not have"
    assert {line.split()[1] for line in lines if line.startswith("make ")} <= targets


@pytest.mark.parametrize(
    "page", sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")})
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
