"""The verb `config-schema`: print the JSON Schema of the project's YAML file, for editors."""

import json
from argparse import ArgumentParser, Namespace

from pipeline.cli.verb import Verb
from pipeline.console import answer


def _no_arguments(parser: ArgumentParser) -> None:
    del parser


def _config_schema(args: Namespace) -> None:
    del args
    from pipeline.project.project_config import ProjectConfig  # noqa: PLC0415 - keeps `moerank --help` fast

    answer(json.dumps(ProjectConfig.model_json_schema(), indent=1))


VERB = Verb(
    "config-schema",
    "print the JSON Schema of the project's YAML file, for editors",
    "moerank config-schema > moerank.schema.json",
    _no_arguments,
    _config_schema,
)
