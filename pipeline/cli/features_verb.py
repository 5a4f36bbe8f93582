"""The verb `features`: turn raw Parquet into training Parquet and online tables."""

from argparse import Namespace

from contract.files import exclusive
from pipeline.cli.verb import RECIPE, Verb, config_arguments, respond


def _features(args: Namespace) -> None:
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    config = read_config(args.config, args.overrides)
    with exclusive(config.root):
        record = steps.build_features(config)
    respond(args, {"directory": str(config.features_dir), **record.result}, [f"features: {config.features_dir}"])


VERB = Verb(
    "features",
    "turn raw Parquet into training Parquet and online tables",
    f"moerank features {RECIPE}",
    config_arguments,
    _features,
)
