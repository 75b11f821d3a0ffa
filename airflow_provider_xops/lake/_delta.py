"""deltalake's failures as ours.

For the rooms of the lake that open Delta tables of their own. A table must be opened in the process that uses
it: deltalake's runtime does not survive a fork.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from airflow_provider_xops.errors import ConflictError, LakeError, NotFoundError, UnavailableError

__all__ = ["delta_errors"]

_FORBIDDEN = ("403", "forbidden", "accessdenied", "access denied", "permission denied", "invalidaccesskeyid")
_UNREACHABLE = (
    "error sending request",
    "timed out",
    "timeout",
    "connection",
    "after 3 retries",
    "503",
    "500 ",
)


@contextmanager
def delta_errors(what: str) -> Iterator[None]:
    """Turn what deltalake raises inside into typed errors; ``what`` says what could not be done.

    :raises NotFoundError: ``not_found.table``.
    :raises ConflictError: ``conflict.commit``.
    :raises LakeError: ``lake.forbidden``, ``lake.delta``.
    :raises UnavailableError: ``unavailable.storage``.
    """
    try:
        yield
    except TableNotFoundError as error:
        raise NotFoundError(
            what,
            why="there is no such table or version",
            code="not_found.table",
            todo="check the name and the version",
        ) from error
    except CommitFailedError as error:
        raise ConflictError(
            what, why="another writer committed first", code="conflict.commit", todo="try again"
        ) from error
    except (DeltaError, OSError) as error:
        text = str(error).lower()
        if any(mark in text for mark in _FORBIDDEN):
            raise LakeError(
                what,
                why="the storage refused access",
                code="lake.forbidden",
                todo="check the credentials and permissions",
            ) from error
        if any(mark in text for mark in _UNREACHABLE):
            raise UnavailableError(
                what,
                why="the storage did not answer",
                code="unavailable.storage",
                todo="check the endpoint, then retry",
            ) from error
        # The text may quote values of a row: the message names the kind of failure, the cause is chained.
        raise LakeError(
            what,
            why=f"deltalake raised {type(error).__name__}",
            code="lake.delta",
            todo="see the error this one came from",
        ) from error
