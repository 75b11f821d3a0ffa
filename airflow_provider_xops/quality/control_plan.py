"""Which control charts a table has: as Python, JSON or YAML.

For :mod:`~airflow_provider_xops.quality.control`. A plan is a :class:`ControlPlan`, a list of charts, or the
same as plain data, in a file or given by a function (``package.module:function``)::

    charts:
      - {metric: row_count, rules: nelson, strata: weekday}
      - {metric: "null_rate:*", chart: p}
      - {metric: "mean:distance", baseline: {kind: frozen, start: 2013-01-01, end: 2013-01-31}}
      - {metric: "sql:late_share", chart: ewma, lambda: 0.2}
    causes:
      - {start: 2013-02-08, end: 2013-02-09, reason: "blizzard: airports closed", metrics: [row_count]}
    metrics:
      sql: {late_share: "SELECT avg(CAST(arr_delay > 15 AS INTEGER)) FROM dataset"}

Charts take what :class:`~airflow_provider_xops.quality.spc.ChartSpec` takes. ``:*`` stands for every column
that can have the statistic. Dates without a zone are UTC, as the dates that partitions are called after; an
end that is a date is the end of that day. What charts need is measured without being named in ``metrics``;
only ``sql`` and ``freshness`` have to be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality._documents import load_document
from airflow_provider_xops.quality._metric_sql import as_mapping, has_statistic
from airflow_provider_xops.quality.metrics import MetricPlan, load_metric_plan
from airflow_provider_xops.quality.spc import Baseline, ChartSpec, SpecialCause
from airflow_provider_xops.records import digest_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ControlPlan",
    "cause_from_json",
    "chart_from_json",
    "load_control_plan",
    "parse_moment",
    "plan_json",
]

EVERY_COLUMN = ":*"


@dataclass(frozen=True, kw_only=True)
class ControlPlan:
    """Charts, known special causes, and what is measured besides what the charts need.

    :param charts: chart specifications, or mappings of their fields.
    :param causes: special causes, or mappings of their fields; those noted in the lake are added.
    :param metrics: SQL metrics, the column of freshness; None: what the charts name is enough.
    """

    charts: Sequence[ChartSpec | Mapping[str, Any]]
    causes: Sequence[SpecialCause | Mapping[str, Any]] = ()
    metrics: MetricPlan | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """
        :raises ArgumentError: ``argument.control_plan``: no charts; ``argument.control_chart``: one of them
            cannot work.
        """
        if isinstance(self.charts, str | Mapping) or not self.charts:
            raise _unusable("it has no charts")
        charts = tuple(one if isinstance(one, ChartSpec) else chart_from_json(one) for one in self.charts)
        causes = tuple(
            one if isinstance(one, SpecialCause) else cause_from_json(one) for one in self.causes or ()
        )
        object.__setattr__(self, "charts", charts)
        object.__setattr__(self, "causes", causes)
        if self.metrics is not None:
            given = self.metrics
            # Here columns that are not named are not measured: the charts say what is needed.
            plain = {"columns": {}, **given} if isinstance(given, Mapping) else given
            object.__setattr__(self, "metrics", load_metric_plan(plain))

    @property
    def specs(self) -> tuple[ChartSpec, ...]:
        """The charts, ``:*`` not yet filled in."""
        return cast("tuple[ChartSpec, ...]", self.charts)

    @property
    def special_causes(self) -> tuple[SpecialCause, ...]:
        """The causes that the plan itself knows."""
        return cast("tuple[SpecialCause, ...]", self.causes)

    def for_schema(self, schema: pa.Schema) -> tuple[ChartSpec, ...]:
        """The charts of a table with these columns.

        :raises ArgumentError: ``argument.control_plan``: ``:*`` of a statistic that no column has, or the
            same chart twice.
        """
        found: list[ChartSpec] = []
        for spec in self.specs:
            if not spec.metric.endswith(EVERY_COLUMN):
                found.append(spec)
                continue
            statistic = spec.metric.removesuffix(EVERY_COLUMN)
            names = _columns_with(statistic, schema)
            if not names:
                raise _unusable(f"no column has the statistic of {spec.metric}")
            found += [dataclasses.replace(spec, metric=f"{statistic}:{name}") for name in names]
        if len(set(found)) < len(found):
            raise _unusable("the same chart stands in it twice")
        return tuple(found)

    def metric_plan(self, specs: Sequence[ChartSpec], extra: MetricPlan | None = None) -> MetricPlan:
        """What has to be measured for these charts, and what is asked for besides.

        :param extra: instead of the plan's own ``metrics``.
        :raises ArgumentError: ``argument.metric``: a metric that nobody defines.
        """
        base = extra or cast("MetricPlan | None", self.metrics) or MetricPlan(columns={})
        columns = {name: set(statistics) for name, statistics in as_mapping(base.columns).items()}
        suites: set[str] = set() if isinstance(base.suites, bool) else set(base.suites)
        for spec in specs:
            statistic, _, name = spec.metric.partition(":")
            if spec.metric == "row_count":
                continue
            if spec.metric == "freshness_seconds":
                if base.freshness is None:
                    raise _undefined(spec.metric, "name its column: metrics={'freshness': 'COLUMN'}")
            elif statistic == "sql":
                if name not in base.sql:
                    raise _undefined(
                        spec.metric, f"give its query: metrics={{'sql': {{'{name}': 'SELECT ...'}}}}"
                    )
            elif statistic in ("failed_check_rate", "check_count"):
                suites.add(name)
            elif name:
                columns.setdefault(name, set()).add(statistic)
            else:
                raise _undefined(spec.metric, "write for example row_count, mean:COLUMN or sql:NAME")
        return MetricPlan(
            columns={name: sorted(statistics) for name, statistics in columns.items()},
            sql=base.sql,
            freshness=base.freshness,
            suites=base.suites if base.suites is True else tuple(sorted(suites)),
        )


def load_control_plan(
    given: ControlPlan | Mapping[str, Any] | Sequence[Any] | str | Callable[[], Any],
) -> ControlPlan:
    """A plan from its object, its JSON, a list of charts, a ``.json`` or ``.yaml`` file, or
    ``package.module:function``.

    :raises ArgumentError: it is none of these, or a chart in it cannot work.
    :raises UserCodeError: there is no such function, or it raised.
    """
    found = load_document(given, what="control plan")
    if isinstance(found, ControlPlan):
        return found
    if isinstance(found, ChartSpec):
        return ControlPlan(charts=(found,))
    if isinstance(found, Mapping):
        unknown = sorted(set(found) - {"charts", "causes", "metrics"})
        if unknown:
            raise _unusable(f"it has {unknown[0]!r}")
        return ControlPlan(
            charts=found.get("charts") or (), causes=found.get("causes") or (), metrics=found.get("metrics")
        )
    if isinstance(found, Sequence) and not isinstance(found, str):
        return ControlPlan(charts=list(found))
    raise _unusable(f"it is a {type(found).__name__}")


def plan_json(
    specs: Sequence[ChartSpec], causes: Sequence[SpecialCause], metrics: MetricPlan
) -> dict[str, Any]:
    """What is judged, as plain JSON types: for the digest and the page."""
    return {
        "charts": [_plain(spec) for spec in specs],
        "causes": sorted((_plain(cause) for cause in causes), key=digest_of),
        "metrics": metrics.to_json(),
    }


def chart_from_json(data: Any) -> ChartSpec:
    """One chart from a mapping of its fields.

    :raises ArgumentError: ``argument.control_chart``.
    """
    fields = _fields(data, ChartSpec, "a chart")
    if "metric" not in fields:
        raise _refused("a chart has no metric")
    if isinstance(fields.get("baseline"), Mapping):
        baseline = _fields(fields["baseline"], Baseline, "a baseline")
        fields["baseline"] = Baseline(**_with_moments(baseline))
    if isinstance(fields.get("rules"), list):
        fields["rules"] = tuple(str(one) for one in fields["rules"])
    return ChartSpec(**fields)


def cause_from_json(data: Any) -> SpecialCause:
    """One special cause from a mapping of its fields; ``metric`` is short for one entry of ``metrics``.

    :raises ArgumentError: ``argument.control_chart``.
    """
    if isinstance(data, Mapping) and data.get("metric") is not None:
        data = {**data, "metrics": [data["metric"]]}
    fields = _with_moments(
        _fields({k: v for k, v in dict(data).items() if k != "metric"}, SpecialCause, "a cause")
    )
    if "start" not in fields or "reason" not in fields:
        raise _refused("a special cause has no start or no reason")
    if fields.get("metrics") is not None:
        fields["metrics"] = tuple(str(one) for one in fields["metrics"])
    return SpecialCause(**fields)


def parse_moment(given: Any, *, end: bool = False) -> datetime:
    """A moment as people write it: a time, or a date, which as an end means its last microsecond. Without a
    zone it is UTC.

    :raises ArgumentError: ``argument.control_chart``.

    >>> parse_moment("2013-01-31", end=True).isoformat()
    '2013-01-31T23:59:59.999999+00:00'
    """
    moment = given
    if isinstance(given, str):
        try:
            moment = date.fromisoformat(given.strip())
        except ValueError:
            try:
                moment = datetime.fromisoformat(given.strip())
            except ValueError:
                raise _refused(f"{given!r} is no date and no time") from None
    if isinstance(moment, datetime):
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(moment, date):
        return datetime.combine(moment, time.max if end else time.min, tzinfo=UTC)
    raise _refused(f"a {type(given).__name__} is no date and no time")


def _with_moments(fields: dict[str, Any]) -> dict[str, Any]:
    for name in ("start", "end"):
        if fields.get(name) is not None:
            fields[name] = parse_moment(fields[name], end=name == "end")
    return fields


def _fields(data: Any, cls: type[Any], what: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise _refused(f"{what} is a {type(data).__name__}")
    names = {field.name for field in dataclasses.fields(cls)}
    # "lambda" is what everybody calls it, and no name in Python.
    given = {f"{name}_" if f"{name}_" in names else str(name): value for name, value in data.items()}
    unknown = sorted(set(given) - names)
    if unknown:
        raise _refused(f"{what} has {unknown[0]!r}", todo=f"use some of {', '.join(sorted(names))}")
    return given


def _columns_with(statistic: str, schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if has_statistic(schema.field(name).type, statistic)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _undefined(metric: str, todo: str) -> ArgumentError:
    return ArgumentError(
        f"nobody says what the metric {metric} is", code="argument.metric",
        why="a chart asks for it", todo=todo,
    )  # fmt: skip


def _refused(
    what: str, *, todo: str = "see the fields of ChartSpec, Baseline and SpecialCause"
) -> ArgumentError:
    return ArgumentError(what, code="argument.control_chart", todo=todo)


def _unusable(why: str) -> ArgumentError:
    return ArgumentError(
        "the control plan cannot be used", code="argument.control_plan", why=why,
        todo="give charts, and causes and metrics where there are some",
    )  # fmt: skip
