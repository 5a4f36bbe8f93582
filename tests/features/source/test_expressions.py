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
        pa.table(
            {
                "at": at, "x": [3], "tags": [[7, 8]], "none": pa.array([None], pa.int64()),
                "small": pa.array([200], pa.uint8()), "big": pa.array([2**63 + 5], pa.uint64()), "yes": [True],
                "text": [" Drama| war|"], "ms": [1767225600123], "seconds": [1767225600.5],
                "clock": pa.array([datetime(2026, 7, 1, 10)], pa.timestamp("us")),  # noqa: DTZ001 - it has no zone
                "iso": ["2026-07-01T10:00:00"], "nan": [float("nan")], "a name (EUR)": [2.5],
                "born": pa.array([datetime(1950, 1, 1, 5, 30, tzinfo=UTC)], pa.timestamp("ms", "UTC")),
                "east": ["2026-07-01T10:00:00+05:30"], "utc": ["2026-07-01 10:00:00Z"], "date": ["2026-07-01"],
                "id": [1234567890123456789],
                "attrs": [{"brand": {"name": "b1"}, "cents": 199}], "pairs": [[{"k": "season", "v": "aw"}]],
            }
        ),
        tmp_path / "t.parquet",
    )  # fmt: skip
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
        ("small - 201", -1),
        ("small * small * small", 8_000_000),
        ("-small", -200),
        ("log1p(small + 55)", pytest.approx(5.5452, abs=1e-4)),
        ("big - 10", 2**63 - 5),
        ("big * 2", 2.0**64),
        ("yes + yes", 2),
        ("7 // 2 + x % 2", 4),
        ("not x", False),
        ("x and yes", True),
        ("coalesce(none, nan, x)", 3.0),
        ("is_null(none) and is_null(nan) and not is_null(x)", True),
        ("none == null", True),
        ("if(x > 2, 'many', 'few')", "many"),
        ("1 + if(x, 1, 0)", 2),
        ("'many' if x > 2 else 'few'", "many"),
        ("case(x > 5, 'a', x > 1, 'b', 'c')", "b"),
        ("'if (' + text(x)", "if (3"),
        ("split(text, '|')", ["Drama", "war"]),
        ("lower(trim(text))", "drama| war|"),
        ("length(text) + length(tags)", 14),
        ("contains(text, 'war') and contains(tags, 8) and starts_with(trim(text), 'Dr')", True),
        ("matches(text, 'D.ama')", True),
        ("replace(text, '|', '/')", " Drama/ war/"),
        ("substring(text, 1, 5)", "Drama"),
        ("attrs.brand.name", "b1"),
        ("attrs.cents / 100", 1.99),
        ("first(pairs.v)", "aw"),
        ("`a name (EUR)` * 2", 5.0),
        ("int(seconds) - int(-`a name (EUR)`) + int(text(x))", 1767225605),
        ("least(x, 2) + greatest(x, 9)", 11),
        ("from_epoch(ms, 'ms')", datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)),
        ("from_epoch(seconds)", datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)),
        ("epoch(from_epoch(ms, 'ms'), 'ms') - ms", 0),
        ("epoch(at, 's')", 1651330920),
        ("from_local(clock, 'Europe/Berlin')", datetime(2026, 7, 1, 8, tzinfo=UTC)),
        ("from_local(iso, 'America/New_York')", datetime(2026, 7, 1, 14, tzinfo=UTC)),
        ("from_local(clock)", datetime(2026, 7, 1, 10, tzinfo=UTC)),
        # A text that names its own zone is that moment, whatever zone is said for the others.
        ("from_local(east)", datetime(2026, 7, 1, 4, 30, tzinfo=UTC)),
        ("from_local(east, 'Europe/Berlin')", datetime(2026, 7, 1, 4, 30, tzinfo=UTC)),
        ("from_local(utc, 'Europe/Berlin')", datetime(2026, 7, 1, 10, tzinfo=UTC)),
        ("from_local(date, 'Europe/Berlin')", datetime(2026, 6, 30, 22, tzinfo=UTC)),
        # Before 1970 numbers are negative, and days and hours are not.
        ("hour(born)", 5),
        ("weekday(born)", 6),
        ("weekend(born)", 1),
        # NaN is missing, not more than every number.
        ("nan > 100", None),
        ("nan != 5", None),
        ("if(nan >= 4, 1, 0)", 0),
        ("bucket(nan, 1, 2)", None),
        ("clip(nan, 0, 10)", None),
        ("greatest(nan, 1)", 1.0),
        ("nan in [5]", None),
        ("int(nan)", None),
        ("floor(nan)", None),
        ("ceil(nan)", None),
        ("round(nan)", None),
        # Division of whole numbers is exact, and its remainder has the divisor's sign, as in Python.
        ("(x - 10) % 3", 2),
        ("(x - 10) // 3", -3),
        ("x % -2", -1),
        ("5.5 % (x - 1)", 1.5),
        ("id // 10", 123456789012345678),
        ("id % 10", 9),
        ("big % 10", 3),
        ("x // 2.0", 1),
        ("nan // 1", None),
        ("from_epoch(nan)", None),
        ("text(nan)", None),
        # Python would answer for a number beyond int64, and say that nothing equals it.
        ("big == 9223372036854775813", True),
        ("big != 9223372036854775813", False),
        ("big in [1, 9223372036854775813]", True),
        ("x < 99999999999999999999", True),
        # A text is a text, also where a column has that name.
        ("'x'", "x"),
    ],
)
def test_expressions_compute(value_of: Any, text: str, expected: Any) -> None:
    assert value_of(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os')", "unknown function"),
        ("x.__class__", "no field '__class__'; it is int64, no struct"),
        ("attrs.brnd", "no field 'brnd'; it has brand, cents"),
        ("at - at", "use seconds_between"),
        ("from_epoc(ms)", "did you mean 'from_epoch'"),
        ("case(x > 1, 2)", "takes conditions, each with its value"),
        ("from_epoch(ms, 'days')", "is not a unit of time"),
        ("a name > 1", "between backticks"),
        ("[x for x in y]", "ListComp is not allowed"),
        ("y > 1", "no column 'y'"),
        ("tagz == 1", "did you mean 'tags'"),
        ("x >", "not an expression"),
        ("hour(at, 'Mars/Base')", "not a time zone"),
        ("clip(x)", "does not take these"),
        ("x ** 2", "Pow is not allowed"),
        ("not seconds", "write a comparison such as seconds == 1"),
        ("text and x > 1", "write a comparison such as text == 1"),
        ("text - 1", "do not go together"),
        ("x in [1, 'a']", "do not go together"),
        ("x // 0", "by zero"),
        ("contains(text, x)", "does not take these"),
        ("0 / 0", "by zero"),
    ],
)
def test_anything_else_is_refused_with_its_place(value_of: Any, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        value_of(text)
    assert "here" in str(caught.value) or "time" in str(caught.value)


def test_the_columns_of_an_expression_are_known_without_a_table() -> None:
    assert column_names("a + f(b) > 1") >= {"a", "b"}
    assert column_names("a >") == set()
    assert column_names("if(`odd name`, attrs.brand.name, 'b')") >= {"odd name", "attrs", "attrs.brand.name"}
