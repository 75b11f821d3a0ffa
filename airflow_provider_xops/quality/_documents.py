"""Plans as people write them: an object, plain data, a file, or a function that gives one of these.

For metric plans, control plans and arrival schedules, which take the same forms as suites.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import ArgumentError, UserCodeError, XOpsError
from airflow_provider_xops.usercode import reference_of, resolve_callable

__all__ = ["load_document"]

FILE_SUFFIXES = (".json", ".yaml", ".yml")


def load_document(given: Any, *, what: str) -> Any:
    """What a reference leads to: a file's content, what a function gives; anything else is given back.

    :param given: ``package.module:function``, the path of a ``.json`` or ``.yaml`` file, the function itself,
        or the thing.
    :param what: what it is, for the errors.
    :raises ArgumentError: ``argument.empty``, ``argument.document_missing``, ``argument.document``.
    :raises UserCodeError: the function cannot be imported elsewhere, or raised (``user_code.raised``).
    """
    if callable(given) and not isinstance(given, type):
        return _call(given, reference_of(given), what)
    if not isinstance(given, str):
        return given
    text = given.strip()
    if not text or text == "None":
        raise ArgumentError(
            f"the {what} has no name", code="argument.empty", why="a template rendered to nothing",
            todo="name a function as package.module:function, or a .json or .yaml file",
        )  # fmt: skip
    if text.lower().endswith(FILE_SUFFIXES):
        return _read(Path(text), what)
    return _call(resolve_callable(text), reference_of(text), what)


def _read(path: Path, what: str) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArgumentError(
            f"there is no {what} file {path}", code="argument.document_missing",
            why="the path is looked up on the worker",
            todo="pass an absolute path that exists on every worker",
        ) from None  # fmt: skip
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, what, type(error).__name__) from None
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text)
        except ValueError as error:
            raise _unreadable(path, what, f"it is not JSON: {error}") from None
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _unreadable(path, what, f"it is not YAML: {' '.join(str(error).split())}") from None


def _call(function: Callable[..., Any], shown: str, what: str) -> Any:
    try:
        return function()
    except XOpsError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"the {what} function {shown} raised {type(error).__name__}", code="user_code.raised",
            why=str(error), todo="call it in a Python shell and correct it",
        ) from error  # fmt: skip


def _unreadable(path: Path, what: str, why: str) -> ArgumentError:
    return ArgumentError(
        f"the {what} file {path} cannot be read", code="argument.document", why=why, todo="correct it"
    )
