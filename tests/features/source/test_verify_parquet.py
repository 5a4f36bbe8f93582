"""Damaged, drifting and odd Parquet ends in an error that names file, row group and column, or does no harm."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from contract.schema import Schema
from features.batches import BatchReader
from features.build import build
from features.source.verify_parquet import check_files
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw

PLAIN: dict[str, Any] = {"aggregates": [], "features": [{"name": "surface"}, {"name": "odd"}]}


def paged(path: Path) -> pa.Table:
    """Three row groups of three columns, several checksummed pages each."""
    draw = np.random.default_rng(0)
    table = pa.table(
        {
            "whole": draw.integers(0, 2**40, 600),
            "real": draw.random(600),
            "text": [f"value {i % 37} of {i}" for i in range(600)],
        }
    )
    pq.write_table(
        table, path, row_group_size=200, data_page_size=400, write_batch_size=50, write_page_checksum=True,
        use_dictionary=["text"], compression="none",
    )  # fmt: skip
    return table


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


def refusal(path: Path) -> str | None:
    try:
        check_files([str(path)], None, "data.events", pages=True)
    except DataError as error:
        return str(error)
    return None


def test_a_flipped_bit_anywhere_in_any_page_is_an_error_or_harmless(tmp_path: Path) -> None:
    table = paged(tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    metadata = pq.read_metadata(tmp_path / "good.parquet")
    chunks = [(g, metadata.row_group(g).column(c)) for g in range(3) for c in range(3)]
    bad, errors = tmp_path / "bad.parquet", 0
    for group, chunk in chunks:
        begin = chunk.dictionary_page_offset or chunk.data_page_offset
        for place in range(begin + 5, begin + chunk.total_compressed_size, 61):
            bad.write_bytes(flipped(data, place))
            said = refusal(bad)
            if said is None:
                assert pq.read_table(bad).equals(table)
                continue
            errors += 1
            assert "data.events" in said
            assert f"{bad} is damaged in row group {group}, column {chunk.path_in_schema!r}" in said
    assert errors > 250


def test_a_flipped_bit_in_the_footer_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    paged(tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    bad = tmp_path / "bad.parquet"
    for place in (2, len(data) - 2, len(data) - 6):
        bad.write_bytes(flipped(data, place))
        if place > 4:
            with pytest.raises(DataError, match=r"bad\.parquet cannot be read as Parquet"):
                check_files([str(bad)], None, "data.events", pages=True)
    bad.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read as Parquet"):
        check_files([str(bad)], None, "data.events", pages=True)


def test_a_build_refuses_a_damaged_source_and_training_a_damaged_split(tmp_path: Path, built: Path) -> None:
    write_raw(tmp_path, raw_tables())
    pq.write_table(raw_tables()["events"], tmp_path / "events.parquet", write_page_checksum=True, compression="none")
    data = (tmp_path / "events.parquet").read_bytes()
    (tmp_path / "events.parquet").write_bytes(flipped(data, len(data) // 3))
    with pytest.raises(DataError, match=r"events\.parquet is damaged in row group 0, column"):
        build(recipe(tmp_path), tmp_path / "features", quiet)
    data = (built / "train" / "part-00000.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(flipped(data, len(data) // 3))
    with pytest.raises(DataError, match="row group 0 is damaged"):
        list(BatchReader(tmp_path / "train.parquet", Schema.load(built), 64).epoch())


def odd(values: pa.Array) -> dict[str, pa.Table]:
    tables = raw_tables()
    return {**tables, "events": tables["events"].append_column("odd", values)}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pa.array([[[1]]] * 500), "'odd' is array<array"),
        (pa.array([{"a": 1}] * 500), "'odd' is struct"),
        (pa.array([b"\xff\xfe"] * 500), "'odd' is binary"),
        (pa.array(['{"a": 1}'] * 500, pa.json_()), "'odd' is json"),
        (pa.array([1.5] * 500), "'odd' is an id, but its column has fractions"),
    ],
)
def test_types_that_no_feature_takes_are_refused_by_column(tmp_path: Path, values: pa.Array, words: str) -> None:
    write_raw(tmp_path, odd(values))
    with pytest.raises(DataError, match=words):
        build(recipe(tmp_path, **PLAIN), tmp_path / "features", quiet)


def test_text_that_is_not_unicode_is_an_error(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 500, pa.array([b"\xff\xfe"] * 500, pa.binary()).buffers())
    write_raw(tmp_path, odd(broken))
    with pytest.raises(DataError, match=r"string encoding|[uU]nicode|UTF"):
        build(recipe(tmp_path, **PLAIN), tmp_path / "features", quiet)


def test_odd_columns_that_nothing_uses_and_empty_row_groups_do_no_harm(tmp_path: Path) -> None:
    tables = odd(pa.array([[[1]]] * 500))
    events = tables["events"]
    for number in range(1000):
        events = events.append_column(f"column {number}", pa.array([number] * 500, pa.int16()))
    write_raw(tmp_path, tables)
    with pq.ParquetWriter(tmp_path / "events.parquet", events.schema) as writer:
        for begin in (0, 250):
            writer.write_table(events.slice(0, 0))
            writer.write_table(events.slice(begin, 250))
    made = build(recipe(tmp_path, aggregates=[], features=[{"name": "surface"}]), tmp_path / "features", quiet)
    assert sum(made.rows.values()) == 500
