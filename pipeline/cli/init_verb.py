"""The verb `init`: inspect raw tables and write a project file that trains as it is."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.errors import ConfigError
from contract.files import write_text
from pipeline.cli.config_schema_verb import SCHEMA
from pipeline.cli.few_imports import few_imports
from pipeline.cli.verb import Verb, add_json, respond
from pipeline.console import progress_of


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("events", metavar="EVENTS", help="the log: a Parquet file, a folder, a glob or a URL")
    parser.add_argument("--users", help="a table of users, one row per user")
    parser.add_argument("--items", help="a table of items, one row per item")
    parser.add_argument("--labels", help="a table of what came of events, such as clicks of impressions")
    parser.add_argument(
        "--label", action="append", default=[], metavar="COLUMN", help="a column to predict; else guessed"
    )
    parser.add_argument(
        "--positives",
        action="store_true",
        help="each row is something that the user took, such as a purchase; what was not taken is drawn",
    )
    parser.add_argument("--name", help="the project's name [the folder's]")
    parser.add_argument("--out", type=Path, default=Path("moerank.yaml"), help="the file to write [%(default)s]")
    add_json(parser)


def _init(args: Namespace) -> None:
    if args.out.exists():
        message = f"{args.out} is there already; name another file with --out, or remove it"
        raise ConfigError(message)
    with progress_of("init") as progress, few_imports():
        progress("looking at the tables")
        from pipeline.project.column_words import plain  # noqa: PLC0415 - keeps `--help` fast
        from pipeline.project.draft_recipe import SCHEMA_FILE, RawPaths, draft_recipe  # noqa: PLC0415
        from pipeline.project.try_draft import tried  # noqa: PLC0415

        name = args.name or plain(Path.cwd().name, "project")
        paths = RawPaths(args.events, args.users, args.items, args.labels)
        draft = draft_recipe(paths, name, args.label, positives=args.positives)
        progress("building features from some rows")
        text = tried(draft).text()
    write_text(text, args.out)
    schema = args.out.with_name(SCHEMA_FILE)
    write_text(SCHEMA.read_text(encoding="utf-8"), schema)
    lines = [
        text.rstrip(),
        "",
        f"written: {args.out}, and {schema} for editors",
        f"next: moerank check {args.out}",
        f"then: moerank run {args.out}",
    ]
    respond(args, {"path": str(args.out), "schema": str(schema), "name": name}, lines)


VERB = Verb(
    "init",
    "inspect raw tables and write a project file that trains as it is",
    "moerank init data/log --users data/users.parquet --items data/items.parquet",
    _arguments,
    _init,
)
