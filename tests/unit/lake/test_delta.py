"""deltalake's failures: told apart by their text, whatever numbers the address holds."""

from __future__ import annotations

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake._delta import delta_errors

# As deltalake 1.6 words them; the addresses hold every number and word that could mislead.
GET = "Error performing GET http://127.0.0.1:40350/403-forbidden/503 in 1s"
WHAT = "cannot open table flights"


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (
            OSError(f"Kernel error -> Generic S3 error\n {GET} - HTTP error\n operation timed out"),
            "unavailable.storage",
            True,
        ),
        (
            OSError(f"Generic S3 error\n {GET}, after 3 retries - HTTP error\n error sending request"),
            "unavailable.storage",
            True,
        ),
        (
            OSError(f"{GET} - Server returned non-2xx status code\n 503 Service Unavailable"),
            "unavailable.storage",
            True,
        ),
        (
            OSError(
                f"lacked the necessary privileges to complete for path lake/503/t\n {GET}\n 403 Forbidden"
            ),
            "lake.forbidden",
            False,
        ),
        (PermissionError(13, "Permission denied"), "lake.forbidden", False),
        (
            OSError(f"{GET}\n 404 Not Found\n <Error><Code>NoSuchBucket</Code></Error>"),
            "lake.not_found",
            False,
        ),
        (TableNotFoundError("No files in log segment"), "not_found.table", False),
        (CommitFailedError("Concurrent transaction failed."), "conflict.commit", True),
        (DeltaError("Generic error: row ('Jane Doe', 403, 503) is bad"), "lake.delta", False),
    ],
)
def test_a_failure_is_typed_by_what_it_says_and_repeats_nothing_of_it(
    error: Exception, code: str, retryable: bool
) -> None:
    with pytest.raises(XOpsError) as caught, delta_errors(WHAT):
        raise error

    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert caught.value.what == WHAT
    assert caught.value.todo
    assert caught.value.__cause__ is error
    assert "Jane" not in str(caught.value)


def test_a_table_that_is_not_there_is_not_found(tmp_path: object) -> None:
    with pytest.raises(XOpsError) as caught, delta_errors(WHAT):
        DeltaTable(f"{tmp_path}/none")

    assert caught.value.code == "not_found.table"


def test_other_errors_and_ours_pass_through() -> None:
    with pytest.raises(KeyError), delta_errors(WHAT):
        raise KeyError("x")
