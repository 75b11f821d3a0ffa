"""MLflow's scoring protocol: ``POST /invocations`` as ``mlflow models serve`` and SageMaker take it.

JSON with one of ``dataframe_split``, ``dataframe_records``, ``instances``, ``inputs``; or CSV with a header.
Answers ``{"predictions": [...]}``, one class or number a row. Beside MLflow's own, ``"params":
{"probabilities": true}`` adds the probability of each class, in the order of ``classes``. A number that is
NaN or infinite is answered as ``null``, where MLflow's own server writes ``NaN``, which is not JSON.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from typing import Any

import orjson

from airflow_provider_xops.serving.online.answers import Refusal
from airflow_provider_xops.serving.online.inputs import Inputs, Reader
from airflow_provider_xops.serving.online.variants import FeatureKind as Kind
from airflow_provider_xops.training.metrics import Predictions

__all__ = ["Question", "answer", "parse", "read"]

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_TAKEN = ", ".join(FORMS)


class Question:
    """A request that is JSON of one of the forms, or a text of CSV."""

    __slots__ = ("content", "form", "probabilities")

    def __init__(self, form: str, content: Any, probabilities: bool = False) -> None:
        self.form = form
        self.content = content
        self.probabilities = probabilities


def parse(body: bytes, content_type: str) -> Question:
    """The question in a request's body.

    :param content_type: the header's value; empty counts as JSON.
    :raises Refusal: 415 for another type, 400 for what cannot be read.
    """
    kind = content_type.partition(";")[0].strip().lower() or "application/json"
    if kind == "text/csv":
        try:
            return Question("csv", body.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise Refusal(400, "input.encoding", "the CSV is not UTF-8") from None
    if kind != "application/json":
        raise Refusal(415, "input.content_type", "send application/json or text/csv")
    content = json_object(body)
    forms = [form for form in FORMS if form in content]
    if len(forms) != 1:
        raise Refusal(400, "input.shape", f"the request needs exactly one of {_TAKEN}")
    params = content.get("params")
    if params is not None and type(params) is not dict:
        raise Refusal(400, "input.params", "params is not an object")
    asked = (params or {}).get("probabilities", False)
    if type(asked) is not bool:
        raise Refusal(400, "input.params", "params.probabilities is true or false")
    return Question(forms[0], content[forms[0]], asked)


def read(question: Question, reader: Reader) -> Inputs:
    """The rows that are asked about.

    :raises Refusal: 400 or 413, naming the model's columns and no value.
    """
    content = question.content
    if question.form == "dataframe_split":
        if type(content) is not dict or "data" not in content:
            raise Refusal(400, "input.shape", "dataframe_split needs columns and data")
        if "columns" not in content:
            return reader.unnamed(content["data"])
        return reader.rows(content["columns"], content["data"])
    if question.form == "dataframe_records":
        return reader.records(content)
    if question.form == "inputs" and type(content) is dict:
        return reader.by_name(content)
    if question.form == "csv":
        return _csv(content, reader)
    if type(content) is list and content and type(content[0]) is dict:
        return reader.records(content)
    return reader.unnamed(content)


def answer(question: Question, said: Predictions) -> dict[str, Any]:
    """What MLflow's clients expect, as content for JSON.

    :raises Refusal: 400 where probabilities are asked of a model that gives none.
    """
    content: dict[str, Any] = {"predictions": said.labels}
    if question.probabilities:
        if said.probabilities is None:
            raise Refusal(400, "input.params", "this model gives no probabilities")
        content |= {"probabilities": said.probabilities, "classes": said.classes}
    return content


def json_object(body: bytes) -> dict[str, Any]:
    """A JSON object, told without its content when it is none.

    :raises Refusal: 400.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        # The decoder's own message may quote the text.
        raise Refusal(
            400, "input.json", "the body is not JSON (NaN and Infinity are not: write null for missing)"
        ) from None
    if type(content) is not dict:
        raise Refusal(400, "input.shape", f"the body is not a JSON object with one of {_TAKEN}")
    return content


def _csv(text: str, reader: Reader) -> Inputs:
    lines = (line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line)
    try:
        # No more than one row too many: millions of short lines would take a hundred times their size.
        taken = list(itertools.islice(lines, reader.most + 2))
    except csv.Error:
        raise Refusal(400, "input.csv", "the CSV cannot be read") from None
    if not taken:
        raise Refusal(400, "input.csv", "the CSV has no header")
    header, *rows = taken
    if len(rows) > reader.most:
        raise Refusal(413, "limit.rows", f"at most {reader.most} rows are answered at a time")
    if any(len(row) != len(header) for row in rows):
        raise Refusal(400, "input.shape", "a row has another number of values than there are columns")
    kinds = dict(zip(reader.columns.names, reader.columns.kinds, strict=True))
    columns: dict[str, list[Any]] = {}
    for place, name in enumerate(header):
        if name in columns:
            raise Refusal(400, "input.shape", "a column is named twice")
        values = [row[place] or None for row in rows]
        columns[name] = _typed(values, kinds.get(name, Kind.TEXT))
    return reader.by_name(columns)


def _typed(values: list[str | None], kind: Kind) -> list[Any]:
    """CSV has text only: what belongs into a column of numbers becomes numbers, if all of it can."""
    if kind not in (Kind.NUMBER, Kind.ANY):
        return values
    try:
        numbers = [None if value is None else float(value) for value in values]
    except ValueError:
        return values
    if any(number is not None and math.isinf(number) for number in numbers):
        return values
    return numbers
