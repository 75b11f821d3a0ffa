"""deltalake's failures as ours.

For the rooms of the lake that open Delta tables of their own. A table must be opened in the process that uses
it: deltalake's runtime does not survive a fork.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from airflow_provider_xops.errors import ConflictError, LakeError, NotFoundError, UnavailableError

__all__ = ["delta_errors"]

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
