"""The tiny project, once made by the whole flow."""

import json

import pytest

from tests.pipeline.flow.shop import Shop, command, environment_of
from tests.pipeline.tiny_project import write_project


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    write_project(folder)
    environment = environment_of(folder)
    done = command(folder, environment, "run", "tiny.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return Shop(folder, environment, json.loads(done.stdout))
