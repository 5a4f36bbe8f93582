"""The verb `config-schema`: print the JSON Schema of the project's YAML file, for editors."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.verb import Verb
from pipeline.console import answer

SCHEMA = Path(__file__).resolve().parents[1] / "project" / "moerank.schema.json"
"""Made from the settings by `make docs`: making it here would take seconds of imports."""


def _no_arguments(parser: ArgumentParser) -> None:
    del parser


def _config_schema(args: Namespace) -> None:
    del args
    answer(SCHEMA.read_text(encoding="utf-8"))


VERB = Verb(
    "config-schema",
    "print the JSON Schema of the project's YAML file, for editors",
    "moerank config-schema > moerank.schema.json",
    _no_arguments,
    _config_schema,
)
