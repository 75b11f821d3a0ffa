"""Suites of expectations: loaded from a function or a file, checked, and given a digest.

For validation. A suite is written with Great Expectations, in one of three forms::

    "my_project.suites:flights"     a function without arguments: gives an ExpectationSuite or a list
    "/opt/suites/flights.json"      {"name": "flights", "expectations": [
                                        {"type": "expect_...", "kwargs": {...}, "severity": "warning"}]}
    "/opt/suites/flights.yaml"      the same

``severity`` is Great Expectations' own (critical unless said otherwise). What the engines get is plain data,
so that an engine need not be Great Expectations.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import ArgumentError, UserCodeError, XOpsError
from airflow_provider_xops.quality._great_expectations import great_expectations
from airflow_provider_xops.records import Severity, digest_of
from airflow_provider_xops.usercode import reference_of, resolve_callable

__all__ = ["Check", "LoadedSuite", "load_suite"]

log = logging.getLogger(__name__)

FILE_SUFFIXES = (".json", ".yaml", ".yml")
FORMS = "name a function as package.module:function, or a .json or .yaml file"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One expectation as plain data.

    :param type: Great Expectations' name of it, ``expect_column_values_to_not_be_null`` for example.
    :param kwargs: its arguments, JSON types only.
    :param meta: what its author noted about it, such as the reason for it; no part of the suite's digest.
    """

    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = Severity.CRITICAL
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it looks at; empty for an expectation about the table."""
        named = [self.kwargs.get(key) for key in ("column", "column_A", "column_B")]
        return tuple(
            str(name) for name in (*named, *(self.kwargs.get("column_list") or ())) if name is not None
        )

    @property
    def column(self) -> str | None:
        """Its columns as text for people; None for an expectation about the table."""
        return ", ".join(self.columns) or None


@dataclass(frozen=True, kw_only=True)
class LoadedSuite:
    """A suite ready to run. ``digest`` changes when a check, an argument or a severity does."""

    name: str
    reference: str
    checks: tuple[Check, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the checks in their order; the name is not part of it."""
        return digest_of([[check.type, dict(check.kwargs), check.severity.value] for check in self.checks])


def load_suite(reference: str | Callable[[], Any]) -> LoadedSuite:
    """Load a suite and let Great Expectations check every expectation in it.

    :param reference: see the module; a function of a DAG file, a lambda or one of ``__main__`` is refused.
    :raises UserCodeError: the function cannot be imported elsewhere, or raised (``user_code.raised``).
    :raises ArgumentError: ``argument.empty`` (the reference rendered to nothing), ``argument.suite_missing``
        (no such file), ``argument.suite`` (unreadable, an unknown expectation, an argument it does not take,
        no checks).

    >>> load_suite("tests.unit.quality.example_suites:small").name
    'small'
    """
    if isinstance(reference, str) and not reference.strip():
        raise ArgumentError(
            "the suite has no name",
            code="argument.empty",
            why="a template rendered to nothing, or none was given",
            todo=FORMS,
        )
    if isinstance(reference, str) and reference.strip().lower().endswith(FILE_SUFFIXES):
        path = Path(reference.strip())
        shown, content, fallback = str(path), _read(path), path.stem
    else:
        great_expectations()  # before the user's module imports it, so that it is quiet
        shown = reference_of(reference)
        content, fallback = _call(resolve_callable(reference), shown), shown.rpartition(":")[2]
    name, configurations = _plain_suite(content, shown)
    checks = tuple(_check(item, shown, number) for number, item in enumerate(configurations, 1))
    if not checks:
        raise ArgumentError(
            f"the suite {shown} has no checks",
            code="argument.suite",
            why="nothing checked is nothing proved",
            todo="add an expectation",
        )
    suite = LoadedSuite(name=name or fallback, reference=shown, checks=checks)
    log.info("Loaded suite %s with %d checks from %s.", suite.name, len(checks), shown)
    return suite


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArgumentError(
            f"there is no suite file {path}",
            code="argument.suite_missing",
            why="the path is looked up on the worker",
            todo="pass an absolute path that exists on every worker",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(str(path), type(error).__name__) from None
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text)
        import yaml

        return yaml.safe_load(text)
    except ValueError as error:
        raise _unusable(str(path), f"it is not JSON: {error}") from None
    except Exception as error:
        raise _unusable(str(path), f"it is not YAML: {' '.join(str(error).split())}") from None


def _call(function: Callable[..., Any], shown: str) -> Any:
    try:
        return function()
    except XOpsError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"the suite function {shown} raised {type(error).__name__}",
            code="user_code.raised",
            why=str(error),
            todo="call it in a Python shell and correct it",
        ) from error


def _plain_suite(content: Any, shown: str) -> tuple[str | None, Sequence[Any]]:
    if hasattr(content, "expectations") and hasattr(content, "name"):
        return content.name, list(content.expectations)
    if isinstance(content, Mapping):
        items = content.get("expectations")
        if isinstance(items, Sequence) and not isinstance(items, str):
            return content.get("name"), items
    elif isinstance(content, Sequence) and not isinstance(content, str):
        return None, content
    raise _unusable(shown, f"a {type(content).__name__} is not a suite, nor a list of expectations")


def _check(item: Any, shown: str, number: int) -> Check:
    great_expectations()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    where = f"expectation {number}"
    if hasattr(item, "configuration"):
        configuration = item.configuration
    elif isinstance(item, Mapping) and isinstance(item.get("type"), str):
        where += f" ({item['type']})"
        try:
            configuration = ExpectationConfiguration(
                type=item["type"],
                kwargs=_as_json(dict(item.get("kwargs") or {})),
                meta=dict(item.get("meta") or {}),
                severity=Severity(item.get("severity") or Severity.CRITICAL).value,
            )
            configuration = configuration.to_domain_obj().configuration
        except Exception as error:
            raise _unusable(shown, f"{where}: {' '.join(str(error).split())}") from None
    else:
        raise _unusable(shown, f"{where} is a {type(item).__name__} without a type")
    plain = configuration.to_json_dict()
    return Check(
        type=plain["type"],
        kwargs={key: _as_json(value) for key, value in sorted(plain["kwargs"].items()) if value is not None},
        severity=Severity(plain.get("severity") or Severity.CRITICAL),
        meta=_as_json(plain.get("meta") or {}),
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_as_json(item) for item in value]
    return value.isoformat() if isinstance(value, date | datetime) else value


def _unusable(shown: str, why: str) -> ArgumentError:
    return ArgumentError(
        f"the suite {shown} cannot be used", code="argument.suite", why=why,
        todo="correct it; the expectations are listed in Great Expectations' gallery",
    )  # fmt: skip
