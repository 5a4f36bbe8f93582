"""The verb `publish`: evaluate a run and, if it passes the quality gate, make it the store's current version."""

from argparse import ArgumentParser, Namespace

from contract.files import exclusive
from pipeline.cli.paths import a_run
from pipeline.cli.store_arguments import add_delta
from pipeline.cli.verb import Verb, respond, run_arguments


def _publish_arguments(parser: ArgumentParser) -> None:
    run_arguments(parser)
    add_delta(parser)


def _publish(args: Namespace) -> None:
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast

    run = steps.Run.open(a_run(args.run_dir))
    with exclusive(run.config.root):
        steps.export_model(run)
        steps.evaluate_model(run)
        published = steps.publish_model(run, delta=args.delta)
    respond(args, published.as_json(), published.lines())


VERB = Verb(
    "publish",
    "evaluate a run and, if it passes the quality gate, make it the store's current version",
    "moerank publish runs/movielens/training/RUN",
    _publish_arguments,
    _publish,
)
