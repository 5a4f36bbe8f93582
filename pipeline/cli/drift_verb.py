"""The verb `drift`: how far new raw rows are from those that a model was trained on."""

import math
from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.errors import AlarmError, ConfigError
from pipeline.cli.evaluation_arguments import add_raw_rows, is_raw, raw_days
from pipeline.cli.paths import a_bundle, encoded_rows
from pipeline.cli.verb import Verb, add_json, respond


def _drift_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a published version or an exported run")
    parser.add_argument("--data", type=Path, help="encoded new rows, instead of raw ones")
    add_raw_rows(parser)
    parser.add_argument(
        "--reference",
        type=Path,
        required=True,
        metavar="ROWS",
        help="encoded rows of the model's own build, such as runs/NAME/features/train",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="the PSI beyond which it is an alarm [%(default)s]"
    )
    parser.add_argument("--out", type=Path, default=Path("drift"), help="where results go [%(default)s]")
    add_json(parser)


def _drift(args: Namespace) -> None:
    if (args.data is None) == (not is_raw(args)):
        message = "name the new rows with --events, --from or --to, or encoded ones with --data, and not both"
        raise ConfigError(message)
    if not 0.0 <= args.threshold < math.inf:
        message = f"--threshold {args.threshold:g}: a PSI is at least 0; usual are 0.1 (look) and 0.2 (an alarm)"
        raise ConfigError(message)
    bundle, reference = a_bundle(args.bundle), encoded_rows(args.reference, "--reference")
    data = encoded_rows(args.data, "--data") if args.data else raw_days(args)
    from pipeline.report.commands import drift_for_command  # noqa: PLC0415 - keeps `moerank --help` fast

    drift, page = drift_for_command(bundle, reference, data, args.out, args.threshold, args.keep_days)
    lines = [f"{'PSI':>8} {'KS':>8} {'JS':>8}  {'unknown':>8} {'missing':>8}"]
    for each in drift.by_psi:
        ks = "" if each.ks is None else f"{each.ks:.4f}"
        rates = (f"{'' if shift is None else f'{shift.now:.2%}':>8}" for shift in (each.unknown, each.missing))
        lines.append(f"{each.psi:8.4f} {ks:>8} {each.js:8.4f}  {' '.join(rates)}  {each.name}")
    alarms = [each.name for each in drift.alarms]
    respond(args, {"page": str(page), "alarms": alarms, **drift.model_dump(mode="json")}, [*lines, f"page: {page}"])
    if alarms:
        message = f"PSI is beyond {args.threshold:g} for {', '.join(alarms)}; see {page}"
        raise AlarmError(message)


VERB = Verb(
    "drift",
    "compare features and predictions of new rows with those of a model's own rows; exit code 4 beyond a threshold",
    "moerank drift runs/shop/store/shop/2 --from 2026-11-19 --reference runs/shop/features/train",
    _drift_arguments,
    _drift,
)
