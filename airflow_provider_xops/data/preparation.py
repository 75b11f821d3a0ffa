"""Preparation steps as declarations: casts, duplicates, gaps, outliers, bins and joins as of a time.

For :func:`~airflow_provider_xops.data.transform.transform` (``steps=``), which runs them as one SELECT, and
for profiles, which suggest them. A list of plain mappings, small enough for a DAG file or a YAML file that
people review::

    - {step: cast, columns: {dep_delay: float64}, on_error: "null"}
    - {step: deduplicate, keys: [flight_id], order_by: [updated_at desc]}
    - {step: impute, columns: {dep_delay: {value: 0}}, indicator: true, reason: "2.4 % missing"}
    - {step: clip, columns: {dep_delay: {lower: -60, upper: 600}}}

**The grammar.** Every step has ``step`` (its kind) and may have ``reason`` (text for people; it decides
nothing). Any other key that is not named here is an error. Column names are exact.

``cast``: ``columns`` {name: type of :mod:`~airflow_provider_xops.data.column_types`}; ``on_error`` ``fail``
    (default: a value that does not convert stops the task, counted, before anything is written) or ``null``
    (it becomes missing, counted). Nothing is rounded or guessed: ``1.5`` and ``"1.5"`` are no ``int64``.
    No nested types, no ``binary``.
``deduplicate``: ``keys`` [names] (default: all columns); ``order_by`` ["name [asc|desc]", ...], where a
    missing value never wins; ``keep`` ``first`` (default) or ``last`` of each key in that order, ties broken
    by all columns; ``null_keys`` ``same`` (default: missing equals missing, as in pandas and GROUP BY) or
    ``keep`` (a row with a missing key is nobody's duplicate).
``impute``: ``columns`` {name: one of
    ``{value: literal}``,
    ``{method: mean | median | most_frequent}`` (learned from ``fit``; a mean only of floats, the median of
    other numbers and times is the lower of the two in the middle),
    ``{method: forward_fill, order_by: [...], group_by: [...]}`` (the last value before in the same group of
    the partition at hand; rows that miss a value of ``order_by`` are left)};
    ``fit`` the name of an input; ``indicator`` true (adds ``<name>_missing``, bool) or its suffix (text).
    Missing is NULL, and NaN in columns of floats.
``clip``: ``columns`` {name: ``{lower, upper}`` (literals, either may be left out) or
    ``{lower_quantile, upper_quantile}`` (of ``fit``)}; ``fit``. Missing values stay missing.
``bin``: ``column``; ``edges`` [rising literals; null as first or last is open] or ``quantiles`` [0..1, of
    ``fit``]; ``fit``; ``into`` (default ``<column>_bin``); ``right`` true (default: ``(a, b]``) or false
    (``[a, b)``); ``include_lowest`` (default false: as ``pandas.cut``; with quantiles true: as
    ``pandas.qcut``); ``labels`` one text for each bin, or false for the bin's number from 0; default: the
    interval as text, such as ``(0, 10]``. A value outside all bins is missing.
``as_of_join``: ``with`` the name of an input; ``on`` a column, or {column: the input's column}; ``by``
    [names] or {name: the input's name}; ``columns`` [names of the input] (default: all but ``on`` and
    ``by``); ``tolerance`` ("2 hours", "30 minutes", "1 day"; a number where ``on`` is one), inclusive;
    ``allow_exact_matches`` (default true); ``suffix`` (for names that are there already); ``direction``
    ``backward`` (the only one: a later row is never taken). Each row stays, once; without a match its new
    columns are missing.
``filter``: ``where`` an SQL predicate; rows for which it is true stay.
``derive``: ``columns`` {name: SQL expression over the columns before this step}; an existing name is
    replaced in its place. ``rename``: ``columns`` {old: new}. ``select``, ``drop``: ``columns`` [names].

Literals are JSON values of the column's own kind: whole numbers for whole numbers, ISO text for dates, ISO
text with an offset for timestamps. SQL expressions may use ``$partition``.

**Learned figures.** A mean of the rows at hand would be another one in every partition, and of rows that a
model is later tested on. So a learned figure is either written down (what a profile suggests) or learned from
the input named by ``fit``: a fixed version, with the partitions that the author chose
(``{"dataset": ..., "partition": "2013-01-01..2013-01-31"}``). The steps before are applied to ``fit`` too.

What it does not do: shuffle, split, encode or scale; that belongs to the model's own pipeline. An expression
may use window functions over the partition at hand; whether that looks ahead is its author's to know.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from airflow_provider_xops.data._preparation_parse import parse_step
from airflow_provider_xops.data._preparation_sql import Compiled, compile_steps
from airflow_provider_xops.data._preparation_steps import AsOfJoin, Step
from airflow_provider_xops.errors import ArgumentError, DataError, UserCodeError, XOpsError
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.records import digest_of
from airflow_provider_xops.usercode import reference_of, resolve_callable

__all__ = ["Preparation", "StepChange", "parse_steps", "prepare", "read_steps"]

FILE_SUFFIXES = (".json", ".yaml", ".yml")
FORMS = "pass a list of steps, the path of a YAML or JSON file of them, or package.module:function"


@dataclass(frozen=True, kw_only=True)
class StepChange:
    """What one step did, in numbers. ``counts``: (what, column, how many); rows where they changed."""

    number: int
    kind: str
    rows: int | None = None
    rows_before: int | None = None
    counts: tuple[tuple[str, str, int], ...] = ()

    def __str__(self) -> str:
        said = [] if self.rows is None else [f"{self.rows_before} -> {self.rows} rows"]
        said += [
            f"{count} {what}" + (f" in {column}" if column else "") for what, column, count in self.counts
        ]
        return f"{self.number} {self.kind}: {', '.join(said)}"


@dataclass(frozen=True)
class Preparation:
    """Steps that fit their inputs.

    :param main: the input whose rows are prepared.
    :param fits: the inputs that figures are learned from.
    """

    steps: tuple[Step, ...]
    main: str
    fits: tuple[str, ...]
    compiled: Compiled

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the result: the steps without their reasons."""
        return digest_of([self.main, *(step.canonical() for step in self.steps)])

    def changes(self, counted: Sequence[int]) -> tuple[StepChange, ...]:
        """What the row of ``compiled.counts`` says.

        :raises DataError: ``data.cast``, ``data.fit``: the rows do not let the steps be run.
        """
        found: list[StepChange] = []
        rows = 0
        for measure, count in zip(self.compiled.measures, counted, strict=True):
            if measure.fatal and count:
                _refuse(measure, count)
            if measure.kind == "read":
                rows = count
            elif measure.what == "rows":
                found.append(
                    StepChange(number=measure.number, kind=measure.kind, rows=count, rows_before=rows)
                )
                rows = count
            elif not measure.fatal:
                entry = (measure.what, measure.column, count)
                if found and found[-1].number == measure.number:
                    last = found.pop()
                    entries = (*last.counts, entry)
                else:
                    entries = (entry,)
                found.append(StepChange(number=measure.number, kind=measure.kind, counts=entries))
        return tuple(found)


def read_steps(given: Any) -> list[Any]:
    """The plain steps behind what an author wrote.

    :param given: a list of steps (or a mapping with ``steps``); the path of a ``.yaml`` or ``.json`` file on
        the worker; ``package.module:function``, called without arguments; or that function.
    :raises ArgumentError: ``argument.steps``: nothing, or nothing that could be steps.
    :raises UserCodeError: the function cannot be named, or raised.

    >>> read_steps([{"step": "drop", "columns": ["a"]}])
    [{'step': 'drop', 'columns': ['a']}]
    """
    if isinstance(given, str) and given.strip().lower().endswith(FILE_SUFFIXES):
        shown, found = given.strip(), _read(Path(given.strip()))
    elif callable(given) or (isinstance(given, str) and given.strip() and given.strip()[0] not in "[{"):
        shown = reference_of(given)
        found = _call(resolve_callable(given), shown)
    elif isinstance(given, str):
        shown, found = "text", _parsed(given, "text", _literal_of)
    else:
        shown, found = "list", given
    if isinstance(found, Mapping):
        found = found.get("steps")
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise ArgumentError(
            f"there are no steps in the given {shown}", code="argument.steps",
            why="a template may have rendered to nothing", todo=FORMS,
        )  # fmt: skip
    return list(found)


def parse_steps(given: Any) -> tuple[Step, ...]:
    """The steps, each of the right shape; whether they fit the data is :func:`prepare`'s to say.

    :raises ArgumentError: ``argument.step`` names the first that is wrong, by its number.
    """
    return tuple(parse_step(number, item) for number, item in enumerate(read_steps(given), 1))


def prepare(steps: Any, inputs: Mapping[str, pa.Schema], *, main: str | None = None) -> Preparation:
    """Steps and the columns of their inputs, put together into one SELECT. Reads no rows.

    :param steps: as :func:`read_steps` takes them.
    :param inputs: name to schema.
    :param main: the input whose rows are prepared; None: the only one that no step names.
    :raises ArgumentError: ``argument.step``, ``argument.steps``, ``argument.input``.

    >>> flights = pa.schema([("dep_delay", pa.float64())])
    >>> plan = prepare([{"step": "filter", "where": "dep_delay > 0"}], {"flights": flights})
    >>> list(plan.compiled.columns)
    ['dep_delay']
    """
    parsed = parse_steps(steps)
    fits = tuple(dict.fromkeys(fit for step in parsed if (fit := getattr(step, "fit", None))))
    named = {*fits, *(step.input for step in parsed if isinstance(step, AsOfJoin))}
    chosen = _main(main, inputs, named)
    if chosen in fits:
        raise ArgumentError(
            f"figures are learned from {chosen!r}, which is what is prepared", code="argument.input",
            why="the rows at hand would give another figure in every partition, and leak",
            todo="name the version to learn from as an input of its own",
        )  # fmt: skip
    with open_box() as connection:
        describe = _describer(connection, inputs)
        columns = {name: describe(f'SELECT * FROM "{name}"') for name in inputs}
        return Preparation(parsed, chosen, fits, compile_steps(parsed, columns, chosen, describe))


def _main(given: str | None, inputs: Mapping[str, Any], named: set[str]) -> str:
    free = [name for name in inputs if name not in named]
    if given is not None and given in inputs:
        return given
    if given is None and (len(free) == 1 or len(inputs) == 1):
        return free[0] if free else next(iter(inputs))
    raise ArgumentError(
        "which input is prepared is not known" if given is None else f"there is no input {given!r}",
        code="argument.input", why=f"there are {', '.join(inputs)}", todo="name one of them as 'input'",
    )  # fmt: skip


def _describer(connection: Any, inputs: Mapping[str, pa.Schema]) -> Callable[[str], dict[str, str]]:
    """Columns of a query over empty tables of these schemas, in a DuckDB that reaches nothing else."""
    connection.execute("SET TimeZone = 'UTC'")
    for name, schema in inputs.items():
        if '"' in name or name.lower().startswith("_xops"):
            raise ArgumentError(
                f"{name!r} cannot name an input", code="argument.alias", todo="use letters, digits and '_'"
            )
        connection.register(name, schema.empty_table())
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")

    def describe(sql: str) -> dict[str, str]:
        try:
            uses = connection.extract_statements(sql)[0].named_parameters
            found = connection.execute(f"DESCRIBE {sql}", dict.fromkeys(uses, "") or None).fetchall()
        except duckdb.Error as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise ArgumentError("the SQL cannot be run", code="argument.sql", why=said[0]) from None
        return {row[0]: row[1] for row in found}

    return describe


def _refuse(measure: Any, count: int) -> None:
    if measure.kind == "cast":
        raise DataError(
            f"step {measure.number} (cast): {count} values of column {measure.column!r} do not convert",
            code="data.cast", why="the step says that this must not happen",
            todo="correct the source, or write on_error: null to take them as missing",
            context={"step": measure.number, "column": measure.column, "count": count},
        )  # fmt: skip
    raise DataError(
        f"step {measure.number} ({measure.kind}): column {measure.column!r} has {measure.what}",
        code="data.fit", why="the figures learned from 'fit' cannot be used",
        todo="learn from more rows, or write the figures down",
        context={"step": measure.number, "column": measure.column},
    )  # fmt: skip


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(
            f"there is no readable file of steps at {path}", code="argument.steps",
            why=f"{type(error).__name__}; the path is looked up on the worker", todo=FORMS,
        ) from None  # fmt: skip
    if path.suffix.lower() == ".json":
        return _parsed(text, str(path), json.loads)
    import yaml

    return _parsed(text, str(path), yaml.safe_load)


def _parsed(text: str, shown: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except Exception as error:  # yaml has errors of its own
        raise ArgumentError(
            f"the steps in {shown} cannot be read", code="argument.steps",
            why=" ".join(str(error).split()), todo=FORMS,
        ) from None  # fmt: skip


def _literal_of(text: str) -> Any:
    """JSON, or the text that a template makes of a list."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _call(function: Callable[..., Any], shown: str) -> Any:
    try:
        return function()
    except XOpsError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"the function of steps {shown} raised {type(error).__name__}", code="user_code.raised",
            why=str(error), todo="call it in a Python shell and correct it",
        ) from error  # fmt: skip
