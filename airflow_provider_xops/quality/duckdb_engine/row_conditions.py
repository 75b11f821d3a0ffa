"""Row conditions as SQL: pandas' query language as far as both mean the same, and the library's own objects.

For the compilers. What is not certainly the same raises :class:`Cannot`, and pandas evaluates it. As in
pandas, a missing value compares as false, and as unequal.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from typing import Any

from airflow_provider_xops.quality.duckdb_engine.columns import Cannot, Column, literal

__all__ = ["mentioned", "row_condition_sql"]

_WORDS = {"&": "and", "|": "or"}
_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "=",
    ast.NotEq: "<>",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_TEXT_OPERATORS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_COMPARABLE = ("int", "float", "str", "time", "time_utc")


def row_condition_sql(condition: Any, parser: str | None, columns: Mapping[str, Column]) -> str:
    """The condition as a Boolean of SQL that is never null.

    :raises Cannot: pandas has to evaluate it.
    """
    if isinstance(condition, str):
        if parser != "pandas":
            raise Cannot("the row condition is not in pandas' language")
        return _query(condition, columns)
    from great_expectations.expectations.row_conditions import deserialize_row_condition

    if isinstance(condition, Mapping):
        condition = deserialize_row_condition(dict(condition))
    return _object(condition, columns)


def mentioned(condition: Any, names: list[str]) -> list[str]:
    """The columns that a condition may look at: those whose names occur in it, at least one too many."""
    text = condition if isinstance(condition, str) else repr(condition)
    if any(not name.isprintable() or set("\\'\"`") & set(name) for name in names):
        return names
    return [name for name in names if name in text] or names


def _object(condition: Any, columns: Mapping[str, Column]) -> str:
    name = type(condition).__name__
    if name == "AndCondition":
        return "(" + " AND ".join(_object(part, columns) for part in condition.conditions) + ")"
    if name == "OrCondition":
        return "(" + " OR ".join(_object(part, columns) for part in condition.conditions) + ")"
    if name == "PassThroughCondition":
        return _query(condition.pass_through_filter, columns)
    if name == "NullityCondition":
        column = _column(condition.column.name, columns)
        return f"({column.sql} IS {'' if condition.is_null else 'NOT '}NULL)"
    if name == "ComparisonCondition":
        column = _column(condition.column.name, columns)
        operator = str(getattr(condition.operator, "value", condition.operator))
        if operator in _TEXT_OPERATORS:
            return _comparison(column, _TEXT_OPERATORS[operator], condition.parameter)
        if operator.lower() in ("in", "not in"):
            return _membership(column, list(condition.parameter), operator.lower() == "not in")
    raise Cannot("the row condition is of a kind that only pandas evaluates")


def _query(text: str, columns: Mapping[str, Column]) -> str:
    named: dict[str, str] = {}
    try:
        tree = ast.parse(_python(text, named), mode="eval")
    except (SyntaxError, ValueError, tokenize.TokenError):
        raise Cannot("the row condition is not a comparison that SQL can make") from None
    return _node(tree.body, {**{name: name for name in columns}, **named}, columns)


def _python(text: str, named: dict[str, str]) -> str:
    """The query with quoted names replaced and ``&`` and ``|`` as the words that pandas takes them for."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        raise Cannot("the row condition has a lone backtick")
    for index in range(1, len(parts), 2):
        stand_in = f"xops_quoted_{index}"
        named[stand_in] = parts[index]
        parts[index] = stand_in
    tokens = []
    for token in tokenize.generate_tokens(io.StringIO("".join(parts).strip()).readline):
        word = _WORDS.get(token.string) if token.type == tokenize.OP else None
        tokens.append((tokenize.NAME, word) if word else (token.type, token.string))
    return tokenize.untokenize(tokens).strip()


def _node(node: ast.expr, names: Mapping[str, str], columns: Mapping[str, Column]) -> str:
    if isinstance(node, ast.BoolOp):
        word = " AND " if isinstance(node.op, ast.And) else " OR "
        return "(" + word.join(_node(value, names, columns) for value in node.values) + ")"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return f"(NOT {_node(node.operand, names, columns)})"
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        pairs = zip(sides[:-1], node.ops, sides[1:], strict=True)
        return "(" + " AND ".join(_pair(*pair, names, columns) for pair in pairs) + ")"
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and not (node.args or node.keywords)
    ):
        column = _named(node.func.value, names, columns)
        if column is not None and node.func.attr in ("isnull", "isna", "notnull", "notna"):
            return f"({column.sql} IS {'NOT ' if node.func.attr.startswith('not') else ''}NULL)"
    raise Cannot("the row condition is not a comparison that SQL can make")


def _pair(
    left: ast.expr,
    operator: ast.cmpop,
    right: ast.expr,
    names: Mapping[str, str],
    columns: Mapping[str, Column],
) -> str:
    column = _named(left, names, columns)
    if column is not None and isinstance(operator, ast.In | ast.NotIn):
        values = _constant(right)
        if not isinstance(values, list):
            raise Cannot("the row condition is not a comparison that SQL can make")
        return _membership(column, values, isinstance(operator, ast.NotIn))
    word = _OPERATORS.get(type(operator))
    if word is None:
        raise Cannot("the row condition is not a comparison that SQL can make")
    if column is not None:
        return _comparison(column, word, _constant(right))
    column = _named(right, names, columns)
    if column is None:
        raise Cannot("the row condition is not a comparison that SQL can make")
    turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(word, word)
    return _comparison(column, turned, _constant(left))


def _comparison(column: Column, operator: str, value: Any) -> str:
    if column.kind not in _COMPARABLE or (column.kind in ("time", "time_utc") and isinstance(value, str)):
        raise Cannot("the row condition compares a type that pandas compares in its own way")
    missing = "TRUE" if operator == "<>" else "FALSE"
    return f"coalesce({column.sql} {operator} {literal(value, column)}, {missing})"


def _membership(column: Column, values: list[Any], negated: bool) -> str:
    if column.kind not in ("int", "float", "str") or not values:
        raise Cannot("the row condition compares a type that pandas compares in its own way")
    listed = ", ".join(literal(value, column) for value in values)
    found = f"coalesce({column.sql} IN ({listed}), FALSE)"
    return f"(NOT {found})" if negated else found


def _named(node: ast.expr, names: Mapping[str, str], columns: Mapping[str, Column]) -> Column | None:
    return _column(names[node.id], columns) if isinstance(node, ast.Name) and node.id in names else None


def _column(name: str, columns: Mapping[str, Column]) -> Column:
    column = columns.get(name)
    if column is None or column.kind == "none":
        raise Cannot("the row condition names a column that DuckDB does not have")
    return column


def _constant(node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise Cannot("the row condition compares with something else than a constant") from None
    return list(value) if isinstance(value, list | tuple | set) else value
