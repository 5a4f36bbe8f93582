"""The official CSV layout of KuaiRand-Pure: against a prepared set where there is one, and on a tiny one always."""

import csv
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from pipeline.importers import kuairand

PREPARED = Path(os.environ.get("KUAIRAND_DIR", "../shared/data/kuairand_pure"))
DAY = Path("interactions/date=2022-04-25/part-0.parquet")
LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
LATER = "7,1,20220426,30,1650902384975,1,0,0,0,0,0,1,9000,8000,0,0,0,0,1"
EARLY = "3,0,20220425,1800,1650882384975,0,0,0,0,0,0,0,1033,168241,0,0,0,0,14"
EARLY_BUT_LIKED = "3,0,20220425,1800,1650882384975,0,1,0,0,0,0,0,1033,168241,0,0,0,0,14"


def _write_csv(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="0")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two users, two videos and a log in two files."""
    directory = tmp_path / "csv"
    directory.mkdir()
    users = [old for old, _ in kuairand._USERS.values()]
    items = [old for old, _ in kuairand._ITEMS.values()]
    _write_csv(
        directory / kuairand.USER_FILE,
        users,
        [
            {"user_id": "7", "user_active_degree": "full_active", "is_live_streamer": "-124", "onehot_feat4": ""},
            {"user_id": "3", "user_active_degree": "day_new", "is_live_streamer": "1", "onehot_feat4": "5.0"},
        ],
    )
    day = {"upload_dt": "2022-04-10", "video_type": "NORMAL", "music_id": "9155697141"}
    _write_csv(
        directory / kuairand.ITEM_FILE,
        items,
        [
            {"video_id": "0", "tag": "39,4", "video_duration": "87433.0", **day},
            {"video_id": "1", "tag": "", "video_duration": "", **day},
        ],
    )
    (directory / "log_standard_a.csv").write_text(f"{LOG_HEADER}\n{LATER}\n{EARLY}\n{EARLY_BUT_LIKED}\n")
    (directory / "log_standard_b.csv").write_text(f"{LOG_HEADER},new_column\n{EARLY},x\n")
    return directory


def _sorted(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata().sort_by([(name, "ascending") for name in table.column_names])


@pytest.mark.skipif(not (PREPARED / "raw_sample").is_dir(), reason=f"no KuaiRand-Pure in {PREPARED} (KUAIRAND_DIR)")
def test_the_import_of_one_day_equals_the_prepared_set(tmp_path: Path) -> None:
    imported = kuairand.import_kuairand(PREPARED / "raw_sample", tmp_path / "out")
    assert imported.rows == {"interactions": 14_911, "users": 27_285, "items": 7_583}
    for name in ("users.parquet", "items.parquet"):
        found, expected = pq.read_table(tmp_path / "out" / name), pq.read_table(PREPARED / name)
        assert found.equals(expected.replace_schema_metadata())
    # Rows that differ in nothing but the hour bucket have no order in the source.
    expected = _sorted(pq.ParquetFile(PREPARED / DAY).read())
    assert _sorted(pq.ParquetFile(tmp_path / "out" / DAY).read()).equals(expected)
    assert imported.duplicates == expected["is_dup"].to_pylist().count(True) == 247


def test_several_logs_are_merged_sorted_and_split_by_the_logs_own_day(source: Path, tmp_path: Path) -> None:
    imported = kuairand.import_kuairand(source, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "interactions").iterdir()) == [
        "date=2022-04-25",
        "date=2022-04-26",
    ]
    first = pq.ParquetFile(tmp_path / "out" / DAY).read().to_pylist()
    assert [(row["user_id"], row["is_like"], row["is_dup"], row["hour"]) for row in first] == [
        (3, 0, False, 18),
        (3, 0, True, 18),
        (3, 1, False, 18),
    ]
    assert imported.rows["interactions"] == 4
    assert imported.duplicates == 1


def test_days_before_the_first_that_trains_become_each_users_past(source: Path, tmp_path: Path) -> None:
    old = [f"7,{n % 2},20220424,900,{1650700000000 + n},0,{n % 2},0,0,0,0,1,1,1,0,0,0,0,1" for n in range(60)]
    other = "3,1,20220423,900,1650690000000,0,0,0,0,0,0,1,1,1,0,0,0,0,1"
    (source / "log_standard_old.csv").write_text("\n".join([LOG_HEADER, *reversed(old), other]) + "\n")
    imported = kuairand.import_kuairand(source, tmp_path / "out")
    assert imported.rows["before"] == 61
    assert imported.rows["interactions"] == 4
    past = pq.read_table(tmp_path / "out" / "history_events.parquet").to_pylist()
    assert past[0] == {"user_id": 3, "video_id": 1, "pos": 0, "long_view": 1, "is_like": 0}
    assert [row["pos"] for row in past[1:]] == list(range(50))
    assert [row["is_like"] for row in past[1:]] == [n % 2 for n in range(10, 60)]


def test_a_log_that_ends_before_the_first_day_is_refused(source: Path, tmp_path: Path) -> None:
    for name in ("log_standard_a.csv", "log_standard_b.csv"):
        (source / name).write_text(f"{LOG_HEADER}\n{EARLY.replace('20220425', '20220424')}\n")
    with pytest.raises(DataError, match="ends before 20220425"):
        kuairand.import_kuairand(source, tmp_path / "out")


def test_unknown_codes_and_empty_cells_become_null(source: Path, tmp_path: Path) -> None:
    out = kuairand.import_kuairand(source, tmp_path / "out").directory
    users = pq.read_table(out / "users.parquet").to_pylist()
    assert [(row["user_id"], row["is_live_streamer"], row["onehot_feat4"]) for row in users] == [
        (3, 1, 5),
        (7, None, None),
    ]
    items = pq.read_table(out / "items.parquet").to_pylist()
    assert [(row["tags"], row["video_duration_ms"]) for row in items] == [([39, 4], 87433), ([], None)]


def test_a_directory_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no log_standard_\*\.csv in"):
        kuairand.import_kuairand(tmp_path, tmp_path / "out")


def test_a_missing_file_is_named(source: Path, tmp_path: Path) -> None:
    (source / kuairand.USER_FILE).unlink()
    with pytest.raises(DataError, match=r"no user_features_pure\.csv in"):
        kuairand.import_kuairand(source, tmp_path / "out")


def test_missing_columns_are_named_with_those_that_are_there(source: Path, tmp_path: Path) -> None:
    path = source / "log_standard_a.csv"
    path.write_text(path.read_text().replace("is_like", "liked").replace(",tab", ",surface"))
    with pytest.raises(DataError, match=r"log_standard_a\.csv lacks the columns tab, is_like; it has .*liked"):
        kuairand.import_kuairand(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (EARLY.replace(",14", ",soon"), r"log_standard_a\.csv cannot be read as CSV: .*'soon'"),
        (EARLY.replace(",14", ",1400"), r"log_standard_a\.csv: tab: .*1400.*fit int8"),
        (EARLY.replace("1650882384975", ""), r"1 log rows have no time_ms"),
        (EARLY.replace(",14", ""), r"log_standard_a\.csv cannot be read as CSV: .*columns"),
    ],
)
def test_a_bad_value_is_named_and_nothing_is_written(source: Path, tmp_path: Path, line: str, message: str) -> None:
    (source / "log_standard_a.csv").write_text(f"{LOG_HEADER}\n{line}\n")
    with pytest.raises(DataError, match=message):
        kuairand.import_kuairand(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_log_with_a_header_only_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "log_standard_b.csv").write_text(LOG_HEADER + "\n")
    with pytest.raises(DataError, match=r"log_standard_b\.csv has a header but no rows"):
        kuairand.import_kuairand(source, tmp_path / "out")


def test_a_bad_tag_is_refused(source: Path, tmp_path: Path) -> None:
    path = source / kuairand.ITEM_FILE
    path.write_text(path.read_text().replace('"39,4"', '"39,music"'))
    with pytest.raises(DataError, match=r"tag: .*music"):
        kuairand.import_kuairand(source, tmp_path / "out")
