"""Typed errors of the domain: what happened, why, and what to do next.

For every caller: the operators turn ``retryable`` into Airflow's two ways of failing, the command line
prints the message, and programs read ``code`` and ``context``. Nothing here knows of Airflow.

One class per family, one ``code`` per cause. Messages carry identities, counts and column names, never
values of data rows and never secrets.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ArgumentError",
    "ConflictError",
    "DataError",
    "GateError",
    "LakeError",
    "ModelError",
    "NotFoundError",
    "RegistryError",
    "SourceError",
    "Superseded",
    "TrainingError",
    "UnavailableError",
    "UserCodeError",
    "ValidationError",
    "XOpsError",
]


class XOpsError(Exception):
    """Base of every error this package raises on purpose.

    :param what: what happened, to which dataset, model or version (one sentence, no full stop needed).
    :param why: the cause, as far as it is known.
    :param todo: the next step of the person who reads it.
    :param code: stable, machine-readable cause, ``family.cause`` (for example ``lake.not_found``).
    :param retryable: whether running the same thing again later can succeed without anyone changing anything.
    :param context: figures a program may read (ids, counts); never data values, never secrets.

    Errors survive pickling with all fields, so they cross process boundaries whole.

    >>> error = LakeError("no lake at file:///data", code="lake.not_found", todo="run `xops lake init
    file:///data`")
    >>> error.code, error.retryable
    ('lake.not_found', False)
    """

    family = "xops"
    default_retryable = False

    def __init__(
        self,
        what: str,
        *,
        code: str | None = None,
        why: str = "",
        todo: str = "",
        retryable: bool | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        self.what = what
        self.why = why
        self.todo = todo
        self.code = code or f"{self.family}.error"
        self.retryable = self.default_retryable if retryable is None else retryable
        self.context = dict(context or {})
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [f"{self.what.rstrip('.')}."]
        if self.why:
            parts.append(f"Why: {self.why.rstrip('.')}.")
        if self.todo:
            parts.append(f"Next step: {self.todo.rstrip('.')}.")
        return f"[{self.code}] " + " ".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (type(self), self.what, self.code, self.why, self.todo, self.retryable, self.context),
        )

    def to_json(self) -> dict[str, Any]:
        """The error as plain JSON, for records and the command line's ``--json``."""
        return {
            "code": self.code,
            "what": self.what,
            "why": self.why,
            "todo": self.todo,
            "retryable": self.retryable,
            "context": self.context,
        }


def _rebuild(
    cls: type[XOpsError], what: str, code: str, why: str, todo: str, retryable: bool, context: dict[str, Any]
) -> XOpsError:
    return cls(what, code=code, why=why, todo=todo, retryable=retryable, context=context)


class ArgumentError(XOpsError):
    """An argument, a setting or a rendered template is unusable."""

    family = "argument"


class UserCodeError(XOpsError):
    """A function or class named as ``package.module:name`` cannot be used, or raised."""

    family = "user_code"


class SourceError(XOpsError):
    """A source file or query cannot be read as declared (missing, truncated, wrong type, wrong bytes)."""

    family = "source"


class DataError(XOpsError):
    """Data in the lake does not have the shape the operation needs."""

    family = "data"


class ValidationError(XOpsError):
    """A validation failed or errored and the policy says stop."""

    family = "validation"


class LakeError(XOpsError):
    """The lake, one of its tables or one of its versions is not what it must be."""

    family = "lake"


class NotFoundError(XOpsError):
    """A named record, version, model or prediction does not exist."""

    family = "not_found"


class ConflictError(XOpsError):
    """Another writer won a race; the same operation may be tried again from the new state."""

    family = "conflict"
    default_retryable = True


class Superseded(XOpsError):
    """A newer attempt at the same batch holds a higher fence: this one must not write.

    The orphan of a killed worker sees this when its successor has already started or committed.
    """

    family = "superseded"


class UnavailableError(XOpsError):
    """A service or storage did not answer in time; nothing is known to be wrong with the request."""

    family = "unavailable"
    default_retryable = True


class RegistryError(XOpsError):
    """MLflow refused a request, or the registry is not in the state the operation needs."""

    family = "registry"


class ModelError(XOpsError):
    """A model cannot be loaded, does not match its recorded digest, or does not accept the data."""

    family = "model"


class TrainingError(XOpsError):
    """Training could not produce a model (the estimator raised, the selection is unusable)."""

    family = "training"


class GateError(XOpsError):
    """A promotion gate is closed and the caller asked for that to be an error."""

    family = "gate"
