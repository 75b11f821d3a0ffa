"""Row-level conditions as SQL: which rows are looked at, and which of them are unexpected.

For the execution engine. Each compiler answers for one of Great Expectations' map metrics, with pandas'
meaning of it, or raises :class:`Cannot` and the library computes it on pandas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_xops.quality.duckdb_engine.columns import (
    Cannot,
    Column,
    decimal_bound,
    exact_decimal,
    literal,
    quoted,
)
from airflow_provider_xops.quality.duckdb_engine.row_conditions import row_condition_sql
from airflow_provider_xops.quality.duckdb_engine.session import POSITION, VIEW, Session
from airflow_provider_xops.quality.duckdb_engine.several_columns import SEVERAL

__all__ = ["Condition", "Mapped", "compile_condition", "compile_map", "domain_of"]

HASHED_FROM = 16
_ONE_PATH = {"float", "int", "str", "time", "time_utc", "bool", "date", "decimal"}
_NUMBERS = ("int", "float")
# RE2 does not read these as Python does, or not at all. A group may be (?:...); nothing else begins with (?.
_UNSURE_REGEX = re.compile(
    r"\(\?(?!:)|\\[^dDwWbBtnrfv.\\/^$*+?()\[\]{}|\-@#&_ '\"]|\\$|[*+?}]\+|\[\[|\[:|&&|~~|--|\|\|"
)
# Python's meaning of these takes in the whole of Unicode, RE2's is ASCII.
_ASCII_CLASS = re.compile(r"\\[wWdDbB]")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A compiled condition.

    :param columns: the columns it judges.
    :param domain: the rows that are looked at.
    :param unexpected: the rows among them that break it.
    :param groups: instead, columns whose values must occur once.
    :param follows: instead, an expression over ``v`` and the value before it, ``p``, that says it breaks it.
    :param guards: aggregates that are true where SQL would not be sure to give pandas' answer.
    """

    columns: tuple[Column, ...]
    domain: str
    unexpected: str = ""
    groups: tuple[Column, ...] = ()
    follows: str = ""
    guards: tuple[str, ...] = ()

    @property
    def aggregate(self) -> str | None:
        """The count of unexpected rows as an aggregate; None where it takes a query of its own."""
        return f"count(*) FILTER (WHERE {self.domain} AND {self.unexpected})" if self.unexpected else None

    def count(self, session: Session) -> int:
        """How many rows are unexpected."""
        if self.aggregate is not None:
            return int(session.scalar(self.aggregate))
        if self.groups:
            return int(session.remembered(groups_query(self.groups, self.domain))[1])
        return int(session.remembered(f"SELECT count(*) FROM {self._followers(VIEW, '')}")[0])

    def rows_query(self, session: Session, extra: tuple[Column, ...] = (), limit: int | None = None) -> str:
        """The positions of the unexpected rows, with values of ``extra`` columns."""
        shown = "".join(f", {column.sql}" for column in extra)
        rows = session.positioned
        if self.unexpected:
            found = f"{rows} AS r WHERE {self.domain} AND {self.unexpected}"
        elif self.groups:
            keys = ", ".join(column.sql for column in self.groups)
            same = " AND ".join(f"r.{one.sql} IS NOT DISTINCT FROM g.{one.sql}" for one in self.groups)
            twice = f"(SELECT {keys} FROM {VIEW} WHERE {self.domain} GROUP BY {keys} HAVING count(*) > 1)"
            # The filter stands inside: a semi join has the columns of its left side only.
            found = f"(SELECT * FROM {rows} WHERE {self.domain}) AS r SEMI JOIN {twice} AS g ON {same}"
        else:
            found = f"{self._followers(rows, f', {POSITION}' + shown)}"
        # Streamed in order where all are wanted; the first few need a sort, of the unexpected rows only.
        ordered = "" if limit is None else f" ORDER BY {POSITION} LIMIT {limit}"
        return f"SELECT {POSITION}{shown} FROM {found}{ordered}"

    def _followers(self, rows: str, shown: str) -> str:
        (column,) = self.columns
        return (
            f"(SELECT * FROM (SELECT {column.sql} AS v, lag({column.sql}) OVER () AS p{shown}"
            f" FROM {rows} WHERE {self.domain}) WHERE {self.follows})"
        )


def groups_query(columns: tuple[Column, ...], domain: str) -> str:
    """Distinct values, rows whose value is not the only one of its kind, and the rows of the commonest."""
    keys = ", ".join(column.sql for column in columns)
    return (
        "SELECT count(*), coalesce(sum(n) FILTER (WHERE n > 1), 0), coalesce(max(n), 0) FROM "
        f"(SELECT count(*) AS n FROM {VIEW} WHERE {domain} GROUP BY {keys})"
    )


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """A compiled function of each row, such as its z-score."""

    column: Column
    sql: str


def domain_of(kwargs: Mapping[str, Any], columns: Mapping[str, Column]) -> str:
    """The rows that the domain's row condition leaves."""
    condition = kwargs.get("row_condition")
    if not condition:
        return "TRUE"
    return row_condition_sql(condition, kwargs.get("condition_parser"), columns)


def compile_map(
    name: str, domain: Mapping[str, Any], metrics: Mapping[str, Any], session: Session
) -> Mapped | None:
    """The function of a ``.map`` metric; None where pandas has to compute it."""
    column = session.columns.get(str(domain.get("column")))
    if column is None:
        return None
    domain_of(domain, session.columns)
    if name == "column_values.value_length.map" and column.kind == "str":
        return Mapped(column=column, sql=f"length({column.sql})")
    if name == "column_values.z_score.map" and column.kind in _NUMBERS:
        mean, spread = metrics.get("column.mean"), metrics.get("column.standard_deviation")
        if spread is None or spread == 0:
            return Mapped(column=column, sql="NULL")
        numbers = [float(one) for one in (mean, spread)]  # type: ignore[arg-type]
        if all(abs(one) < float("inf") for one in numbers):
            return Mapped(
                column=column,
                sql=f"((CAST({column.sql} AS DOUBLE) - CAST('{numbers[0]!r}' AS DOUBLE))"
                f" / CAST('{numbers[1]!r}' AS DOUBLE))",
            )
    return None


def compile_condition(
    name: str,
    domain: Mapping[str, Any],
    values: Mapping[str, Any],
    metrics: Mapping[str, Any],
    session: Session,
) -> Condition:
    """The condition of the map metric ``name``.

    :raises Cannot: pandas has to compute it.
    """
    rows = domain_of(domain, session.columns)
    if "column" in domain:
        column = _known(domain["column"], session)
        if name in ("column_values.nonnull", "column_values.null"):
            if column.kind == "none":
                raise Cannot("the column is of a type that DuckDB does not have")
            test = "IS NULL" if name.endswith("nonnull") else "IS NOT NULL"
            return Condition(columns=(column,), domain=rows, unexpected=f"({column.sql} {test})")
        if column.kind not in _ONE_PATH:
            raise Cannot("the column is of a type that pandas treats in its own way")
        there = f"({rows} AND {column.sql} IS NOT NULL)" if rows != "TRUE" else f"({column.sql} IS NOT NULL)"
        if name == "column_values.unique":
            return Condition(columns=(column,), domain=there, groups=(column,))
        if name in ("column_values.increasing", "column_values.decreasing"):
            return Condition(
                columns=(column,), domain=there, follows=_follows(name, column, bool(values.get("strictly")))
            )
        compiler = _COLUMN.get(name)
        if compiler is None:
            raise Cannot("it runs Python on each value")
        return Condition(
            columns=(column,),
            domain=there,
            unexpected=f"(NOT {compiler(column, values, metrics, session)})",
            guards=_guards(column, [values.get("regex"), *(values.get("regex_list") or ())]),
        )
    names = [domain["column_A"], domain["column_B"]] if "column_A" in domain else list(domain["column_list"])
    several = tuple(_known(one, session) for one in names)
    ignored = str(domain.get("ignore_row_if"))
    missing = [f"{column.sql} IS NULL" for column in several]
    if ignored in ("both_values_are_missing", "all_values_are_missing"):
        rows = f"({rows} AND NOT ({' AND '.join(missing)}))"
    elif ignored in ("either_value_is_missing", "any_value_is_missing"):
        rows = f"({rows} AND NOT ({' OR '.join(missing)}))"
    elif ignored not in ("neither", "never"):
        raise Cannot("it has its own rule for rows to ignore")
    if any(column.kind not in _ONE_PATH for column in several):
        raise Cannot("a column is of a type that pandas treats in its own way")
    if name == "compound_columns.unique":
        return Condition(columns=several, domain=rows, groups=several)
    several_compiler = SEVERAL.get(name)
    if several_compiler is None:
        raise Cannot("it runs Python on each row")
    return Condition(
        columns=several,
        domain=rows,
        unexpected=f"(NOT {several_compiler(several, values, ignored, session)})",
    )


def _known(name: Any, session: Session) -> Column:
    column = session.columns.get(str(name))
    if column is None:
        raise Cannot("there is no such column")
    return column


def _follows(name: str, column: Column, strictly: bool) -> str:
    if column.kind in ("bool", "str", "date", "decimal") or (
        column.kind == "int" and column.type.bit_width < 32
    ):
        raise Cannot("differences of this type are pandas' own")
    operator = {"increasing": "<", "decreasing": ">"}[name.rpartition(".")[2]]
    if column.kind == "float":
        # Of two equal infinities the difference is NaN: pandas lets it pass.
        difference = f"(v - p) {operator}{'=' if strictly else ''} 0 AND NOT isnan(v - p)"
        return f"(p IS NOT NULL AND {difference})"
    if column.kind == "int" and column.type.bit_width == 64:
        # pandas' difference of 64-bit numbers wraps around.
        step = "(CAST(v AS HUGEINT) - CAST(p AS HUGEINT))"
        wrapped = (
            f"CASE WHEN {step} > 9223372036854775807 THEN {step} - 18446744073709551616"
            f" WHEN {step} < -9223372036854775808 THEN {step} + 18446744073709551616 ELSE {step} END"
        )
        return f"(p IS NOT NULL AND {wrapped} {operator}{'=' if strictly else ''} 0)"
    return f"(p IS NOT NULL AND v {operator}{'=' if strictly else ''} p)"


def _between(column: Column, values: Mapping[str, Any], *_: Any) -> str:
    least, most = values.get("min_value"), values.get("max_value")
    if least is None and most is None:
        raise Cannot("it has no bound")
    try:
        crossed = least is not None and most is not None and least > most
    except TypeError:
        raise Cannot("its bounds are of two types") from None
    if crossed or column.kind == "bool":
        raise Cannot("pandas has its own answer to these bounds")
    parts = []
    if least is not None:
        parts.append(_bound(column, least, ">" if values.get("strict_min") else ">="))
    if most is not None:
        parts.append(_bound(column, most, "<" if values.get("strict_max") else "<="))
    return f"({' AND '.join(parts)})"


def _bound(column: Column, value: Any, operator: str) -> str:
    if column.kind == "decimal":
        return f"{column.sql} {operator} {decimal_bound(value, column, up=operator in ('>=', '<'))}"
    if column.kind == "int" and isinstance(value, float):
        # Beside a float literal DuckDB compares as floats, as pandas does.
        return f"CAST({column.sql} AS DOUBLE) {operator} {literal(value, column)}"
    return f"{column.sql} {operator} {literal(value, column)}"


def _length_between(column: Column, values: Mapping[str, Any], metrics: Mapping[str, Any], *_: Any) -> str:
    length = metrics.get("column_values.value_length.map")
    if not isinstance(length, Mapped):
        raise Cannot("only lengths of text are the same in SQL")
    parts = []
    for key, strict, operator in (("min_value", "strict_min", ">"), ("max_value", "strict_max", "<")):
        value = values.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Cannot("a length is compared with something else than a number")
        parts.append(f"{length.sql} {operator}{'' if values.get(strict) else '='} {value!r}")
    if not parts:
        raise Cannot("it has no bound")
    return f"({' AND '.join(parts)})"


def _length_equals(column: Column, values: Mapping[str, Any], metrics: Mapping[str, Any], *_: Any) -> str:
    length = metrics.get("column_values.value_length.map")
    value = values.get("value")
    if not isinstance(length, Mapped) or isinstance(value, bool) or not isinstance(value, int | float):
        raise Cannot("only lengths of text are the same in SQL")
    return f"({length.sql} = {value!r})"


def _in_set(column: Column, values: Mapping[str, Any], *_: Any) -> str:
    members = values.get("value_set")
    if members is None:
        return "TRUE"
    if column.kind in ("time", "time_utc", "bool"):
        raise Cannot("pandas has its own way to look a value of this type up in a set")
    if column.kind == "decimal":
        listed = [text for text in (exact_decimal(value, column) for value in members) if text is not None]
    else:
        listed = [literal(value, column) for value in members]
        if column.kind == "int" and any(isinstance(value, float) for value in members):
            listed = [str(int(value)) for value in members if float(value).is_integer()]
    if not listed:
        return "FALSE"
    members_sql = ", ".join(dict.fromkeys(listed))
    # A long list is compared one by one, a subquery by hash: 70 times faster with 1,000 members.
    inside = members_sql if len(listed) < HASHED_FROM else f"SELECT unnest([{members_sql}])"
    return f"({column.sql} IN ({inside}))"


def _not_in_set(column: Column, values: Mapping[str, Any], *_: Any) -> str:
    return "TRUE" if values.get("value_set") is None else f"(NOT {_in_set(column, values)})"


def _guards(column: Column, patterns: list[Any]) -> tuple[str, ...]:
    """Text for which Python's classes and its ``$`` differ from RE2's."""
    found = []
    for pattern in patterns:
        if isinstance(pattern, str) and _ASCII_CLASS.search(pattern):
            found.append(f"bool_or(strlen({column.sql}) <> length({column.sql}))")
        if isinstance(pattern, str) and "$" in pattern:
            found.append(f"bool_or(ends_with({column.sql}, chr(10)))")
    return tuple(dict.fromkeys(found))


def _regex(column: Column, pattern: Any, session: Session) -> str:
    if column.kind != "str":
        raise Cannot("the column is not text")
    if not isinstance(pattern, str) or _UNSURE_REGEX.search(pattern) or "\x00" in pattern:
        raise Cannot("the regular expression is not one that RE2 and Python read alike")
    session.query(f"SELECT regexp_matches('', {quoted(pattern)})")  # does RE2 take it?
    return f"regexp_matches({column.sql}, {quoted(pattern)})"


def _match_regex(column: Column, values: Mapping[str, Any], _: Any, session: Session) -> str:
    return _regex(column, values.get("regex"), session)


def _not_match_regex(column: Column, values: Mapping[str, Any], _: Any, session: Session) -> str:
    return f"(NOT {_regex(column, values.get('regex'), session)})"


def _match_regex_list(column: Column, values: Mapping[str, Any], _: Any, session: Session) -> str:
    word = {"any": " OR ", "all": " AND "}.get(str(values.get("match_on") or "any"))
    patterns = values.get("regex_list")
    if word is None or not patterns:
        raise Cannot("pandas has its own answer to this list")
    return "(" + word.join(_regex(column, pattern, session) for pattern in patterns) + ")"


def _not_match_regex_list(column: Column, values: Mapping[str, Any], _: Any, session: Session) -> str:
    return f"(NOT {_match_regex_list(column, {**values, 'match_on': 'any'}, _, session)})"


def _z_score(column: Column, values: Mapping[str, Any], metrics: Mapping[str, Any], _: Any) -> str:
    score, threshold = metrics.get("column_values.z_score.map"), values.get("threshold")
    if not isinstance(score, Mapped) or isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise Cannot("the score is not a plain number")
    if score.sql == "NULL":
        return "TRUE"
    shown = f"abs({score.sql})" if values.get("double_sided") else score.sql
    limit = abs(threshold) if values.get("double_sided") else threshold
    return f"({shown} < CAST('{float(limit)!r}' AS DOUBLE) OR isnan({score.sql}))"


def _not_outliers(column: Column, values: Mapping[str, Any], metrics: Mapping[str, Any], _: Any) -> str:
    statistics = metrics.get("column.outlier_statistics")
    if column.kind not in _NUMBERS or statistics is None:
        raise Cannot("outliers are looked for among numbers only")
    if any(one is None for one in statistics):
        return "TRUE"  # no spread to measure by: every value is left alone
    low, high, spread = (float(one) for one in statistics)
    wide = float(values.get("multiplier", 1.5)) * spread
    if not all(abs(one) < float("inf") for one in (low, high, wide, low - wide, high + wide)):
        raise Cannot("the window of usual values is not finite")
    value = f"CAST({column.sql} AS DOUBLE)"
    if values.get("method", "iqr") == "iqr":
        return (
            f"({value} >= CAST('{low - wide!r}' AS DOUBLE) AND {value} <= CAST('{high + wide!r}' AS DOUBLE))"
        )
    if wide <= 0:
        return f"({value} = CAST('{low!r}' AS DOUBLE))"
    return f"(abs({value} - CAST('{low!r}' AS DOUBLE)) < CAST('{wide!r}' AS DOUBLE))"


_COLUMN: dict[str, Callable[..., str]] = {
    "column_values.between": _between,
    "column_values.value_length.between": _length_between,
    "column_values.value_length.equals": _length_equals,
    "column_values.in_set": _in_set,
    "column_values.not_in_set": _not_in_set,
    "column_values.match_regex": _match_regex,
    "column_values.not_match_regex": _not_match_regex,
    "column_values.match_regex_list": _match_regex_list,
    "column_values.not_match_regex_list": _not_match_regex_list,
    "column_values.z_score.under_threshold": _z_score,
    "column_values.not_outliers": _not_outliers,
}
