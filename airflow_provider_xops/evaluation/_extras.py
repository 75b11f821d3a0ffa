"""Libraries that come with an extra: asked for where they are used, with the extra's name in the error.

Private to evaluation.
"""

from __future__ import annotations

from importlib import util

from airflow_provider_xops.errors import ArgumentError

__all__ = ["has", "needs"]


def has(library: str) -> bool:
    """Whether the library is installed; it is not imported."""
    return util.find_spec(library) is not None


def needs(library: str, *, extra: str, what: str) -> None:
    """Refuse to go on without a library.

    :raises ArgumentError: ``argument.extra_missing``, naming the extra.
    """
    if not has(library):
        raise ArgumentError(
            f"{what} need {library}, which is not installed", code="argument.extra_missing",
            todo=f'pip install "airflow-provider-xops[{extra}]"',
        )  # fmt: skip
