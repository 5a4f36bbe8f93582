"""Properties of the expression grammar: any expression of it computes what Python does, and all else is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import ConfigError
from features.source.expressions import column_names, compile_expression
from features.source.query_engine import connect
from features.source.zones import day_begin_ms, day_number

SMALL = st.integers(-9, 9)
ARITHMETIC = st.recursive(
    SMALL.map(str) | st.sampled_from(["x", "y"]),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner)
        | inner.map("(-{})".format)
        | st.builds("({} {} {})".format, inner, st.sampled_from(["%", "//"]), SMALL.filter(bool))
    ),
    max_leaves=6,
)
COMPARISON = st.builds("{} {} {}".format, ARITHMETIC, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), ARITHMETIC)
CONDITION = st.recursive(
    # A comparison of constants alone is not a column, which the grammar refuses as a condition.
    COMPARISON.filter(lambda text: "x" in text or "y" in text).map("({})".format),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner) | inner.map("(not {})".format)
    ),
    max_leaves=4,
)
TABLE = ibis.table({"x": "int64", "y": "int64"}, name="t")


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("engine")
    opened = connect("1GB", folder)
    yield opened
    opened.disconnect()


def computed(connection: Any, text: str, x: int | None, y: int) -> Any:
    table = ibis.memtable(pa.table({"x": pa.array([x], pa.int64()), "y": pa.array([y], pa.int64())}))
    value = compile_expression(text, table, "here")
    if not isinstance(value, ibis.expr.types.Value):
        return value  # an expression of constants alone
    return connection.to_pyarrow(table.select(value=value))["value"][0].as_py()


@settings(max_examples=40, deadline=None)
@given(text=ARITHMETIC, x=SMALL, y=SMALL)
def test_arithmetic_is_pythons(connection: Any, text: str, x: int, y: int) -> None:
    assert computed(connection, text, x, y) == python(text, x, y)


@settings(max_examples=40, deadline=None)
@given(text=CONDITION, x=SMALL, y=SMALL)
def test_conditions_are_pythons(connection: Any, text: str, x: int, y: int) -> None:
    assert computed(connection, text, x, y) is python(text, x, y)


@settings(max_examples=25, deadline=None)
@given(text=ARITHMETIC, y=SMALL)
def test_what_is_computed_from_null_is_null(connection: Any, text: str, y: int) -> None:
    if "x" in text:
        assert computed(connection, text, None, y) is None


@given(CONDITION)
def test_the_columns_of_an_expression_are_those_that_it_mentions(text: str) -> None:
    assert column_names(text) == {name for name in ("x", "y") if name in text}


@given(st.sampled_from(["x.y", "x[0]", "lambda: x", "[x for x in y]", "x ** 2", "f'{x}'", "x := 1"]))
def test_what_is_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        compile_expression(text, TABLE, "here")


@pytest.mark.parametrize("text", ["a\x00", "\ud800"])
def test_text_that_is_no_source_code_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"here: .* is not an expression"):
        compile_expression(text, TABLE, "here")


@given(st.text(max_size=20))
def test_any_text_compiles_or_is_refused_with_its_place(text: str) -> None:
    try:
        compile_expression(text, TABLE, "here")
    except ConfigError as error:
        assert "here" in str(error)  # noqa: PT017 - either outcome is right, another error is not
    except ibis.common.exceptions.IbisError:
        pytest.skip("a type that the engine refuses")


@given(
    st.integers(-(2**40), 2**42), st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
)
def test_a_moment_lies_in_its_own_day(ms: int, zone: str) -> None:
    day = day_number(ms, zone)
    assert day_begin_ms(day, zone) <= ms < day_begin_ms(day + 1, zone)


def python(text: str, x: int, y: int) -> Any:
    return eval(text, {"x": x, "y": y})  # noqa: S307 - the text was generated above
