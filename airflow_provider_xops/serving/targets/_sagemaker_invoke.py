"""One request to a SageMaker endpoint, and who answered it.

For the SageMaker target. A container's error texts quote the rows: of a refusal only the status is kept.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.serving._smoke_requests import as_request
from airflow_provider_xops.serving.targets._sagemaker_aws import Clients
from airflow_provider_xops.serving.targets._sagemaker_parts import predictions_of, version_of
from airflow_provider_xops.serving.targets.base import Answer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["invoke"]


def invoke(clients: Clients, endpoint: str, frame: pd.DataFrame, *, variant: str | None) -> Answer:
    """Ask for predictions.

    :param variant: exactly this one; None: by the weights.
    :raises UnavailableError: ``unavailable.aws``: nobody answered.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    target = {"TargetVariant": variant} if variant is not None else {}
    begin = time.perf_counter()
    try:
        found = clients.runtime.invoke_endpoint(
            EndpointName=endpoint,
            ContentType="application/json",
            Accept="application/json",
            Body=as_request(frame),
            **target,
        )
        body = found["Body"].read()
    except ClientError as error:
        response = error.response
        status = response.get("OriginalStatusCode") or response["ResponseMetadata"].get("HTTPStatusCode", 500)
        if int(status) in (429, 502, 503, 504):
            raise _unanswered(endpoint, f"it answered with {status}") from None
        return Answer(replica=endpoint, status=int(status), seconds=time.perf_counter() - begin)
    except (BotoCoreError, OSError) as error:
        raise _unanswered(endpoint, type(error).__name__) from None
    return Answer(
        replica=endpoint,
        status=200,
        seconds=time.perf_counter() - begin,
        version=version_of(str(found.get("InvokedProductionVariant", ""))),
        predictions=predictions_of(body),
    )


def _unanswered(endpoint: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"the SageMaker endpoint {endpoint} did not answer",
        code="unavailable.aws",
        why=why,
        todo="look at the endpoint's log in CloudWatch",
    )
