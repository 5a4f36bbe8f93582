"""`make quick` runs the tests that a change concerns."""

from pathlib import Path

import pytest

from tests.quick import ROOT, concerned, git

TESTS = {file for file in git("ls-files", "tests/*.py") if file.name.startswith("test_") and (ROOT / file).is_file()}


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ("features/encode/vocabulary.py", "tests/features/encode/test_learn_vocabulary.py"),
        ("features/batches.py", "tests/features/test_batches.py"),
        ("contract/schema.py", "tests/features/test_batches.py"),
        ("tests/serving/client/test_probe.py", "tests/serving/client/test_probe.py"),
        ("README.md", "tests/test_house.py"),
    ],
)
def test_a_change_selects_its_mirror_and_who_imports_it(changed: str, wanted: str) -> None:
    assert Path(wanted) in concerned({Path(changed)}, TESTS)


def test_a_change_of_the_encoding_selects_no_test_of_the_gates() -> None:
    chosen = concerned({Path("features/encode/vocabulary.py")}, TESTS)
    assert not {test for test in chosen if test.parts[1] == "models"}
