"""The verb `tune`: search over a recipe's settings, and test what it found over seeds."""

from argparse import ArgumentParser, Namespace

from pipeline.cli.verb import Verb, at_least, config_arguments, respond


def _tune_arguments(parser: ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--trials", type=at_least(1), metavar="N", help="how many trials in all, those of earlier commands included"
    )


def _tune(args: Namespace) -> None:
    from pipeline.flow.prefect_server import prefect_api  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.yaml_file import Workspace, read_settings  # noqa: PLC0415

    workspace = read_settings(args.config, Workspace, overrides=args.overrides).workspace
    with prefect_api(workspace / ".prefect") as ready:
        from pipeline.flow.tuning_flow import tune_model  # noqa: PLC0415 - Prefect reads the environment now
        from pipeline.project.project_config import read_config  # noqa: PLC0415

        read_config(args.config, args.overrides)
        ready()
        tuned = tune_model(args.config, args.overrides, args.trials)
    respond(args, tuned.model_dump(mode="json"), tuned.lines())


VERB = Verb(
    "tune",
    "search over the settings that a recipe names under `tune`, and test the best over seeds",
    "moerank tune shop.yaml --trials 40",
    _tune_arguments,
    _tune,
)
