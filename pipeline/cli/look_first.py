"""What can be seen to be wrong before anything heavy is imported: a missing file, a `data` block with a wrong key."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from pipeline.cli.paths import a_bundle, encoded_rows, existing, new_directory, new_file

READ_SOURCES = ("features", "run", "check")
"""Verbs that begin at the raw tables of a project."""
RAW_TABLES = ("events", "users", "items", "labels")
"""Arguments that name raw tables, of the verbs in `READ_TABLES`."""
READ_TABLES = ("init", "evaluate", "compare", "predict", "backtest", "drift")
WRITE_A_FILE = ("init", "predict")
"""Verbs whose ``--out`` is a file; that of others is a directory."""
_PLACES: dict[str, Callable[[Path], Path]] = {
    "run_dir": lambda path: existing(path, "RUN"),
    "bundle": a_bundle,
    "a": a_bundle,
    "b": a_bundle,
    "directory": lambda path: existing(path, "DIRECTORY"),
    "source": lambda path: existing(path, "RAW_CSV_DIR"),
    "train": lambda path: encoded_rows(path, "--train"),
    "requests": lambda path: existing(path, "--requests"),
}
"""Arguments that name one place, which must be there."""


def look_first(args: Namespace) -> None:
    """Check the files that a command line names, in a fraction of a second.

    Raises:
        ConfigError: no such file, a place where the result cannot go, or a `data` block that cannot be used.
        DataError: a raw table that is not there.
    """
    for name, look in _PLACES.items():
        path = getattr(args, name, None)
        if isinstance(path, Path):
            look(path)
    out = getattr(args, "out", None)
    if isinstance(out, Path):
        (new_file if args.verb in WRITE_A_FILE else new_directory)(out, "--out" if args.verb != "import" else "OUT")
    _look_at_predictions(getattr(args, "predictions", None))
    for bundle in getattr(args, "bundles", ()):
        a_bundle(bundle)
    if args.verb in READ_TABLES:
        _look_at_tables(args)
    config = getattr(args, "config", None)
    if isinstance(config, Path):
        _look_at_recipe(args, existing(config, "CONFIG"))


def _look_at_predictions(path: str | None) -> None:
    # A cluster reads other stores too, by a URL, and several files by a pattern.
    if path is not None and not any(sign in path for sign in ("://", "*", "?", "[")):
        existing(Path(path), "--predictions")


def _look_at_tables(args: Namespace) -> None:
    rows = getattr(args, "data", None)
    if isinstance(rows, Path):
        encoded_rows(rows, "--data")
    tables = {name: path for name in RAW_TABLES if (path := getattr(args, name, None)) is not None}
    if tables:
        from features.source.data_files import find_files  # noqa: PLC0415 - keeps `moerank --help` fast

        for name, path in tables.items():
            find_files(path, f"data.{name}")


def _look_at_recipe(args: Namespace, config: Path) -> None:
    from features.source.data_files import find_files  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.data_project import read_data  # noqa: PLC0415

    data = read_data(config, getattr(args, "overrides", ())).data
    if args.verb in READ_SOURCES:
        for name, table in data.tables():
            if table.path:
                find_files(table.path, f"data.{name}")
        if data.events.served:
            find_files(data.events.served, "data.events.served")
