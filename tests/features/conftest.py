"""One small built world for the tests that only read it."""

from pathlib import Path

import pytest

from features.build import build
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature directory; its raw tables lie beside it."""
    directory = tmp_path_factory.mktemp("world")
    write_raw(directory, raw_tables())
    build(recipe(directory), directory / "features", quiet)
    return directory / "features"
