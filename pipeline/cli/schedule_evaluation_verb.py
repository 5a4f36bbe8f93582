"""The verb `schedule-evaluation`: have a Prefect server evaluate each day as it was served, on a schedule."""

from argparse import ArgumentParser, Namespace

from pipeline.cli.schedule_verb import schedule_arguments, scheduled_lines
from pipeline.cli.verb import RECIPE, Verb, respond


def _schedule_evaluation_arguments(parser: ArgumentParser) -> None:
    schedule_arguments(parser, "alarms and failures")
    parser.add_argument(
        "--days-back", type=int, default=1, metavar="N", help="how many days labels need to arrive [%(default)s]"
    )


def _schedule_evaluation(args: Namespace) -> None:
    from pipeline.flow.schedule import schedule_evaluation  # noqa: PLC0415 - keeps `moerank --help` fast

    runs = {"notify": args.notify, "step_hours": args.step_hours, "days_back": args.days_back}
    made = schedule_evaluation(
        args.config, args.cron, overrides=args.overrides, timezone=args.timezone, pool=args.pool, parameters=runs
    )
    respond(args, {"deployment": made.deployment, "id": made.id, "pool": args.pool}, scheduled_lines(args, made))


VERB = Verb(
    "schedule-evaluation",
    "have a Prefect server evaluate each day's rows with the versions that served them, on a schedule",
    f'moerank schedule-evaluation {RECIPE} --cron "0 6 * * *"',
    _schedule_evaluation_arguments,
    _schedule_evaluation,
)
