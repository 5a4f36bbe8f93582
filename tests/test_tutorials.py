"""The tutorials are true: one folder, in which each goes on with what the engineer's has made."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page_commands import Shell, opened_shell, work_through_all

# Only against a hang: on a quiet machine all four take two minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with opened_shell(tmp_path_factory.mktemp("tutorials"), {}) as shell:
        yield shell


def test_the_four_tutorials_work_from_top_to_bottom(shell: Shell) -> None:
    # One test: two trainings serve all four roles.
    for role in ("engineer", "scientist", "backend", "operator"):
        try:
            work_through_all((TUTORIALS / f"{role}.md").read_text(encoding="utf-8"), shell)
        except BaseException as error:
            error.add_note(f"in the tutorial for the {role}")
            raise


def test_there_is_a_tutorial_for_each_role() -> None:
    assert {page.stem for page in TUTORIALS.glob("*.md")} == {"engineer", "scientist", "backend", "operator"}
