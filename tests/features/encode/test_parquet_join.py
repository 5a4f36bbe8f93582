"""Joined files hold the row groups of all, in any order, page by page as they were."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from features.encode.parquet_join import join

GROUP = 100


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Files of whole row groups with numbers, lists, texts, truth values and nulls; the first column tells the row."""
    files = []
    for number, rows in enumerate((3 * GROUP, GROUP, 20 * GROUP)):
        row = np.arange(rows) + number * 10_000
        columns = {
            "row": row,
            "text": [None if r % 5 == 0 else f"text {r % 9}" for r in row],
            "list": pa.array([list(range(r % 4)) for r in row.tolist()], pa.list_(pa.int32())),
            "yes": row % 2 == 0,
            "share": (row / 7).astype(np.float32),
        }
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(pa.table(columns), files[-1], row_group_size=GROUP, write_page_checksum=True)
    return files


def test_row_groups_of_all_files_lie_in_the_order_asked_for(parts: list[Path], tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(24)
    join(parts, tmp_path / "all.parquet", lambda count: order[:count])
    groups = [pq.ParquetFile(p).read_row_group(g) for p in parts for g in range(pq.read_metadata(p).num_row_groups)]
    expected = pa.concat_tables([groups[number] for number in order])
    assert pq.read_table(tmp_path / "all.parquet", page_checksum_verification=True).equals(expected)
    assert pq.read_metadata(tmp_path / "all.parquet").num_rows == 24 * GROUP
    found = duckdb.read_parquet(str(tmp_path / "all.parquet")).filter("row = 20_017")
    assert found.to_arrow_table().to_pylist() == expected.filter(pa.compute.equal(expected["row"], 20_017)).to_pylist()


def test_a_damaged_page_is_found_in_the_joined_file(parts: list[Path], tmp_path: Path) -> None:
    data = bytearray(parts[0].read_bytes())
    data[len(data) // 4] ^= 1
    parts[0].write_bytes(data)
    join(parts, tmp_path / "all.parquet", range)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(tmp_path / "all.parquet", page_checksum_verification=True)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no Parquet at all", b"\xff\xff\xff\x7fPAR1"])
def test_what_is_no_parquet_is_refused_and_leaves_nothing(parts: list[Path], tmp_path: Path, data: bytes) -> None:
    parts[1].write_bytes(data)
    with pytest.raises(DataError, match=r"1\.parquet is no Parquet file"):
        join(parts, tmp_path / "all.parquet", range)
    assert {path.name for path in tmp_path.iterdir()} == {"0.parquet", "1.parquet", "2.parquet"}
