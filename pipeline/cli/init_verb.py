"""The verb `init`: look at raw tables and write a project's file that trains as it is."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.errors import ConfigError
from contract.files import write_text
from pipeline.cli.verb import Verb, add_json, respond


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("events", metavar="EVENTS", help="the log: a Parquet file, a folder, a glob or a URL")
    parser.add_argument("--users", help="a table of users, one row a user")
    parser.add_argument("--items", help="a table of items, one row an item")
    parser.add_argument("--labels", help="a table of what came of events, such as clicks of impressions")
    parser.add_argument(
        "--label", action="append", default=[], metavar="COLUMN", help="a column to predict; else guessed"
    )
    parser.add_argument("--name", help="the project's name [the folder's]")
    parser.add_argument("--out", type=Path, default=Path("moerank.yaml"), help="the file to write [%(default)s]")
    add_json(parser)


def _init(args: Namespace) -> None:
    if args.out.exists():
        message = f"{args.out} is there already; name another file with --out, or remove it"
        raise ConfigError(message)
    from pipeline.project.draft_recipe import RawTables, draft_recipe, plain  # noqa: PLC0415 - keeps `--help` fast

    name = args.name or plain(Path.cwd().name)
    text = draft_recipe(RawTables(args.events, args.users, args.items, args.labels), name, args.label)
    write_text(text, args.out)
    lines = [
        text.rstrip(),
        "",
        f"written: {args.out}",
        f"next: moerank check {args.out}",
        f"then: moerank run {args.out}",
    ]
    respond(args, {"path": str(args.out), "name": name}, lines)


VERB = Verb(
    "init",
    "look at raw tables and write a project's file that trains as it is",
    "moerank init data/log --users data/users.parquet --items data/items.parquet",
    _arguments,
    _init,
)
