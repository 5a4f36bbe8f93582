"""The small checked grammar of labels, masks, weights, splits and derived columns, compiled to ibis.

Allowed are columns (odd names between backticks, fields of structs after a dot), numbers, strings, ``true``/``false``/
``null``, + - * / // %, comparisons, ``and`` ``or`` ``not``, ``in [..]``, ``if(condition, value, other)``,
``case(condition, value, ..., other)`` and the functions of `FUNCTIONS`. Text is parsed to a syntax tree and translated
node by node; nothing is ever evaluated as Python.
"""

import ast
import difflib
import functools
import operator
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import ibis
import ibis.expr.types as ir
from ibis.common.annotations import ValidationError

from contract.errors import ConfigError
from features.source.functions import FUNCTIONS, floor_divide, modulo, nan_as_null, widened

_CONDITIONAL = ("if", "case")
_TOKENS = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|`(?P<name>[^`]+)`|(?P<before>^|[(,\[=<>+*/%-]|\b(?:and|or|not|in)\b)(?P<space>\s*)if\s*\("""
)
_QUOTED, _IF = "__quoted_", "__if"
_UNFIT = (TypeError, AttributeError, ZeroDivisionError, ValidationError, ibis.common.exceptions.IbisError)
"""What ibis and Python raise of operands that do not go together."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: floor_divide,
    ast.Mod: modulo,
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
    tree, quoted = _parse(text, where)
    value = _Compiler(table, f"{where}: {text!r}", quoted).compiled(tree)
    # A table would take a bare text for the name of a column.
    return ibis.literal(value) if isinstance(value, str) else value


def compile_condition(text: str, table: ir.Table, where: str) -> ir.BooleanValue:
    """As `compile_expression`, to a condition that is never null; whole numbers hold where they are not 0.

    Raises:
        ConfigError: also a value that is not a condition.
    """
    tree, quoted = _parse(text, where)
    compiler = _Compiler(table, f"{where}: {text!r}", quoted)
    condition = compiler.condition(compiler.compiled(tree), text.strip())
    return condition.fill_null(False)  # noqa: FBT003


def column_names(text: str) -> set[str]:
    """The names that an expression mentions; a text that does not parse mentions none (compiling it reports why)."""
    try:
        tree, quoted = _parse(text, "")
    except ConfigError:
        return set()
    names = {quoted.get(node.id, node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _parse(text: str, where: str) -> tuple[ast.expr, dict[str, str]]:
    """The syntax tree, and by their stand-ins the names that were quoted."""
    quoted: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        if match["text"] is not None:
            return match[0]
        if match["name"] is None:
            return f"{match['before']}{match['space']}{_IF}("
        stand_in = f"{_QUOTED}{len(quoted)}"
        quoted[stand_in] = match["name"]
        return stand_in

    try:
        return ast.parse(_TOKENS.sub(plain, text.strip()), mode="eval").body, quoted
    except (SyntaxError, ValueError) as error:
        # A ValueError is of half a surrogate pair and, before Python 3.11.4, of a NUL.
        why = f"{error.msg} at column {error.offset}" if isinstance(error, SyntaxError) else str(error)
        hint = "; a column's name with other signs stands between backticks, `like this`"
        message = f"{where}: {text!r} is not an expression ({why}){hint}"
        raise ConfigError(message) from error


class _Compiler(ast.NodeVisitor):
    """One method per node of the grammar; anything else is refused."""

    def __init__(self, table: ir.Table, place: str, quoted: dict[str, str]) -> None:
        self._table, self._place, self._quoted = table, place, quoted

    def compiled(self, tree: ast.expr) -> Any:
        """The whole tree.

        Raises:
            ConfigError: also values that do not go together, such as a text and a number.
        """
        try:
            return self.visit(tree)
        except _UNFIT as error:
            what = f"these values do not go together ({str(error).splitlines()[0][:200]})"
            raise self._refuse(what) from error

    def _refuse(self, what: str) -> ConfigError:
        return ConfigError(f"{self._place}: {what}")

    def generic_visit(self, node: ast.AST) -> Any:
        what = (
            f"{type(node).__name__} is not allowed; use columns, numbers, strings, + - * / // %, comparisons, "
            f"and/or/not, in [..], {', '.join((*_CONDITIONAL, *FUNCTIONS))}"
        )
        raise self._refuse(what)

    def visit_Name(self, node: ast.Name) -> Any:
        name = self._quoted.get(node.id, node.id)
        if name not in self._table.columns and name in {"true", "false", "null"}:
            return ibis.null() if name == "null" else ibis.literal(name == "true")
        if name not in self._table.columns:
            close = difflib.get_close_matches(name, self._table.columns, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(self._table.columns)}"
            what = f"no column {name!r}{hint}"
            raise self._refuse(what)
        return self._table[name]

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        whole = ast.unparse(node)
        if whole in self._table.columns:
            return self._table[whole]
        value, field = self.visit(node.value), self._quoted.get(node.attr, node.attr)
        dtype = value.type()
        fields = dtype.value_type if dtype.is_array() else dtype
        if not fields.is_struct() or field not in fields.names:
            there = f"it has {', '.join(fields.names)}" if fields.is_struct() else f"it is {dtype}, no struct"
            what = f"{ast.unparse(node.value)} has no field {field!r}; {there}"
            raise self._refuse(what)
        return value.map(lambda one: one[field]) if dtype.is_array() else value[field]

    def visit_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, int | float | str | bool):
            return node.value
        what = f"the constant {node.value!r} is not allowed"
        raise self._refuse(what)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        if type(node.op) not in _BINARY:
            return self.generic_visit(node.op)
        left, right = self._operand(node.left), self._operand(node.right)
        if isinstance(node.op, ast.Mult | ast.FloorDiv):
            # A product of decimals has twice the digits, which no decimal has.
            left, right = (v.cast("float64") if isinstance(v, ir.DecimalValue) else v for v in (left, right))
        return _BINARY[type(node.op)](left, right)

    def _operand(self, node: ast.expr) -> Any:
        value = widened(self.visit(node))
        if isinstance(value, ir.TimestampValue | ir.DateValue):
            what = f"{ast.unparse(node)} is a moment, and arithmetic takes numbers; use seconds_between(later, earlier)"
            raise self._refuse(what)
        return value

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.visit(node.operand)
        if isinstance(node.op, ast.USub):
            return -widened(value)
        return (
            ~self.condition(value, ast.unparse(node.operand))
            if isinstance(node.op, ast.Not)
            else self.generic_visit(node.op)
        )

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        return functools.reduce(join, [self.condition(self.visit(value), ast.unparse(value)) for value in node.values])

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        return ibis.ifelse(self.condition(self.visit(node.test), ast.unparse(node.test)), *self._both(node))

    def _both(self, node: ast.IfExp) -> tuple[Any, Any]:
        return self.visit(node.body), self.visit(node.orelse)

    def condition(self, value: Any, text: str) -> Any:
        """A condition; a whole number is one, and holds where it is not 0 (an engine would negate it bit by bit).

        Raises:
            ConfigError: a text, a fraction or a moment.
        """
        if isinstance(value, bool):
            return ibis.literal(value)
        if isinstance(value, ibis.Expr) and value.type().is_boolean():
            return value
        if isinstance(value, ibis.Expr) and value.type().is_integer():
            return value != 0
        what = f"{text} is not a condition; write a comparison such as {text} == 1"
        raise self._refuse(what)

    def visit_Compare(self, node: ast.Compare) -> Any:
        sides = [node.left, *node.comparators]
        links = [self._link(op, left, right) for op, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True)]
        return functools.reduce(operator.and_, links)

    def _link(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> Any:
        if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple):
            value, elements = self._side(left), [self._side(element) for element in right.elts]
            for element in elements:
                self._compared(operator.eq, value, element)
            inside = value.isin(elements)
            return inside if isinstance(op, ast.In) else ~inside
        if type(op) not in _COMPARE:
            return self.generic_visit(op)
        return self._compared(_COMPARE[type(op)], self._side(left), self._side(right))

    def _side(self, node: ast.expr) -> Any:
        """A value to be compared. NaN is missing; engines take it for more than every number."""
        value = nan_as_null(self.visit(node))
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return ibis.literal(Decimal(value), "decimal(38, 0)")
        return value

    def _compared(self, compare: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
        compared = compare(left, right)
        if isinstance(compared, bool) and (isinstance(left, ibis.Expr) or isinstance(right, ibis.Expr)):
            # Python's answer where ibis has none, which is the same for all rows.
            message = f"cannot compare {left} with {right}"
            raise TypeError(message)
        return compared

    def visit_Call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in {_IF, "case"} and not node.keywords:
            return self._cases(node.args, "if" if name == _IF else name)
        if name not in FUNCTIONS or node.keywords:
            close = difflib.get_close_matches(name, FUNCTIONS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join((*_CONDITIONAL, *FUNCTIONS))}"
            what = f"unknown function {ast.unparse(node.func)!r}; {hint}"
            raise self._refuse(what)
        try:
            return FUNCTIONS[name](*[self.visit(argument) for argument in node.args])
        except _UNFIT as error:
            what = f"{name} does not take these arguments"
            raise self._refuse(what) from error

    def _cases(self, arguments: Sequence[ast.expr], name: str) -> Any:
        """The value of the first condition that holds, or the last argument."""
        if len(arguments) % 2 == 0 or len(arguments) == 1:
            what = f"{name} takes conditions, each with its value, and at last what holds otherwise"
            raise self._refuse(what)
        pairs = zip(arguments[:-1:2], arguments[1::2], strict=True)
        cases = [(self.condition(self.visit(test), ast.unparse(test)), self.visit(value)) for test, value in pairs]
        return ibis.cases(*cases, else_=self.visit(arguments[-1]))
