"""Verbs that make models: features, train, export, publish, run, schedule."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.files import exclusive
from pipeline.cli.paths import a_run
from pipeline.cli.verb import Verb, add_config, add_json, respond


def _config_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def _run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a training run: runs/NAME/training/RUN")
    add_json(parser)


def _export_arguments(parser: ArgumentParser) -> None:
    _run_arguments(parser)
    parser.add_argument("--form", choices=("auto", "sparse", "dense"), help="which experts are computed for a row")
    parser.add_argument("--require-sparse", action="store_true", default=None, help="refuse gates that are not sparse")
    parser.add_argument("--quantize", choices=("none", "experts"), help="int8 experts and towers, if they lose nothing")
    parser.add_argument("--tables", choices=("fp32", "fp16", "int8"), help="smaller tables, if they lose nothing")
    parser.add_argument(
        "--calibration", choices=("auto", "none", "platt", "isotonic"), help="fit probabilities on the validation rows"
    )
    parser.add_argument("--packed", action="store_true", default=None, help="a second graph for several requests a run")


def _features(args: Namespace) -> None:
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    config = read_config(args.config, args.overrides)
    with exclusive(config.root):
        record = steps.build_features(config)
    respond(args, {"directory": str(config.features_dir), **record.result}, [f"features: {config.features_dir}"])


def _train(args: Namespace) -> None:
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    config = read_config(args.config, args.overrides)
    if int(os.environ.get("RANK", "0")) > 0:
        # One of torchrun's other processes: the first exclusive keeps the records and speaks.
        steps.join_training(config)
        return
    with exclusive(config.root):
        run = steps.train_model(config)
    record = steps.required(run.directory, "moerank train CONFIG")
    lines = [f"run: {run.directory}", f"next: moerank export {run.directory}"]
    respond(args, {"run": str(run.directory), **record.result}, lines)


def _export(args: Namespace) -> None:
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast

    names = ("form", "require_sparse", "quantize", "tables", "calibration", "packed")
    run = steps.Run.open(a_run(args.run_dir)).exported_as(**{name: getattr(args, name) for name in names})
    with exclusive(run.config.root):
        record = steps.export_model(run)
    lines = [f"exported: {run.export_dir}", f"next: moerank publish {run.directory}"]
    respond(args, {"directory": str(run.export_dir), **record.result}, lines)


def _publish(args: Namespace) -> None:
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast

    run = steps.Run.open(a_run(args.run_dir))
    with exclusive(run.config.root):
        steps.export_model(run)
        steps.evaluate_model(run)
        made = steps.publish_model(run)
    respond(args, made.as_json(), made.lines())


def _run(args: Namespace) -> None:
    from pipeline.flow.prefect_server import prefect_api  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.yaml_file import Workspace, read_settings  # noqa: PLC0415

    workspace = read_settings(args.config, Workspace, overrides=args.overrides).workspace
    with prefect_api(workspace / ".prefect") as ready:
        from pipeline.flow.flows import build_model, published_by  # noqa: PLC0415 - Prefect reads the environment now
        from pipeline.project.project_config import read_config  # noqa: PLC0415 - seconds, in which the API starts

        read_config(args.config, args.overrides)
        ready()
        made = published_by(build_model(args.config, args.overrides, return_state=True))
    respond(args, made.as_json(), made.lines())


def _schedule_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--cron", required=True, help='when, such as "0 3 * * *"')
    parser.add_argument("--timezone", default="UTC", help="whose clock the times are [%(default)s]")
    parser.add_argument("--pool", default="moerank", help="the Prefect work pool, made if absent [%(default)s]")
    add_json(parser)


def _schedule(args: Namespace) -> None:
    from pipeline.flow.schedule import schedule  # noqa: PLC0415 - keeps `moerank --help` fast

    made = schedule(args.config, args.cron, overrides=args.overrides, timezone=args.timezone, pool=args.pool)
    lines = [
        f"scheduled: {made.deployment} at {args.cron!r} {args.timezone}",
        f"a worker must run: prefect worker start --pool {args.pool}",
        f"run it once now:   prefect deployment run {made.deployment}",
    ]
    respond(args, {"deployment": made.deployment, "id": made.id, "pool": args.pool}, lines)


RECIPE = "pipeline/recipes/movielens.yaml"
VERBS = (
    Verb(
        "features",
        "turn raw Parquet into training Parquet and online tables",
        f"moerank features {RECIPE}",
        _config_arguments,
        _features,
    ),
    Verb(
        "train",
        "train a model; an interrupted run goes on from its last checkpoint",
        f"moerank train {RECIPE} --set train.epochs=2",
        _config_arguments,
        _train,
    ),
    Verb(
        "export",
        "turn a run's checkpoint into one ONNX graph, checked against the model itself",
        "moerank export runs/movielens/training/RUN",
        _export_arguments,
        _export,
    ),
    Verb(
        "publish",
        "judge a run and, if the quality gate lets it pass, make it the store's current version",
        "moerank publish runs/movielens/training/RUN",
        _run_arguments,
        _publish,
    ),
    Verb(
        "run",
        "do all steps now, from raw Parquet to a published model",
        f"moerank run {RECIPE}",
        _config_arguments,
        _run,
    ),
    Verb(
        "schedule",
        "have a Prefect server run all steps by the clock",
        f'moerank schedule {RECIPE} --cron "0 3 * * *"',
        _schedule_arguments,
        _schedule,
    ),
)
