"""The grammar computes what it says and refuses everything else."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import ConfigError
from features.source.expressions import column_names, compile_expression
from features.source.query_engine import connect


@pytest.fixture
def value_of(tmp_path: Path) -> Any:
    at = pa.array([datetime(2022, 4, 30, 15, 2, tzinfo=UTC)], pa.timestamp("ms", "UTC"))
    pq.write_table(
        pa.table({"at": at, "x": [3], "tags": [[7, 8]], "none": pa.array([None], pa.int64())}), tmp_path / "t.parquet"
    )
    connection = connect("1GB", tmp_path)
    table = connection.read_parquet(str(tmp_path / "t.parquet"))

    def compute(text: str) -> Any:
        expression = table.select(value=compile_expression(text, table, "here"))
        return connection.to_pyarrow(expression)["value"][0].as_py()

    return compute


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 < x <= 3 and not x in [5, 6]", True),
        ("x >= 4 or x == 3", True),
        ("-x + 2 * 4 - 1", 4),
        ("x / 2", 1.5),
        ("clip(x, 0, 2)", 2),
        ("log1p(x - 3)", 0.0),
        ("bucket(x, 1, 2, 5)", 2),
        ("first(tags)", 7),
        ("hour(at)", 15),
        ("hour(at, 'Asia/Shanghai')", 23),
        ("weekday(at, 'Asia/Shanghai')", 5),
        ("none > 1", None),
        ("hour(at, 'Europe/Berlin')", 17),
        ("day(at, 'Asia/Tokyo')", 1),
        ("month(at, 'Asia/Tokyo')", 5),
        ("weekend(at)", 1),
        ("seconds_between(at, at)", 0.0),
    ],
)
def test_expressions_compute(value_of: Any, text: str, expected: Any) -> None:
    assert value_of(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os')", "unknown function"),
        ("x.__class__", "Attribute is not allowed"),
        ("[x for x in y]", "ListComp is not allowed"),
        ("y > 1", "no column 'y'"),
        ("tagz == 1", "did you mean 'tags'"),
        ("x >", "not an expression"),
        ("hour(at, 'Mars/Base')", "not a time zone"),
        ("clip(x)", "does not take these"),
        ("x ** 2", "Pow is not allowed"),
        ("not x", "write a comparison such as x == 1"),
        ("x and x > 1", "write a comparison such as x == 1"),
    ],
)
def test_anything_else_is_refused_with_its_place(value_of: Any, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        value_of(text)
    assert "here" in str(caught.value) or "time zone" in str(caught.value)


def test_the_columns_of_an_expression_are_known_without_a_table() -> None:
    assert column_names("a + f(b) > 1") >= {"a", "b"}
    assert column_names("a >") == set()
