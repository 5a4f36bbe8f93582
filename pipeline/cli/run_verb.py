"""The verb `run`: run all steps now, from raw Parquet to a published model."""

from argparse import Namespace

from pipeline.cli.verb import RECIPE, Verb, config_arguments, respond


def _run(args: Namespace) -> None:
    from pipeline.flow.prefect_server import prefect_api  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.yaml_file import Workspace, read_settings  # noqa: PLC0415

    workspace = read_settings(args.config, Workspace, overrides=args.overrides).workspace
    with prefect_api(workspace / ".prefect") as ready:
        from prefect import tags  # noqa: PLC0415 - Prefect reads the environment now

        from pipeline.flow.flows import build_model, published_by  # noqa: PLC0415 - the same
        from pipeline.project.project_config import read_config  # noqa: PLC0415 - seconds, in which the API starts

        project = read_config(args.config, args.overrides)
        ready()
        with tags("moerank", project.name):
            published = published_by(build_model(args.config, args.overrides, return_state=True))
    respond(args, published.as_json(), published.lines())


VERB = Verb(
    "run",
    "run all steps now, from raw Parquet to a published model",
    f"moerank run {RECIPE}",
    config_arguments,
    _run,
)
