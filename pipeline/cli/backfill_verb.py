"""The verb `backfill`: replay nights, to see what each would have made."""

from argparse import ArgumentParser, Namespace
from datetime import date
from typing import Any

from pipeline.cli.verb import Verb, add_config, add_json, respond
from pipeline.console import say


def _backfill_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    day: dict[str, Any] = {"type": date.fromisoformat, "required": True, "metavar": "DAY"}
    parser.add_argument("--from", dest="first", help="the first night's last day of the log, 2026-05-01", **day)
    parser.add_argument("--to", dest="last", help="the last night's, 2026-05-07", **day)
    add_json(parser)


def _backfill(args: Namespace) -> int:
    from pipeline.flow.prefect_server import prefect_api  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.data_project import read_data  # noqa: PLC0415
    from pipeline.project.log_days import nights_to_replay  # noqa: PLC0415

    project = read_data(args.config, args.overrides)
    wanted = nights_to_replay(project.data, args.first, args.last)
    with prefect_api(project.workspace / ".prefect") as ready:
        from prefect import tags  # noqa: PLC0415 - Prefect reads the environment now

        from pipeline.flow.backfill import backfill  # noqa: PLC0415 - the same
        from pipeline.project.project_config import read_config  # noqa: PLC0415

        read_config(args.config, args.overrides)
        ready()
        with tags("moerank", "backfill", project.name):
            nights = backfill(args.config, wanted, args.overrides, say)
    respond(args, {"nights": [night.as_json() for night in nights]}, [night.line() for night in nights])
    return 1 if any(night.error for night in nights) else 0


VERB = Verb(
    "backfill",
    "replay the nights after some days of the log, to see what each would have made; publish nothing",
    "moerank backfill shop.yaml --from 2026-05-01 --to 2026-05-07",
    _backfill_arguments,
    _backfill,
)
