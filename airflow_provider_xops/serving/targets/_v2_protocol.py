"""Rows as a request of the Open Inference Protocol (V2), and predictions out of its answer.

For the V2 target. Each feature is a tensor of its own, as MLServer's MLflow runtime wants it: numbers are
``FP64`` with null where missing, text is ``BYTES`` with null where missing, times are ``BYTES`` in ISO 8601.
What an answer says beside the predictions is not looked at: error texts of model servers quote the rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_infer_request", "predictions_of"]


def as_infer_request(frame: pd.DataFrame) -> dict[str, Any]:
    """The rows as the body of ``POST .../infer``.

    :param frame: features as :func:`~airflow_provider_xops.training.frames.feature_frame` makes them.
    :raises DataError: ``data.v2_value``: a time is missing, or a number is infinite, which the protocol's
        JSON cannot say.

    >>> import pandas as pd
    >>> as_infer_request(pd.DataFrame({"x": [0.5, None]}))["inputs"]
    [{'name': 'x', 'shape': [2], 'datatype': 'FP64', 'data': [0.5, None]}]
    """
    inputs = [_tensor(str(name), frame[name]) for name in frame.columns]
    return {"parameters": {"content_type": "pd"}, "inputs": inputs}


def predictions_of(content: Any) -> list[Any] | None:
    """The predictions in an answer, one a row; None where it has none that can be read.

    >>> predictions_of({"outputs": [{"name": "y", "shape": [2, 1], "datatype": "INT64", "data": [0, 1]}]})
    [0, 1]
    """
    try:
        (output,) = content["outputs"]
        shape, data = [int(size) for size in output["shape"]], list(output["data"])
    except (KeyError, TypeError, ValueError):
        return None
    if not shape or math.prod(shape) != len(data):
        return None
    if str(output.get("datatype", "")).startswith("FP"):
        # Null is how NaN travels.
        data = [math.nan if value is None else float(value) for value in data]
    width = math.prod(shape[1:])
    return data if width == 1 else [data[start : start + width] for start in range(0, len(data), width)]


def _tensor(name: str, column: pd.Series) -> dict[str, Any]:
    missing = column.isna().to_numpy()
    if column.dtype.kind == "M":
        if missing.any():
            raise _unsayable(name, "a time is missing")
        # MLflow's schemas know times without a zone only: moments go as UTC.
        column = column if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
        return _input(name, "BYTES", [value.isoformat() for value in column], codec="datetime")
    values = [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]
    if column.dtype.kind in "fiub":
        numbers = [None if value is None else float(value) for value in values]
        if any(value is not None and math.isinf(value) for value in numbers):
            raise _unsayable(name, "a number is infinite")
        return _input(name, "FP64", numbers)
    return _input(name, "BYTES", values, codec="str")


def _input(name: str, datatype: str, data: list[Any], *, codec: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}
    return made | ({"parameters": {"content_type": codec}} if codec else {})


def _unsayable(name: str, why: str) -> DataError:
    return DataError(
        f"column {name} cannot be sent to a V2 server",
        code="data.v2_value",
        why=f"{why}, which the protocol's JSON has no word for",
        todo="have the model take another feature, or deploy without golden requests",
    )
