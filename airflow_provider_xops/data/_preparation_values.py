"""SQL for single values of a preparation: names, literals and exact casts.

Private to :mod:`airflow_provider_xops.data.preparation`. Nothing that a person wrote gets into the text of a
query but through here: names and texts are quoted, numbers are written from Python's own, and an expression
is parsed before and must be exactly one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from airflow_provider_xops.data.column_types import ColumnType
from airflow_provider_xops.lake.duckdb_box import open_box

__all__ = ["check_expression", "converted", "family", "literal", "missing", "name_sql", "present", "text_sql"]

Fail = Callable[..., Exception]

PARTITION_PARAMETER = "partition"

_FAMILIES = {
    "TINYINT": "int", "SMALLINT": "int", "INTEGER": "int", "BIGINT": "int", "HUGEINT": "int",
    "UTINYINT": "int", "USMALLINT": "int", "UINTEGER": "int", "UBIGINT": "int", "UHUGEINT": "int",
    "FLOAT": "float", "DOUBLE": "float", "BOOLEAN": "bool", "VARCHAR": "text", "BLOB": "bytes",
    "DATE": "date", "TIMESTAMP WITH TIME ZONE": "timestamp", "TIMESTAMP": "local",
}  # fmt: skip
_TARGETS = {
    "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "float32": "FLOAT",
    "float64": "DOUBLE", "bool": "BOOLEAN", "string": "VARCHAR", "date": "DATE",
}  # fmt: skip
_NUMBERS = ("int", "float", "decimal")
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")

# Text that is exactly one value of the type: DuckDB itself also takes '1.5' as the whole number 2, '2013/1/1'
# as a date and drops the time of day of a date.
_INTEGER_TEXT = r"-?[0-9]{1,40}"
_FLOAT_TEXT = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?"
_DATE_TEXT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_LOCAL_TEXT = _DATE_TEXT + r"([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?"
_MOMENT_TEXT = _DATE_TEXT + r"[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)"


def family(kind: str) -> str:
    """What a DuckDB type is, as far as the steps care: int, float, decimal, bool, text, ... or other."""
    return "decimal" if _DECIMAL.fullmatch(kind) else _FAMILIES.get(kind, "other")


def name_sql(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def text_sql(text: str) -> str:
    """A quoted text."""
    return "'" + text.replace("'", "''") + "'"


def missing(value: str, kind: str) -> str:
    """Whether ``value`` is missing: NULL, and NaN among floats."""
    return f"({value} IS NULL OR isnan({value}))" if family(kind) == "float" else f"({value} IS NULL)"


def present(value: str, kind: str) -> str:
    """``value`` with NaN as NULL."""
    return f"(CASE WHEN NOT isnan({value}) THEN {value} END)" if family(kind) == "float" else value


def literal(value: Any, kind: str, *, column: str, fail: Fail) -> str:
    """A literal of the type of ``column``; nothing is rounded to make it fit.

    :param fail: makes the error.
    """
    wanted = family(kind)
    found = _fitting(value, wanted, kind)
    if found is None:
        raise fail(
            f"{value!r} is no value of column {column!r}", why=f"the column is {kind}",
            todo=_HINTS.get(wanted, "write a value of the column's type, or cast the column first"),
        )  # fmt: skip
    return f"CAST({found} AS {kind})"


def check_expression(expression: str, *, what: str, fail: Fail) -> str:
    """The expression in parentheses, if it is exactly one and takes no parameter but ``$partition``."""
    if "\x00" in expression:
        raise fail(f"{what} holds a character that is no text")
    text = f"(\n{expression}\n)"
    with open_box() as connection:
        # The parser says what it is; nothing is run. By itself too: `) OR (` is none, but `() OR ()` is.
        for shape in (f"SELECT {expression}\n", f"SELECT {text}"):
            found = connection.execute("SELECT json_serialize_sql(?)", [shape]).fetchone()
            parsed: dict[str, Any] = json.loads(found[0]) if found else {"error": True}
            if parsed["error"]:
                raise fail(f"{what} is not SQL", why=str(parsed.get("error_message", "")).partition("\n")[0])
            if len(parsed["statements"]) != 1 or not _is_one(parsed["statements"][0]["node"]):
                raise fail(
                    f"{what} is not one expression", todo="write one expression over the step's columns"
                )
        if '"class":"STAR"' in found[0].replace(" ", ""):
            raise fail(f"{what} names all columns at once", todo="name the columns that are meant")
        parameters = connection.extract_statements(f"SELECT {text}")[0].named_parameters
    unknown = sorted(set(parameters) - {PARTITION_PARAMETER})
    if unknown:
        raise fail(f"{what} uses the parameter {unknown[0]}", why=f"there is only ${PARTITION_PARAMETER}")
    return text


def converted(value: str, kind: str, target: ColumnType, *, column: str, fail: Fail) -> tuple[str, str]:
    """``value`` as the target type, missing where it does not convert exactly; and DuckDB's name of it."""
    source = family(kind)
    goal = _TARGETS.get(target.text) or (
        "TIMESTAMP WITH TIME ZONE" if target.text.startswith("timestamp") else target.text.upper()
    )
    if goal == kind and target.zone is None:
        return value, goal
    wanted = family(goal)
    if wanted == "text" and source not in ("bytes", "other"):
        return f"CAST({value} AS VARCHAR)", goal
    if source == "text":
        return _of_text(f"trim({value}, e' \\t\\r\\n')", target, goal, wanted), goal
    if wanted in _NUMBERS and (source in _NUMBERS or source == "bool"):
        tried = f"TRY_CAST({value} AS {goal})"
        # Back again shows what was lost; to a float, the nearest one is what was asked for.
        if source == "bool" or (wanted == "float" and source != "int"):
            return tried, goal
        return f"(CASE WHEN TRY_CAST({tried} AS {kind}) = {value} THEN {tried} END)", goal
    if target.zone is not None and source in ("local", "date"):
        return _in_zone(f"CAST({value} AS TIMESTAMP)", target.zone), goal
    hints = {
        "bool": "derive it: x <> 0",
        "date": "derive it, saying whose day: CAST(timezone('America/New_York', t) AS DATE)",
        "timestamp": "name the zone, timestamp[Area/City], or derive it: to_timestamp(seconds)",
    }
    raise fail(
        f"column {column!r} cannot be cast from {kind} to {target.text}",
        todo=hints.get(wanted, "derive it by an SQL expression"),
    )


def _of_text(value: str, target: ColumnType, goal: str, wanted: str) -> str:
    if target.zone is not None:
        local = f"CASE WHEN {_matches(value, _LOCAL_TEXT)} THEN TRY_CAST({value} AS TIMESTAMP) END"
        return _in_zone(f"({local})", target.zone)
    if wanted == "float":
        tried = f"TRY_CAST(TRY_CAST({value} AS DOUBLE) AS {goal})"
        return f"(CASE WHEN {_matches(value, _FLOAT_TEXT)} AND isfinite({tried}) THEN {tried} END)"
    if wanted == "decimal":
        scale = _DECIMAL.fullmatch(goal)
        pattern = rf"[+-]?[0-9]+(\.[0-9]{{0,{scale[2] if scale else 0}}}0*)?"
    else:
        pattern = {
            "int": _INTEGER_TEXT, "date": _DATE_TEXT, "timestamp": _MOMENT_TEXT,
            "bool": "(?i)true|false|1|0",
        }[wanted]  # fmt: skip
    return f"(CASE WHEN {_matches(value, pattern)} THEN TRY_CAST({value} AS {goal}) END)"


def _matches(value: str, pattern: str) -> str:
    return f"regexp_full_match({value}, {text_sql(pattern)})"


def _in_zone(local: str, zone: str) -> str:
    """The moment at which clocks of ``zone`` show ``local``: the first of two, none where they skip it."""
    moment = f"timezone({text_sql(zone)}, {local})"

    def shows(candidate: str) -> str:
        return f"WHEN timezone({text_sql(zone)}, {candidate}) = {local} THEN {candidate}"

    # DuckDB takes the second pass. Clocks are set back by an hour, on Lord Howe Island by half of one.
    earlier = [f"({moment} - INTERVAL 60 MINUTE)", f"({moment} - INTERVAL 30 MINUTE)"]
    return f"(CASE {' '.join(shows(candidate) for candidate in [*earlier, moment])} END)"


_HINTS = {
    "timestamp": "write ISO text with its offset, such as 2013-01-01T00:00:00Z",
    "date": "write ISO text, such as 2013-01-01",
    "int": "write a whole number, or cast the column to float64 first",
}


def _fitting(value: Any, wanted: str, kind: str) -> str | None:
    """The literal's own SQL, or None if it is not of the family."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted == "int" and is_number and value == int(value):
        return str(int(value))
    if wanted == "float" and is_number:
        return text_sql(repr(float(value)))
    if wanted == "bool" and isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if wanted == "decimal" and (is_number or isinstance(value, str)):
        return _decimal(str(value), kind)
    if not isinstance(value, str) or "\x00" in value:
        return None
    if wanted == "text":
        return text_sql(value)
    try:
        if wanted == "date":
            return text_sql(date.fromisoformat(value).isoformat())
        if wanted == "timestamp":
            moment = datetime.fromisoformat(value)
            return None if moment.tzinfo is None else text_sql(moment.isoformat())
    except ValueError:
        return None
    return None


def _decimal(text: str, kind: str) -> str | None:
    match = _DECIMAL.fullmatch(kind)
    assert match is not None
    try:
        number = Decimal(text)
        exact = number.is_finite() and number == round(number, int(match[2]))
    except InvalidOperation:
        return None
    return text_sql(f"{number:f}") if exact else None


def _is_one(node: dict[str, Any]) -> bool:
    return (
        node.get("type") == "SELECT_NODE"
        and len(node.get("select_list") or ()) == 1
        and (node.get("from_table") or {}).get("type") == "EMPTY"
        and not any(node.get(part) for part in ("where_clause", "having", "qualify", "sample", "modifiers"))
        and not node.get("group_expressions")
        and not (node.get("cte_map") or {}).get("map")
    )
