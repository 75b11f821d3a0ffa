"""The Open Inference Protocol, version 2, over HTTP: ``/v2/models/NAME/infer`` and what belongs to it.

A request names tensors: one for each feature, of shape ``[rows]`` or ``[rows, 1]``; or a single one of shape
``[rows, features]`` in the order of the features. Data are row-major, flat or nested. ``null`` in a floating
or text tensor is a missing value. The answer has the tensors ``predictions`` and, of a classifier,
``probabilities`` (one column a class, the classes in its parameter ``classes``); ``outputs`` in the request
chooses among them. A number that is NaN or infinite is ``null`` there, too.

What it does not do: the binary tensor extension, shared memory, and gRPC.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from airflow_provider_xops.serving.online.answers import Refusal, labels_of
from airflow_provider_xops.serving.online.inputs import Columns, Inputs, Reader
from airflow_provider_xops.serving.online.protocol_mlflow import json_object
from airflow_provider_xops.serving.online.variants import FeatureKind as Kind
from airflow_provider_xops.training.metrics import Predictions

__all__ = ["PREDICTIONS", "PROBABILITIES", "Question", "answer", "metadata", "parse", "read"]

PREDICTIONS = "predictions"
PROBABILITIES = "probabilities"
_MOST_ID = 256

# What a datatype holds, and whether its values may be missing.
_INTEGERS = {"UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"}
_FLOATS = {"FP16", "FP32", "FP64"}
_ALLOWED: dict[str, set[type]] = {
    "BOOL": {bool},
    "BYTES": {str, type(None)},
    **{name: {int} for name in _INTEGERS},
    **{name: {int, float, type(None)} for name in _FLOATS},
}
_DATATYPES = {Kind.NUMBER: "FP64", Kind.TEXT: "BYTES", Kind.TIME: "BYTES", Kind.ANY: "BYTES"}


@dataclass(frozen=True, slots=True)
class Question:
    """A request, read but not yet held against a model.

    :param id: the client's own id of it, given back. :param outputs: names of the tensors it wants.
    """

    tensors: list[dict[str, Any]]
    id: str | None
    outputs: tuple[str, ...]


def parse(body: bytes) -> Question:
    """The question in a request's body.

    :raises Refusal: 400.
    """
    content = json_object(body)
    tensors = content.get("inputs")
    if type(tensors) is not list or not tensors or any(type(each) is not dict for each in tensors):
        raise _shape("inputs is not a list of tensors")
    own = content.get("id")
    if own is not None and (type(own) is not str or len(own) > _MOST_ID):
        raise Refusal(400, "input.id", f"id is text of at most {_MOST_ID} characters")
    wanted = content.get("outputs")
    if wanted is None:
        return Question(tensors, own, ())
    if type(wanted) is not list or any(type(each) is not dict for each in wanted):
        raise _shape("outputs is not a list of objects with a name")
    names = tuple(each.get("name") for each in wanted)
    if any(name not in (PREDICTIONS, PROBABILITIES) for name in names):
        raise Refusal(400, "input.outputs", f"the outputs are {PREDICTIONS} and {PROBABILITIES}")
    return Question(tensors, own, names)


def read(question: Question, reader: Reader) -> Inputs:
    """The rows that are asked about.

    :raises Refusal: 400 or 413, naming the model's columns and no value.
    """
    tensors = question.tensors
    if len(tensors) == 1:
        name, shape = tensors[0].get("name"), tensors[0].get("shape")
        named = type(name) is str and name in reader.columns.places
        if type(shape) is list and len(shape) == 2 and not named:
            return _matrix(tensors[0], reader)
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        name = tensor.get("name")
        if type(name) is not str:
            raise _shape("a tensor has no name")
        if name in columns:
            raise _shape("two tensors have the same name")
        shape, values = _values(tensor, reader)
        if shape[1:] not in ([], [1]):
            raise _shape(
                f"a column has the shape [rows] or [rows, 1]; the model takes {reader.columns.told()}"
            )
        columns[name] = values
    return reader.by_name(columns)


def answer(
    question: Question, said: Predictions, *, model: str, version: int, prediction_id: str
) -> dict[str, Any]:
    """The response, as content for JSON.

    :raises Refusal: 400 where probabilities are asked of a model that gives none.
    """
    wanted = question.outputs
    if PROBABILITIES in wanted and said.probabilities is None:
        raise Refusal(400, "input.outputs", "this model gives no probabilities")
    outputs = []
    if not wanted or PREDICTIONS in wanted:
        outputs.append(_tensor(PREDICTIONS, labels_of(said)))
    if said.probabilities is not None and (not wanted or PROBABILITIES in wanted):
        made = _tensor(PROBABILITIES, said.probabilities)
        outputs.append({**made, "parameters": {"classes": said.classes}})
    return {
        "model_name": model,
        "model_version": str(version),
        "id": question.id if question.id is not None else prediction_id,
        "parameters": {"prediction_id": prediction_id},
        "outputs": outputs,
    }


def metadata(
    name: str, versions: Sequence[int], columns: Columns, classes: Sequence[Any] | None
) -> dict[str, Any]:
    """What ``GET /v2/models/NAME`` says: the model's tensors."""
    outputs = [{"name": PREDICTIONS, "datatype": _datatype_of_labels(classes), "shape": [-1]}]
    if classes is not None:
        outputs.append({"name": PROBABILITIES, "datatype": "FP64", "shape": [-1, len(classes)]})
    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": "xops",
        "inputs": [
            {"name": column, "datatype": _DATATYPES[kind], "shape": [-1]}
            for column, kind in zip(columns.names, columns.kinds, strict=True)
        ],
        "outputs": outputs,
    }


def _matrix(tensor: dict[str, Any], reader: Reader) -> Inputs:
    shape, values = _values(tensor, reader)
    rows, width = shape
    if width != len(reader.columns.names):
        raise _shape(f"the model takes {len(reader.columns.names)} columns: {reader.columns.told()}")
    if tensor["datatype"] != "BYTES" and reader.columns.all_numbers:
        return reader.matrix(np.array(values, dtype=np.float64).reshape(rows, width))
    return reader.unnamed([values[start : start + width] for start in range(0, len(values), width)])


def _values(tensor: dict[str, Any], reader: Reader) -> tuple[list[int], list[Any]]:
    """The shape, and the values in one flat list, held against shape and datatype."""
    parameters = tensor.get("parameters")
    if type(parameters) is dict and "binary_data_size" in parameters:
        raise Refusal(400, "input.binary", "binary tensors are not taken: send the data as JSON")
    shape, data, datatype = tensor.get("shape"), tensor.get("data"), tensor.get("datatype")
    if type(shape) is not list or any(type(size) is not int or size < 0 for size in shape):
        raise _shape("a tensor's shape is a list of whole numbers")
    if not 1 <= len(shape) <= 2:
        # Before anything is multiplied: the product of very many numbers takes minutes.
        raise _shape(
            f"a tensor has the shape [rows], or [rows, columns]; the model takes {reader.columns.told()}"
        )
    allowed = _ALLOWED.get(datatype) if type(datatype) is str else None
    if allowed is None:
        raise Refusal(400, "input.datatype", f"a tensor's datatype is one of {', '.join(_ALLOWED)}")
    if type(data) is not list:
        raise _shape("a tensor's data are not a list")
    if shape and shape[0] > reader.most:
        raise Refusal(413, "limit.rows", f"at most {reader.most} rows are answered at a time")
    flat = data
    for _ in shape[1:]:
        if not flat or type(flat[0]) is not list:
            break
        if set(map(type, flat)) != {list}:
            raise _shape("a tensor's data are nested unevenly")
        flat = list(itertools.chain.from_iterable(flat))
    if len(flat) != math.prod(shape):
        raise _shape("a tensor has another number of values than its shape says")
    if not set(map(type, flat)) <= allowed:
        raise Refusal(400, "input.datatype", "a tensor holds values of another kind than its datatype says")
    return shape, flat


def _tensor(name: str, values: Any) -> dict[str, Any]:
    array = np.asarray(values)
    kind = array.dtype.kind
    datatype = {"i": "INT64", "u": "UINT64", "f": "FP64", "b": "BOOL"}.get(kind, "BYTES")
    if kind not in "iufb":
        # Classes of one type in an object array are what they are: scikit-learn keeps text so.
        array = np.array([str(value) for value in array.ravel()], dtype=object).reshape(array.shape)
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape),
        "data": array.ravel() if array.dtype != object else array.ravel().tolist(),
    }


def _datatype_of_labels(classes: Sequence[Any] | None) -> str:
    return "FP64" if classes is None else str(_tensor("", np.asarray(classes))["datatype"])


def _shape(message: str) -> Refusal:
    return Refusal(400, "input.shape", message)
