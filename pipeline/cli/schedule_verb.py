"""The verb `schedule`: have a Prefect server run all steps by the clock."""

from argparse import ArgumentParser, Namespace

from pipeline.cli.verb import RECIPE, Verb, add_config, add_json, respond


def _schedule_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--cron", required=True, help='when, such as "0 3 * * *"')
    parser.add_argument("--timezone", default="UTC", help="whose clock the times are [%(default)s]")
    parser.add_argument("--pool", default="moerank", help="the Prefect work pool, made if absent [%(default)s]")
    parser.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="BLOCK",
        help="a Prefect notification block to tell of failures and refusals, such as slack-webhook/ops",
    )
    parser.add_argument("--step-hours", type=float, metavar="HOURS", help="end a step that takes longer, as failed")
    add_json(parser)


def _schedule(args: Namespace) -> None:
    from pipeline.flow.schedule import schedule  # noqa: PLC0415 - keeps `moerank --help` fast

    runs = {"notify": args.notify, "step_hours": args.step_hours}
    deployment = schedule(
        args.config, args.cron, overrides=args.overrides, timezone=args.timezone, pool=args.pool, parameters=runs
    )
    lines = [
        f"scheduled: {deployment.deployment} at {args.cron!r} {args.timezone}",
        f"a worker must run: prefect worker start --pool {args.pool}",
        f"run it once now:   prefect deployment run {deployment.deployment}",
    ]
    respond(args, {"deployment": deployment.deployment, "id": deployment.id, "pool": args.pool}, lines)


VERB = Verb(
    "schedule",
    "have a Prefect server run all steps by the clock",
    f'moerank schedule {RECIPE} --cron "0 3 * * *"',
    _schedule_arguments,
    _schedule,
)
