"""The verb `train`: train a model; an interrupted run continues from its last checkpoint."""

import os
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from contract.errors import ConfigError, DataError, SchemaMismatchError
from contract.files import exclusive
from pipeline.cli.verb import RECIPE, Verb, config_arguments, respond

if TYPE_CHECKING:
    from pipeline.project.project_config import ProjectConfig


def _train(args: Namespace) -> None:
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    config = read_config(args.config, args.overrides)
    if int(os.environ.get("RANK", "0")) > 0:
        # One of torchrun's other processes: the first alone keeps the records and speaks.
        try:
            steps.join_training(config)
        except (ConfigError, DataError, SchemaMismatchError) as error:
            # All ranks see the same settings and data: the first tells what is wrong with them.
            raise SystemExit(error.exit_code) from error
        return
    if args.seeds > 1:
        _train_seeds(args, config)
        return
    with exclusive(config.root):
        run = steps.train_model(config)
    record = steps.required(run.directory, "moerank train CONFIG")
    lines = [f"run: {run.directory}", f"next: moerank export {run.directory}"]
    respond(args, {"run": str(run.directory), **record.result}, lines)


def _train_seeds(args: Namespace, config: "ProjectConfig") -> None:
    from pipeline.evaluation.seed_table import over_seeds, seed_table  # noqa: PLC0415
    from pipeline.flow import steps  # noqa: PLC0415
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    seeds = [config.train.seed + number for number in range(args.seeds)]
    runs = {}
    with exclusive(config.root):
        for seed in seeds:
            run = steps.train_model(read_config(args.config, [*args.overrides, f"train.seed={seed}"]))
            runs[str(run.directory)] = steps.required(run.directory, "moerank train CONFIG").result["metrics"]
    means = over_seeds(list(runs.values()))
    result = {"seeds": seeds, "runs": list(runs), "metrics": [each.model_dump(mode="json") for each in means]}
    respond(args, result, [*seed_table(means, seeds), *(f"run: {directory}" for directory in runs)])


def _arguments(parser: ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="train with N seeds from train.seed on, and print each metric's mean with its interval",
    )


VERB = Verb(
    "train",
    "train a model; an interrupted run continues from its last checkpoint",
    f"moerank train {RECIPE} --set train.epochs=2",
    _arguments,
    _train,
)
