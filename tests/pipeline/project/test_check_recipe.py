"""`moerank check`: the tables, rows as the model would see them, and what each feature costs; without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli.main import main
from tests.pipeline.tiny_project import ITEMS, USERS, write_project


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    assert main(["check", "tiny.yaml", "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def by_name(rows: object) -> dict[str, dict[str, object]]:
    assert isinstance(rows, list)
    return {row["name"]: row for row in rows}


def test_a_sample_shows_raw_values_and_what_the_model_takes(checked: dict[str, object]) -> None:
    rows = by_name(checked["rows"])
    assert set(rows) == {
        "user", "item", "year", "item__rating_mean", "item__count", "label__like", "weight__like", "label__rating",
        "weight__rating",
    }  # fmt: skip
    users = rows["user"]
    assert all(1 <= raw <= USERS for raw in users["raw"])  # type: ignore[attr-defined]
    assert all(isinstance(one, int) and 1 <= one <= USERS for one in users["encoded"])  # type: ignore[attr-defined]
    years = rows["year"]
    assert all(1950 <= raw < 2026 for raw in years["raw"])  # type: ignore[attr-defined]
    assert all(0 <= one <= 24 for one in years["encoded"])  # type: ignore[attr-defined]


def test_each_feature_is_told_with_its_bytes_columns_and_joins(checked: dict[str, object]) -> None:
    costs = by_name(checked["features"])
    # Four numbers of four bytes per row; row 0 is for what is not known.
    assert costs["item"]["embedding_bytes"] == (ITEMS + 1) * 4 * 4
    assert costs["item"]["online_bytes"] == ITEMS * 4
    assert costs["year"]["join"] == "1 join with items"
    assert costs["user"]["join"] == "no join"
    assert costs["item__rating_mean"]["join"] == "1 join with sums"
    assert len(costs["item__rating_mean"]["columns"]) == 2  # type: ignore[arg-type]


def test_a_line_says_what_all_features_take_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    assert main(["check", "tiny.yaml", "--set", "model.embedding_dim=16"]) == 0
    assert "together: 5 features, embeddings 4." in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["check", "tiny.yaml"], ["init", "raw/events.parquet", "--items", "raw/items.parquet"]]
)
def test_raw_tables_are_looked_at_with_few_imports(tmp_path: Path, words: list[str]) -> None:
    write_project(tmp_path)
    code = f"import sys; from pipeline.cli.main import main; done = main({words!r})"
    code += "; print(); print({'torch', 'pandas', 'sqlglot.dialects.clickhouse'} & {*sys.modules}, done)"
    code += "; from ibis.backends.sql.compilers import PostgresCompiler"
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": root}
    )
    assert done.stdout.splitlines()[-1] == "set() 0"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("export.cuda=int3", "export.cuda: Input should be 'auto', 'none', 'fp32', 'fp16', 'int8' or 'int4'"),
        ("train.epoch=3", "train.epoch"),
        ("retention.runs=many", "retention.runs"),
    ],
)
def test_blocks_other_than_data_are_looked_at_too(
    setting: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    assert main(["check", "tiny.yaml", "--set", setting]) == 2
    assert said in capsys.readouterr().err


def test_a_label_that_cannot_be_computed_names_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    yaml = write_project(tmp_path)
    text = yaml.read_text(encoding="utf-8").replace("label: rating,", "label: int(text(rating) + 'x'),")
    yaml.write_text(text, encoding="utf-8")
    assert main(["check", "tiny.yaml"]) == 1
    said = capsys.readouterr().err
    assert "data.tasks[1] (rating).label: \"int(text(rating) + 'x')\" cannot be computed: Conversion Error" in said


@pytest.mark.parametrize("kind", [pa.uint64(), pa.decimal128(20, 0)], ids=["unsigned", "as Spark writes them"])
def test_unsigned_ids_are_shown_as_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: pa.DataType
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    for name in ("events", "items"):
        path = tmp_path / "raw" / f"{name}.parquet"
        table = pq.read_table(path)
        ids = pa.array([2**64 - item for item in table["item"].to_pylist()], kind)
        pq.write_table(table.set_column(table.column_names.index("item"), "item", ids), path)
    history = "data.histories=[{name: last, by: user, of: item, last: 3}]"
    assert main(["check", "tiny.yaml", "--json", "--set", history]) == 0
    rows = by_name(json.loads(capsys.readouterr().out)["rows"])
    shown = [*rows["item"]["raw"], *(one for many in rows["last"]["raw"] for one in many)]  # type: ignore[attr-defined,misc]
    assert all(2**64 - ITEMS <= one < 2**64 for one in shown)
    assert all(1 <= one <= ITEMS for one in rows["item"]["encoded"])  # type: ignore[attr-defined]


def test_a_misspelled_task_of_an_aggregate_is_found_among_tasks_and_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    assert main(["check", "tiny.yaml", "--set", "data.aggregates=[{by: [item], of: [likee]}]"]) == 2
    assert "data.aggregates[0].of: no column or task 'likee'; did you mean 'like'?" in capsys.readouterr().err
