"""The verb `doctor`: check this machine, and say how to repair what does not work."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.verb import Verb, add_json, respond


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--workspace", type=Path, default=Path("runs"), help="whose disk to look at [%(default)s]")
    parser.add_argument("--bundle", type=Path, help="STORE/MODEL/VERSION: how it would be served on this machine")
    add_json(parser)


def _doctor(args: Namespace) -> int:
    from pipeline import doctor  # noqa: PLC0415 - keeps `moerank --help` fast

    findings = doctor.examine(args.workspace)
    findings += [doctor.examine_bundle(args.bundle)] if args.bundle else []
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8} {finding.subject:<17} {finding.found}")
        lines += [f"{'':<26} -> {finding.advice}"] if finding.advice else []
    respond(args, doctor.as_json(findings), lines)
    return 0 if doctor.healthy(findings) else 1


VERB = Verb(
    "doctor",
    "check this machine, and say how to repair what does not work",
    "moerank doctor --json",
    _doctor_arguments,
    _doctor,
)
