"""The verb `train`: train a model; an interrupted run continues from its last checkpoint."""

import os
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from contract.files import exclusive
from pipeline.cli.verb import RECIPE, Verb, at_least, config_arguments, respond

if TYPE_CHECKING:
    from pipeline.project.project_config import ProjectConfig


def _train(args: Namespace) -> int:
    if args.ranks > 1 and "RANK" not in os.environ:
        from pipeline.training.ranks_launch import launch_ranks  # noqa: PLC0415 - seconds of torch

        return launch_ranks(args.ranks, args.restarts, _words(args))
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    config = read_config(args.config, args.overrides)
    if int(os.environ.get("RANK", "0")) > 0:
        # One of the job's other processes: the first alone keeps the records and speaks of progress.
        for each in _seeded(args, config):
            steps.join_training(each)
        return 0
    if args.seeds > 1:
        _train_seeds(args, config)
        return 0
    with exclusive(config.root):
        run = steps.train_model(config)
    record = steps.required(run.directory, "moerank train CONFIG")
    lines = [f"run: {run.directory}", f"next: moerank export {run.directory}"]
    respond(args, {"run": str(run.directory), **record.result}, lines)
    return 0


def _words(args: Namespace) -> list[str]:
    """The command line of each rank."""
    changes = [word for change in args.overrides for word in ("--set", change)]
    return ["train", str(args.config), *changes, "--seeds", str(args.seeds), *(["--json"] if args.json else [])]


def _seeded(args: Namespace, config: "ProjectConfig") -> "list[ProjectConfig]":
    """The project with each seed that is asked for."""
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    if args.seeds == 1:
        return [config]
    seeds = [(config.train.seed + number) % (1 << 64) for number in range(args.seeds)]
    return [read_config(args.config, [*args.overrides, f"train.seed={seed}"]) for seed in seeds]


def _train_seeds(args: Namespace, config: "ProjectConfig") -> None:
    from pipeline.evaluation.seed_table import over_seeds, seed_table  # noqa: PLC0415
    from pipeline.flow import steps  # noqa: PLC0415

    configs, runs = _seeded(args, config), {}
    with exclusive(config.root):
        for each in configs:
            run = steps.train_model(each)
            runs[str(run.directory)] = steps.required(run.directory, "moerank train CONFIG").result["metrics"]
    means = over_seeds(list(runs.values()))
    seeds = [each.train.seed for each in configs]
    result = {"seeds": seeds, "runs": list(runs), "metrics": [each.model_dump(mode="json") for each in means]}
    respond(args, result, [*seed_table(means, seeds), *(f"run: {directory}" for directory in runs)])


def _arguments(parser: ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--seeds",
        type=at_least(1),
        default=1,
        metavar="N",
        help="train with N seeds from train.seed on, and print each metric's mean with its interval",
    )
    parser.add_argument(
        "--ranks",
        type=at_least(1),
        default=1,
        metavar="N",
        help="train with N processes of this machine, one a GPU where it has them (torchrun starts more machines)",
    )
    parser.add_argument(
        "--restarts",
        type=at_least(0),
        default=0,
        metavar="N",
        help="how often ranks are started again after one was lost",
    )


VERB = Verb(
    "train",
    "train a model; an interrupted run continues from its last checkpoint",
    f"moerank train {RECIPE} --set train.epochs=2",
    _arguments,
    _train,
)
