"""What goes back to a client: predictions and refusals, in the shape of the protocol that was asked in.

For the handlers of both protocols. A refusal's text is made of what the server knows (column names of the
model, limits, counts) and never of anything the client sent, because answers end up in other people's logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from airflow_provider_xops.training.metrics import Predictions

__all__ = ["JSON", "Answer", "Protocol", "Refusal", "encode", "labels_of", "refuse"]

Protocol = Literal["mlflow", "v2"]
Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
# MLflow's error codes, which its clients know, by status.
_MLFLOW_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "BAD_REQUEST",
    408: "BAD_REQUEST",
    409: "RESOURCE_CONFLICT",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    429: "RESOURCE_EXHAUSTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}


class Refusal(Exception):
    """A request that is not answered with predictions.

    :param code: stable cause for programs (``input.columns_missing``). :param message: for people; holds
        nothing the client sent. :param headers: further headers of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        #: the version that was to answer, and its role, once they are known
        self.version = self.variant = ""
        #: the model was asked and could not answer
        self.failed = False
        self.headers: tuple[Header, ...] = tuple(
            (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, and what the figures want to know of it.

    :param rows: how many rows were predicted. :param variant: the role of the version that answered.
    :param failed: the model was asked and could not answer, or not with finite numbers only.
    """

    status: int
    body: bytes
    headers: Sequence[Header] = (JSON,)
    model: str = ""
    version: str = ""
    variant: str = ""
    rows: int = 0
    failed: bool = False


def encode(content: Any) -> bytes:
    """JSON; NumPy arrays as lists, NaN and infinities as null.

    >>> encode({"predictions": np.array([1.5, np.nan])})
    b'{"predictions":[1.5,null]}'
    """
    return orjson.dumps(content, default=_plain, option=_OPTIONS)


def labels_of(said: Predictions) -> Any:
    """The predicted classes as they are; predicted numbers as an array of numbers, where they can be one.

    >>> labels_of(Predictions(labels=np.array([1, None], dtype=object)))
    array([ 1., nan])
    """
    if said.classes is None and said.labels.dtype.kind == "O":
        try:
            return said.labels.astype(np.float64)
        except (TypeError, ValueError):
            # A model of another kind, which answers with text.
            return said.labels
    return said.labels


def refuse(refusal: Refusal, protocol: Protocol) -> Answer:
    """The answer to a refused request: MLflow's error object, or V2's."""
    content: dict[str, Any] = {"code": refusal.code}
    if protocol == "v2":
        content = {"error": refusal.message, **content}
    else:
        name = _MLFLOW_CODES.get(refusal.status, "INTERNAL_ERROR")
        content = {"error_code": name, "message": refusal.message, **content}
    return Answer(
        refusal.status,
        encode(content),
        (JSON, *refusal.headers),
        version=refusal.version,
        variant=refusal.variant,
        failed=refusal.failed,
    )


def _plain(value: Any) -> Any:
    """What orjson does not know by itself: arrays of text and of Python objects, and NumPy's own scalars."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
