"""The verb `monitor`: judge days as they were served, now."""

from argparse import ArgumentParser, Namespace
from datetime import date, timedelta

from contract.errors import AlarmError, ConfigError, MoerankError
from pipeline.cli.evaluation_arguments import a_day, refuse_reversed
from pipeline.cli.verb import Verb, add_config, add_json, respond


def _monitor_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--day", type=a_day, help="the day to judge; without it, yesterday")
    parser.add_argument("--from", dest="first", type=a_day, metavar="DAY", help="evaluate all days from this one on")
    parser.add_argument("--to", dest="last", type=a_day, metavar="DAY", help="to this one")
    parser.add_argument("--notify", action="append", default=[], metavar="BLOCK", help="Prefect blocks to tell")
    add_json(parser)


def _days(args: Namespace) -> list[date | None]:
    if (args.first is None) != (args.last is None) or (args.day and args.first):
        message = "name one day with --day, or all days with --from and --to"
        raise ConfigError(message)
    if args.first is None:
        return [args.day]
    refuse_reversed(args)
    return [args.first + timedelta(number) for number in range((args.last - args.first).days + 1)]


def _monitor(args: Namespace) -> int:
    days = _days(args)
    from pipeline.flow.prefect_server import prefect_api  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.yaml_file import Workspace, read_settings  # noqa: PLC0415

    workspace = read_settings(args.config, Workspace, overrides=args.overrides).workspace
    outcomes: list[tuple[str, dict[str, object] | None, MoerankError | None]] = []
    with prefect_api(workspace / ".prefect") as ready:
        from pipeline.flow.evaluation_flow import day_of, evaluate_served  # noqa: PLC0415 - Prefect reads it now
        from pipeline.project.project_config import read_config  # noqa: PLC0415

        page = read_config(args.config, args.overrides).days_dir / "index.html"
        ready()
        for day in days:
            state = evaluate_served(args.config, args.overrides, day=day, notify=args.notify, return_state=True)
            try:
                outcomes.append((str(day or "yesterday"), day_of(state), None))
            except MoerankError as error:
                outcomes.append((str(day or "yesterday"), None, error))
    failed = [error for _, _, error in outcomes if error is not None]
    if len(outcomes) == 1 and failed:
        raise failed[0]
    result = {"page": str(page), "days": [judged or {"day": day, "error": str(why)} for day, judged, why in outcomes]}
    lines = [f"{day}: {f'ALARM: {why}' if isinstance(why, AlarmError) else why or 'ok'}" for day, _, why in outcomes]
    respond(args, result, [*lines, f"over days: {page}"])
    return max((error.exit_code for error in failed), default=0)


VERB = Verb(
    "monitor",
    "evaluate a day's raw rows with the versions that served them, against bounds and the days before",
    "moerank monitor shop.yaml --day 2026-11-25",
    _monitor_arguments,
    _monitor,
)
