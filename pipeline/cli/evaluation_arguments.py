"""What verbs that evaluate share: raw rows, names of columns, and how metrics are judged."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import ConfigError

if TYPE_CHECKING:
    from features.encode_days import RawDays

_ROWS = ("events", "users", "items", "first", "last")


def a_day(text: str) -> date:
    """A day of the command line, such as 2026-11-26."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is not a day; write it as 2026-11-26"
        raise ArgumentTypeError(message) from error


def some(text: str) -> list[str]:
    """Values with commas between them, for an option of several values (``action="extend"``)."""
    return [value for value in text.split(",") if value]


def add_slices(parser: ArgumentParser, of: str = "columns") -> None:
    """``--slice-by``, given once or several times."""
    what = f"{of}, hour, user_activity or item_activity; several with commas, or one after the other"
    parser.add_argument("--slice-by", type=some, action="extend", default=[], metavar="SLICE", help=what)


def add_raw_rows(parser: ArgumentParser) -> None:
    """``--events`` and what else says which raw rows to encode."""
    group = parser.add_argument_group("raw rows, encoded by the model's own recipe")
    group.add_argument("--events", metavar="PARQUET", help="the log, with the days that features look back to")
    group.add_argument("--users", metavar="PARQUET", help="the users' table, where it is not the recipe's")
    group.add_argument("--items", metavar="PARQUET", help="the items' table, where it is not the recipe's")
    group.add_argument("--from", dest="first", type=a_day, metavar="DAY", help="the first day to judge")
    group.add_argument("--to", dest="last", type=a_day, metavar="DAY", help="the last day to judge")
    group.add_argument("--key", metavar="COLUMN", help="the log's column that tells rows apart, for predictions")
    group.add_argument("--keep-days", type=Path, metavar="DIRECTORY", help="keep computed days there for the next time")


def is_raw(args: Namespace) -> bool:
    """Whether a command line names raw rows."""
    return any(getattr(args, name) is not None for name in _ROWS)


def refuse_reversed(args: Namespace) -> None:
    """Refuse days that are the wrong way round.

    Raises:
        ConfigError: ``--to`` is before ``--from``.
    """
    if args.first and args.last and args.first > args.last:
        message = f"--from {args.first} is after --to {args.last}; give the earlier day first"
        raise ConfigError(message)


def add_columns(parser: ArgumentParser) -> None:
    """``--columns``: what a prediction file calls its columns."""
    parser.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        default=[],
        metavar="WHAT=COLUMN",
        help="what columns of prediction files are called: user=uid label.click=y prediction.click=p",
    )


def raw_days(args: Namespace) -> "RawDays":
    """The raw rows that a command line names.

    Raises:
        ConfigError: the last day is before the first.
    """
    refuse_reversed(args)
    from features.encode_days import RawDays  # noqa: PLC0415 - keeps `moerank --help` fast

    return RawDays(**{name: getattr(args, name) for name in _ROWS}, key=args.key)


def slices_from(args: Namespace) -> dict[str, object]:
    """The slices that a command line asks for."""
    return {"slice_by": tuple(args.slice_by)}


def method_from(replicates: int | None) -> dict[str, object]:
    """The evaluation settings that a command line changes."""
    return {} if replicates is None else {"replicates": replicates}
