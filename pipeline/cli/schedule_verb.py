"""The verb `schedule`: have a Prefect server run all steps on a schedule."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from pipeline.cli.verb import RECIPE, Verb, add_config, add_json, respond

if TYPE_CHECKING:
    from pipeline.flow.schedule import Scheduled


def schedule_arguments(parser: ArgumentParser, told: str) -> None:
    """What every deployment has: a clock, a work pool, and whom to tell of what."""
    add_config(parser)
    parser.add_argument("--cron", required=True, help='when, such as "0 3 * * *"')
    parser.add_argument("--timezone", default="UTC", help="whose clock the times are [%(default)s]")
    parser.add_argument("--pool", default="moerank", help="the Prefect work pool, made if absent [%(default)s]")
    parser.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="BLOCK",
        help=f"a Prefect notification block to tell of {told}, such as slack-webhook/ops",
    )
    parser.add_argument("--step-hours", type=float, metavar="HOURS", help="end a step that takes longer, as failed")
    add_json(parser)


def scheduled_lines(args: Namespace, made: "Scheduled") -> list[str]:
    """For a person: what was registered, and what must run for it."""
    return [
        f"scheduled: {made.deployment} at {args.cron!r} {args.timezone}",
        f"a worker must run: prefect worker start --pool {args.pool}",
        f"run it once now:   prefect deployment run {made.deployment}",
    ]


def _schedule_arguments(parser: ArgumentParser) -> None:
    schedule_arguments(parser, "failures and refusals")


def _schedule(args: Namespace) -> None:
    from pipeline.flow.schedule import schedule  # noqa: PLC0415 - keeps `moerank --help` fast

    runs = {"notify": args.notify, "step_hours": args.step_hours}
    deployment = schedule(
        args.config, args.cron, overrides=args.overrides, timezone=args.timezone, pool=args.pool, parameters=runs
    )
    respond(
        args,
        {"deployment": deployment.deployment, "id": deployment.id, "pool": args.pool},
        scheduled_lines(args, deployment),
    )


VERB = Verb(
    "schedule",
    "have a Prefect server run all steps on a schedule",
    f'moerank schedule {RECIPE} --cron "0 3 * * *"',
    _schedule_arguments,
    _schedule,
)
