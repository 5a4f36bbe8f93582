"""The small checked grammar of labels, masks, weights, splits and derived columns, compiled to ibis.

Allowed are columns, numbers, strings, ``true``/``false``, + - * /, comparisons, ``and`` ``or`` ``not``, ``in [..]``
and the functions of `FUNCTIONS`. Text is parsed to a syntax tree and translated node by node; nothing
is ever evaluated as Python.
"""

import ast
import difflib
import functools
import operator
from collections.abc import Callable
from typing import Any

import ibis
import ibis.expr.types as ir

from contract.errors import ConfigError
from features.source.zones import local_ms

NANOSECONDS = 9
"""The scale of times that DuckDB would round to microseconds."""
_epoch_us: Callable[[Any], Any] = ibis.udf.scalar.builtin(
    lambda time: time, name="epoch_us", signature=((None,), "int64")
)
"""DuckDB's own, which takes a fifth of the time of its conversions of times with a zone."""


def _log1p(value: Any) -> Any:
    return (value + 1).ln()


def _clip(value: Any, low: Any, high: Any) -> Any:
    return value.clip(lower=low, upper=high)


def _bucket(value: Any, *edges: Any) -> Any:
    """The number of edges at or below the value; null stays null."""
    return functools.reduce(operator.add, [(value >= edge).cast("int64") for edge in edges])


def _first(value: Any) -> Any:
    return ibis.ifelse(value.length() > 0, value[0], ibis.null())


def _hour(value: Any, zone: str = "UTC") -> Any:
    return local_seconds(value, zone) // 3600 % 24


def _weekday(value: Any, zone: str = "UTC") -> Any:
    """Monday is 0; 1 January 1970 was a Thursday."""
    return (local_seconds(value, zone) // 86_400 + 3) % 7


def _weekend(value: Any, zone: str = "UTC") -> Any:
    return (_weekday(value, zone) >= 5).cast("int64")  # noqa: PLR2004 - Saturday and Sunday


def _month(value: Any, zone: str = "UTC") -> Any:
    return _civil(value, zone)[1]


def _day(value: Any, zone: str = "UTC") -> Any:
    return _civil(value, zone)[2]


def _civil(value: Any, zone: str) -> tuple[Any, Any, Any]:
    """Year, month and day of the month (Howard Hinnant, "chrono-compatible low-level date algorithms")."""
    days = local_seconds(value, zone) // 86_400 + 719_468
    era = days // 146_097
    of_era = days % 146_097
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    month = (shifted + 2) % 12 + 1
    return year + era * 400 + (month <= 2).cast("int64"), month, of_year - (153 * shifted + 2) // 5 + 1  # noqa: PLR2004


def _seconds_between(later: Any, earlier: Any) -> Any:
    """Seconds from one time to another."""
    return (epoch_ms(later) - epoch_ms(earlier)) / 1000


def epoch_ms(value: Any) -> Any:
    """Milliseconds since 1970 in UTC as an integer, the only form of time that all engines treat alike."""
    if value.get_backend().name == "duckdb" and value.type().scale != NANOSECONDS:
        return (_epoch_us(value) // 1000).cast("int64")
    if value.type().timezone is not None:
        return epoch_ms(value.cast("timestamp"))
    # DuckDB's epoch is a float that keeps the fraction of a second, whatever ibis says of its type.
    seconds = value.truncate("s").epoch_seconds().cast("float64").cast("int64")
    return seconds * 1000 + value.millisecond()


def local_seconds(value: Any, zone: str) -> Any:
    """Seconds since 1970 on the clocks of a time zone, summer time included."""
    return local_ms(epoch_ms(value), zone) // 1000


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log1p": _log1p,
    "clip": _clip,
    "bucket": _bucket,
    "first": _first,
    "hour": _hour,
    "weekday": _weekday,
    "weekend": _weekend,
    "month": _month,
    "day": _day,
    "seconds_between": _seconds_between,
}

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def compile_expression(text: str, table: ir.Table, where: str) -> Any:
    """Translate `text` to an ibis value over `table`; `where` names its place in the config for messages.

    Raises:
        ConfigError: a syntax error, an unknown column or function, or a construct outside the grammar.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        message = f"{where}: {text!r} is not an expression ({error.msg} at column {error.offset})"
        raise ConfigError(message) from error
    return _Compiler(table, f"{where}: {text!r}").visit(tree.body)


def column_names(text: str) -> set[str]:
    """The names that an expression mentions; a text that does not parse mentions none (compiling it reports why)."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


class _Compiler(ast.NodeVisitor):
    """One method a node of the grammar; anything else is refused."""

    def __init__(self, table: ir.Table, place: str) -> None:
        self._table = table
        self._place = place

    def _refuse(self, what: str) -> ConfigError:
        return ConfigError(f"{self._place}: {what}")

    def generic_visit(self, node: ast.AST) -> Any:
        what = (
            f"{type(node).__name__} is not allowed; use columns, numbers, strings, + - * /, comparisons, "
            f"and/or/not, in [..] and {', '.join(FUNCTIONS)}"
        )
        raise self._refuse(what)

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in {"true", "false"}:
            return ibis.literal(node.id == "true")
        if node.id not in self._table.columns:
            close = difflib.get_close_matches(node.id, self._table.columns, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(self._table.columns)}"
            what = f"no column {node.id!r}{hint}"
            raise self._refuse(what)
        return self._table[node.id]

    def visit_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, int | float | str | bool):
            return node.value
        what = f"the constant {node.value!r} is not allowed"
        raise self._refuse(what)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        if type(node.op) not in _BINARY:
            return self.generic_visit(node.op)
        return _BINARY[type(node.op)](self.visit(node.left), self.visit(node.right))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.visit(node.operand)
        if isinstance(node.op, ast.USub):
            return -value
        return ~self._condition(value, node.operand) if isinstance(node.op, ast.Not) else self.generic_visit(node.op)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        return functools.reduce(join, [self._condition(self.visit(value), value) for value in node.values])

    def _condition(self, value: Any, node: ast.expr) -> Any:
        """Refuse numbers as conditions, which an engine would negate and combine bit by bit."""
        if isinstance(value, ibis.Expr) and value.type().is_boolean():
            return value
        text = ast.unparse(node)
        what = f"and, or and not take conditions, but {text} is none; write a comparison such as {text} == 1"
        raise self._refuse(what)

    def visit_Compare(self, node: ast.Compare) -> Any:
        sides = [node.left, *node.comparators]
        links = [self._link(op, left, right) for op, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True)]
        return functools.reduce(operator.and_, links)

    def _link(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> Any:
        if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple):
            inside = self.visit(left).isin([self.visit(element) for element in right.elts])
            return inside if isinstance(op, ast.In) else ~inside
        if type(op) not in _COMPARE:
            return self.generic_visit(op)
        return _COMPARE[type(op)](self.visit(left), self.visit(right))

    def visit_Call(self, node: ast.Call) -> Any:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
            what = f"unknown function {ast.unparse(node.func)!r}; there are {', '.join(FUNCTIONS)}"
            raise self._refuse(what)
        try:
            return FUNCTIONS[node.func.id](*[self.visit(argument) for argument in node.args])
        except (TypeError, AttributeError) as error:
            what = f"{node.func.id} does not take these arguments"
            raise self._refuse(what) from error
