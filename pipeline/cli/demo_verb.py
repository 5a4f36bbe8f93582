"""The verb `demo`: run the main job on real data, from download to an answered request."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.verb import Verb, add_json, respond


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--workspace", type=Path, default=Path("runs"), help="where everything goes [%(default)s]")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the data set is kept [%(default)s]")
    add_json(parser)


def _demo(args: Namespace) -> None:
    from pipeline.flow.prefect_server import prefect_api  # noqa: PLC0415 - keeps `moerank --help` fast

    with prefect_api(args.workspace / ".prefect") as ready:
        from pipeline.flow.flows import demonstrate  # noqa: PLC0415 - Prefect reads the environment when imported

        ready()
        published, answers = demonstrate(args.workspace, args.data)
    first = answers.rankings[0][1].ranked[:5]
    ask = f"moerank rank --user {answers.rankings[0][0]} --items {','.join(map(str, first))}"
    lines = [*answers.lines(), "", *published.lines(), f"then ask it: {ask}"]
    respond(args, {**published.as_json(), "answers": answers.as_json()}, lines)


VERB = Verb(
    "demo",
    "run the main job on real data, from download to an answered request",
    "moerank demo",
    _demo_arguments,
    _demo,
)
