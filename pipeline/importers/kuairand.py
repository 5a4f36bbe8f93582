"""KuaiRand-Pure: the official CSV files to typed Parquet, with exact duplicates flagged.

Data: Gao et al. 2022, "KuaiRand", doi 10.1145/3511808.3557624, CC BY-SA 4.0, https://zenodo.org/records/10439422.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from contract.errors import DataError
from contract.files import replacing
from features.source.parquet_files import write_table

LOG_FILES = "log_standard_*.csv"
USER_FILE = "user_features_pure.csv"
ITEM_FILE = "video_features_basic_pure.csv"
UNKNOWN = -124
"""The publishers' code for an unknown value."""

_TINY = dict.fromkeys(
    (
        "is_click",
        "long_view",
        "is_like",
        "is_follow",
        "is_comment",
        "is_forward",
        "is_hate",
        "is_profile_enter",
    ),
    pa.int8(),
)
_RANGES = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")

# Column by column in the order of the result: name there -> (name in the CSV, type).
_LOG: dict[str, tuple[str, pa.DataType]] = {
    "user_id": ("user_id", pa.int32()),
    "video_id": ("video_id", pa.int32()),
    "event_time": ("time_ms", pa.int64()),
    "hour": ("hourmin", pa.int16()),
    "tab": ("tab", pa.int8()),
    "duration_ms": ("duration_ms", pa.int32()),
    **{name: (name, kind) for name, kind in _TINY.items()},
    "play_time_ms": ("play_time_ms", pa.int32()),
    "profile_stay_time_ms": ("profile_stay_time", pa.int32()),
    "comment_stay_time_ms": ("comment_stay_time", pa.int32()),
}
_DATE = "date"
_ORDER = ("event_time", "user_id", "video_id", "tab")
_USERS: dict[str, tuple[str, pa.DataType]] = {
    "user_id": ("user_id", pa.int32()),
    "user_active_degree": ("user_active_degree", pa.string()),
    **{name: (name, pa.int8()) for name in ("is_lowactive_period", "is_live_streamer", "is_video_author")},
    **{
        column: (column, kind)
        for name in _RANGES
        for column, kind in ((name, pa.int32()), (f"{name}_range", pa.string()))
    },
    **{f"onehot_feat{number}": (f"onehot_feat{number}", pa.int16()) for number in range(18)},
}
_ITEMS: dict[str, tuple[str, pa.DataType]] = {
    "video_id": ("video_id", pa.int32()),
    "author_id": ("author_id", pa.int32()),
    "video_type": ("video_type", pa.string()),
    "upload_date": ("upload_dt", pa.date32()),
    "upload_type": ("upload_type", pa.string()),
    "video_duration_ms": ("video_duration", pa.int32()),
    "server_width": ("server_width", pa.int16()),
    "server_height": ("server_height", pa.int16()),
    "music_id": ("music_id", pa.int64()),
    "music_type": ("music_type", pa.int8()),
    "tags": ("tag", pa.string()),
}


FIRST_DAY = 20220425
"""The first day that trains; earlier ones are the past."""
HISTORY_LENGTH = 50


@dataclass(frozen=True)
class ImportedKuaiRand:
    """What an import wrote: `directory`, the rows of each table in it, and how many events are exact copies."""

    directory: Path
    rows: dict[str, int]
    duplicates: int


def import_kuairand(source: Path, out: Path) -> ImportedKuaiRand:
    """Read the official CSV layout and write `interactions/date=*/`, `users.parquet`, `items.parquet` into `out`.

    Days before 25 April 2022 become `history_events.parquet`: each user's last 50 impressions, oldest first, which the
    recipe counts as the past. Without such days the file is not written.

    All ``log_standard_*.csv`` files are read, and one day may span several of them. Types are the narrowest that
    hold the data, times are timestamp[ms, UTC], -124 becomes null, and `is_dup` marks the second and later copies
    of exactly equal log rows. What `out` held before is replaced in one step.

    Raises:
        DataError: a file or column is missing, or a value does not fit; nothing is written.
    """
    logs = sorted(source.glob(LOG_FILES))
    if not logs:
        message = f"no {LOG_FILES} in {source}; give the directory with the official CSV files (often named data)"
        raise DataError(message)
    users = _read(source / USER_FILE, _USERS)
    items = _read(source / ITEM_FILE, _ITEMS)
    items = items.set_column(items.num_columns - 1, "tags", _tags(items["tags"], source / ITEM_FILE))
    whole = _log(logs)
    is_past = pc.less(whole[_DATE], FIRST_DAY)
    before, log = whole.filter(is_past), whole.filter(pc.invert(is_past))
    if log.num_rows == 0:
        message = f"the log in {source} ends before {FIRST_DAY}; the days from then on are what the recipe trains on"
        raise DataError(message)
    with replacing(out) as directory:
        write_table(users.sort_by("user_id"), directory / "users.parquet")
        write_table(items.sort_by("video_id"), directory / "items.parquet")
        if before.num_rows:
            write_table(_history(before), directory / "history_events.parquet")
        for day, rows in _days(log):
            folder = directory / "interactions" / f"date={day}"
            folder.mkdir(parents=True)
            write_table(rows, folder / "part-0.parquet")
    counts = {"interactions": log.num_rows, "users": users.num_rows, "items": items.num_rows}
    counts |= {"before": before.num_rows} if before.num_rows else {}
    return ImportedKuaiRand(directory=out, rows=counts, duplicates=int(pc.sum(log["is_dup"]).as_py() or 0))


def _history(before: pa.Table) -> pa.Table:
    """The last `HISTORY_LENGTH` impressions of each user, numbered from the oldest, without their times."""
    ordered = before.sort_by([("user_id", "ascending"), ("event_time", "ascending")])
    users = ordered["user_id"].to_numpy()
    starts = np.flatnonzero(np.diff(users, prepend=users[0] - 1))
    sizes = np.diff(np.append(starts, users.size))
    position = np.arange(users.size) - np.repeat(starts, sizes)
    first = np.repeat(np.maximum(sizes - HISTORY_LENGTH, 0), sizes)
    is_late = pa.array(position >= first)
    pos = pa.array((position - first).astype(np.int16)).filter(is_late)
    chosen = ordered.select(["user_id", "video_id", "long_view", "is_like"]).filter(is_late)
    return chosen.add_column(2, "pos", pos)


def _read(path: Path, columns: Mapping[str, tuple[str, pa.DataType]]) -> pa.Table:
    """Read the named columns of a CSV file, -124 as null, whole numbers also where they are written ``1.0``."""
    sources = [name for name, _ in columns.values()]
    types = {name: pa.float64() if pa.types.is_integer(kind) else kind for name, kind in columns.values()}
    try:
        header = csv.open_csv(path).schema.names
        missing = [name for name in sources if name not in header]
        if missing:
            message = f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(header)}"
            raise DataError(message)
        options = csv.ConvertOptions(column_types=types, include_columns=sources, strings_can_be_null=True)
        table = csv.read_csv(path, convert_options=options)
    except FileNotFoundError as error:
        message = f"no {path.name} in {path.parent}; the import needs {LOG_FILES}, {USER_FILE} and {ITEM_FILE}"
        raise DataError(message) from error
    except (OSError, pa.ArrowInvalid) as error:
        message = f"{path} cannot be read as CSV: {error}"
        raise DataError(message) from error
    if table.num_rows == 0:
        message = f"{path} has a header but no rows; at least one is needed"
        raise DataError(message)
    return pa.table({new: _typed(table[old], kind, f"{path}: {old}") for new, (old, kind) in columns.items()})


def _typed(column: pa.ChunkedArray, kind: pa.DataType, what: str) -> pa.ChunkedArray:
    """Narrow numbers that were read as float64, which holds every whole number below 2**53."""
    if not pa.types.is_integer(kind):
        return column
    known = pc.if_else(pc.equal(column, UNKNOWN), pa.scalar(None, pa.float64()), column)
    try:
        return known.cast(kind)
    except pa.ArrowInvalid as error:
        message = f"{what}: {error}; allowed are whole numbers that fit {kind}"
        raise DataError(message) from error


def _tags(tags: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """Split ``39,4`` into a list of int16; a missing cell is an empty list."""
    split = pc.split_pattern(pc.fill_null(tags, ""), ",").combine_chunks()
    texts = split.flatten()
    filled = pc.not_equal(texts, "")
    try:
        numbers = texts.filter(filled).cast(pa.int16())
    except pa.ArrowInvalid as error:
        message = f"{path}: tag: {error}; allowed are whole numbers separated by commas"
        raise DataError(message) from error
    # An empty cell splits into one empty text, so its offsets shrink by what the filter took away.
    filled_before = np.concatenate(([0], np.cumsum(filled.to_numpy(zero_copy_only=False))))
    offsets = pa.array(filled_before[split.offsets.to_numpy()], pa.int32())
    return pa.chunked_array([pa.ListArray.from_arrays(offsets, numbers)])


def _log(paths: list[Path]) -> pa.Table:
    """All log rows by day and time, with `is_dup` and the day as text."""
    source = _LOG | {_DATE: (_DATE, pa.int32())}
    table = pa.concat_tables([_read(path, source) for path in paths])
    for name in ("event_time", "hour", _DATE):
        if table[name].null_count:
            message = f"{paths[0].parent}: {table[name].null_count} log rows have no {source[name][0]}; all must"
            raise DataError(message)
    hour = pc.divide(table["hour"], pa.scalar(100, pa.int16())).cast(pa.int8())
    table = table.set_column(table.column_names.index("hour"), "hour", hour)
    first = (_DATE, *_ORDER)
    rest = [name for name in table.column_names if name not in first]
    table = table.sort_by([(name, "ascending") for name in (*first, *rest)]).combine_chunks()
    position = table.column_names.index("event_time")
    duplicate = _repeats(table)
    times = table["event_time"].cast(pa.timestamp("ms", tz="UTC"))
    return table.set_column(position, "event_time", times).append_column("is_dup", pa.array(duplicate))


def _repeats(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows of a table sorted by all its columns equal the row before."""
    repeats = np.ones(table.num_rows, dtype=bool)
    for column in table.columns:
        values = pc.fill_null(column, np.iinfo(np.int8).min).to_numpy()
        repeats[1:] &= values[1:] == values[:-1]
    repeats[:1] = False
    return repeats


def _days(log: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Slice the sorted log into its days, such as ``2022-04-25``."""
    days = log[_DATE].to_numpy()
    starts = np.flatnonzero(np.diff(days, prepend=-1))
    rows = log.drop_columns([_DATE])
    for start, end in zip(starts, [*starts[1:], days.size], strict=True):
        text = f"{days[start]:08d}"
        yield f"{text[:4]}-{text[4:6]}-{text[6:]}", rows.slice(start, end - start)
