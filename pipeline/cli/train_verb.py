"""The verb `train`: train a model; an interrupted run goes on from its last checkpoint."""

import os
from argparse import Namespace

from contract.errors import ConfigError, DataError, SchemaMismatchError
from contract.files import exclusive
from pipeline.cli.verb import RECIPE, Verb, config_arguments, respond


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
    with exclusive(config.root):
        run = steps.train_model(config)
    record = steps.required(run.directory, "moerank train CONFIG")
    lines = [f"run: {run.directory}", f"next: moerank export {run.directory}"]
    respond(args, {"run": str(run.directory), **record.result}, lines)


VERB = Verb(
    "train",
    "train a model; an interrupted run goes on from its last checkpoint",
    f"moerank train {RECIPE} --set train.epochs=2",
    config_arguments,
    _train,
)
