"""All blocks of a project's file are looked at, without importing what trains and serves where nothing is wrong."""

import json
from collections.abc import Sequence
from pathlib import Path

from jsonschema import Draft202012Validator

from pipeline.yaml_file import read_tree

_SCHEMA = Path(__file__).with_name("moerank.schema.json")


def require_all_blocks(path: Path, overrides: Sequence[str] = ()) -> None:
    """See whether a file's keys and values are those of the JSON schema that editors use.

    What that refuses is read once more as `moerank run` reads it, in some seconds: it decides, and knows the words.

    Raises:
        ConfigError: naming every key and value that cannot be used, with its path and what is allowed.
    """
    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    if Draft202012Validator(schema).is_valid(read_tree(path, overrides=overrides)):
        return
    from pipeline.project.project_config import read_config  # noqa: PLC0415 - imports torch

    read_config(path, list(overrides))
