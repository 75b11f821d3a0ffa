"""deltalake's failures as ours.

For the rooms of the lake that open Delta tables of their own. A table must be opened in the process that uses
it: deltalake's runtime does not survive a fork.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from airflow_provider_xops.errors import ConflictError, LakeError, NotFoundError, UnavailableError

__all__ = ["delta_errors", "read_errors", "typed_batches"]

# deltalake raises the same classes for all of these; only the text tells them apart. Addresses are cut out
# first: a port or a path may hold any number.
_ADDRESS = re.compile(r"https?://\S+|for path \S+")
_FORBIDDEN = re.compile(
    r"401 unauthorized|403 forbidden|necessary privileges|permission denied|<code>accessdenied"
)
_NO_BUCKET = re.compile(r"<code>nosuchbucket")
_UNREACHABLE = re.compile(
    r"http error|error sending request|timed out|connection (refused|reset|closed)"
    r"|\b5\d\d (internal|bad|service|gateway)|429 too many|slowdown"
)


@contextmanager
def delta_errors(what: str) -> Iterator[None]:
    """Turn what deltalake raises inside into typed errors; ``what`` says what could not be done.

    :raises NotFoundError: ``not_found.table``.
    :raises ConflictError: ``conflict.commit``.
    :raises LakeError: ``lake.forbidden``, ``lake.not_found`` (no such bucket), ``lake.delta``.
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
        text = _ADDRESS.sub("", str(error)).lower()
        if _FORBIDDEN.search(text):
            raise LakeError(
                what,
                why="the storage refused access",
                code="lake.forbidden",
                todo="check the credentials and permissions",
            ) from error
        if _NO_BUCKET.search(text):
            raise LakeError(
                what,
                why="the bucket does not exist",
                code="lake.not_found",
                todo="create the bucket, or correct the lake's URI",
            ) from error
        if _UNREACHABLE.search(text):
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


@contextmanager
def read_errors(what: str) -> Iterator[None]:
    """Turn what Arrow raises while it reads data files into typed errors.

    :raises LakeError: ``lake.missing_file`` (vacuumed, or removed by hand), ``lake.damaged_file``.
    :raises UnavailableError, LakeError: as :func:`delta_errors`, for the storage's own failures.
    """
    try:
        with delta_errors(what):
            try:
                yield
            except FileNotFoundError as error:
                raise LakeError(
                    what,
                    why="one of its data files is not there: it was vacuumed, or removed by hand",
                    code="lake.missing_file",
                    todo="name a newer version; pin versions that must stay readable",
                ) from error
    except pa.ArrowException as error:
        # Not chained: Arrow's text may quote what it could not decode.
        raise LakeError(
            what,
            why=f"one of its data files cannot be decoded ({type(error).__name__})",
            code="lake.damaged_file",
            todo="run `xops lake verify` to see which, and restore it",
        ) from None


def typed_batches(batches: Iterable[Any], what: str) -> Iterator[Any]:
    """``batches``, with the failures of reading them typed; the consumer's own are left alone."""
    iterator = iter(batches)
    while True:
        with read_errors(what):
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch
