"""What can be seen to be wrong before anything heavy is imported: a missing file, a `data` block with a wrong key."""

from argparse import Namespace
from pathlib import Path

from pipeline.cli.paths import existing

READ_SOURCES = ("features", "run", "check")
"""Verbs that begin at the raw tables."""


def look_first(args: Namespace) -> None:
    """Check the files that a command line names, in a fraction of a second.

    Raises:
        ConfigError: no such file, or a `data` block that cannot be used.
        DataError: a raw table that is not there.
    """
    run = getattr(args, "run_dir", None)
    if isinstance(run, Path):
        existing(run, "RUN")
    config = getattr(args, "config", None)
    if not isinstance(config, Path):
        return
    existing(config, "CONFIG")
    from features.source.data_files import find_files  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project.data_project import read_data, tables_of  # noqa: PLC0415

    data = read_data(config, getattr(args, "overrides", ())).data
    if args.verb in READ_SOURCES:
        for name, table in tables_of(data):
            if table.path:
                find_files(table.path, f"data.{name}")
        if data.events.served:
            find_files(data.events.served, "data.events.served")
