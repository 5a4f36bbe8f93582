"""The verb `check`: look at a project's file and its tables before anything is built."""

from argparse import Namespace
from dataclasses import asdict

from pipeline.cli.few_imports import few_imports
from pipeline.cli.verb import RECIPE, Verb, config_arguments, respond


def _check(args: Namespace) -> None:
    with few_imports():
        from pipeline.project.all_blocks import require_all_blocks  # noqa: PLC0415
        from pipeline.project.check_recipe import check_recipe  # noqa: PLC0415 - keeps `moerank --help` fast
        from pipeline.project.data_project import read_data  # noqa: PLC0415

        project = read_data(args.config, args.overrides)
        require_all_blocks(args.config, args.overrides)
        checked = check_recipe(project.data, project.model.embedding_dim)
    respond(args, asdict(checked), checked.lines())


VERB = Verb(
    "check",
    "check a project's tables, columns and expressions before anything is built",
    f"moerank check {RECIPE}",
    config_arguments,
    _check,
    brief=True,
)
