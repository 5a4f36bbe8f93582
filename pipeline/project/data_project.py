"""The part of a project's file that says what the data are, which is read without what trains and serves."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict

from contract.settings import Settings
from features.feature_config import FeaturesConfig
from pipeline.yaml_file import Workspace, read_settings


class ModelWidth(Settings):
    """Of the model's block, the one number that tells how large its tables are."""

    model_config = ConfigDict(extra="ignore")

    embedding_dim: int | None = None


class DataProject(Workspace):
    """A project's name and its `data` block; other blocks are not looked at."""

    model_config = ConfigDict(extra="ignore")

    name: str
    data: FeaturesConfig
    model: ModelWidth = ModelWidth()


def read_data(path: Path, overrides: Sequence[str] = ()) -> DataProject:
    """Read that part of a project's file.

    Raises:
        ConfigError: naming every key and value of it that cannot be used.
    """
    return read_settings(path, DataProject, overrides=overrides)
