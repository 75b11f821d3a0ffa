"""Both protocols: what a request means, what comes back, and that nothing of a request is ever repeated."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.serving.online.inputs import Reader
from airflow_provider_xops.serving.online.limits import Limits
from airflow_provider_xops.serving.online.prediction_log import LoggedBatch
from airflow_provider_xops.training.frames import feature_frame
from tests.unit.serving.online.edge_cases import MIXED, Desk, Noted, Sees

COLUMNS = ["distance", "carrier", "at"]
ROWS: list[list[Any]] = [[100.5, "UA", "2013-01-01T10:00:00"], [None, None, None], [-3, "Ñ", "2013-01-01"]]
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
BY_NAME = {name: [row[place] for row in ROWS] for place, name in enumerate(COLUMNS)}
TABLE = pa.table(
    {
        "distance": pa.array([100.5, None, -3.0]),
        "carrier": pa.array(["UA", None, "Ñ"]),
        "at": pa.array([1357034400000000, None, 1356998400000000], pa.timestamp("us")),
    }
)
CSV = 'distance,carrier,at\n100.5,UA,2013-01-01T10:00:00\n,,\n-3,"Ñ",2013-01-01\n'


def tensors(rows: list[list[Any]] = ROWS) -> list[dict[str, Any]]:
    kinds = ["FP64", "BYTES", "BYTES"]
    return [
        {"name": name, "shape": [len(rows)], "datatype": kinds[place], "data": [row[place] for row in rows]}
        for place, name in enumerate(COLUMNS)
    ]


FORMS = {
    "split": {"dataframe_split": {"columns": COLUMNS, "data": ROWS}},
    "split_shuffled": {
        "dataframe_split": {"columns": COLUMNS[::-1], "data": [row[::-1] for row in ROWS], "index": [4, 5, 6]}
    },
    "split_unnamed": {"dataframe_split": {"data": ROWS}},
    "records": {"dataframe_records": RECORDS},
    "instances_records": {"instances": RECORDS},
    "instances_rows": {"instances": ROWS},
    "inputs_named": {"inputs": BY_NAME},
    "inputs_rows": {"inputs": ROWS},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_makes_the_frame_that_batch_scoring_makes(form: str) -> None:
    desk = Desk(features=MIXED)
    reply = desk.ask("/invocations", FORMS[form])
    assert reply.status == 200, reply.body
    assert reply.json == {"predictions": [1, 0, 0]}
    (seen,) = desk.estimator.frames
    pd.testing.assert_frame_equal(seen, feature_frame(TABLE, COLUMNS), check_column_type=False)


def test_csv_makes_the_same_frame_too() -> None:
    desk = Desk(features=MIXED)
    for content_type in ("text/csv", "text/csv; charset=utf-8"):
        reply = desk.ask("/invocations", CSV.encode(), headers={"Content-Type": content_type})
        assert reply.json == {"predictions": [1, 0, 0]}
    for seen in desk.estimator.frames:
        pd.testing.assert_frame_equal(seen, feature_frame(TABLE, COLUMNS), check_column_type=False)


def test_v2_makes_the_same_frame_too() -> None:
    desk = Desk(features=MIXED)
    reply = desk.ask("/v2/models/late/infer", {"id": "mine", "inputs": tensors()})
    assert reply.status == 200, reply.body
    (seen,) = desk.estimator.frames
    pd.testing.assert_frame_equal(seen, feature_frame(TABLE, COLUMNS), check_column_type=False)
    content = reply.json
    assert (content["model_name"], content["model_version"], content["id"]) == ("late", "1", "mine")
    labels, probabilities = content["outputs"]
    assert labels == {"name": "predictions", "datatype": "INT64", "shape": [3], "data": [1, 0, 0]}
    assert (probabilities["shape"], probabilities["parameters"]) == ([3, 2], {"classes": [0, 1]})
    assert probabilities["data"] == [0.25, 0.75, 0.75, 0.25, 0.75, 0.25]


def test_rows_of_numbers_come_as_one_tensor_flat_or_nested() -> None:
    desk = Desk()
    for data in ([1, 2, 3, 4, 5, 6], [[1, 2], [3, 4], [5, 6]]):
        tensor = {"name": "rows", "shape": [3, 2], "datatype": "INT32", "data": data}
        assert desk.ask("/v2/models/late/infer", {"inputs": [tensor]}).status == 200
    for seen in desk.estimator.frames:
        assert seen.to_dict("list") == {"a": [1.0, 3.0, 5.0], "b": [2.0, 4.0, 6.0]}
        assert set(seen.dtypes.astype(str)) == {"float64"}


def test_columns_may_come_with_a_second_dimension_of_one() -> None:
    desk = Desk()
    inputs = [
        {"name": name, "shape": [2, 1], "datatype": "FP32", "data": data}
        for name, data in (("a", [1.0, 2.0]), ("b", [[3.0], [4.0]]))
    ]
    assert desk.ask("/v2/models/late/infer", {"inputs": inputs}).status == 200
    assert desk.estimator.frames[0].to_dict("list") == {"a": [1.0, 2.0], "b": [3.0, 4.0]}


def test_outputs_can_be_chosen() -> None:
    desk = Desk()
    tensor = {"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}
    for name in ("predictions", "probabilities"):
        reply = desk.ask("/v2/models/late/infer", {"inputs": [tensor], "outputs": [{"name": name}]})
        assert [each["name"] for each in reply.json["outputs"]] == [name]
    asked = {"dataframe_split": {"data": [[1, 2]]}, "params": {"probabilities": True}}
    assert desk.ask("/invocations", asked).json == {
        "predictions": [1], "probabilities": [[0.25, 0.75]], "classes": [0, 1]
    }  # fmt: skip


def test_classes_of_text_are_answered_as_text() -> None:
    desk = Desk(estimator=Sees(classes=["early", "late"]))
    assert desk.ask("/invocations", {"inputs": [[1, 2], [-1, 2]]}).json == {"predictions": ["late", "early"]}
    tensor = {"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}
    output = desk.ask("/v2/models/late/infer", {"inputs": [tensor]}).json["outputs"][0]
    assert output == {"name": "predictions", "datatype": "BYTES", "shape": [1], "data": ["late"]}


def test_prediction_ids_count_on_and_lead_to_the_session() -> None:
    desk = Desk()
    firsts = [
        desk.ask("/invocations", {"inputs": [[1, 2]] * rows}).headers["x-prediction-id"] for rows in (3, 2, 1)
    ]
    session = desk.site.serving[0].fleet.loaded()[0].session.record_id
    assert [each.rpartition("-")[0] for each in firsts] == [session[:24]] * 3
    assert [int(each.rpartition("-")[2]) for each in firsts] == [0, 3, 5]
    content = desk.ask(
        "/v2/models/late/infer",
        {"inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]},
    )
    assert content.json["id"] == content.headers["x-prediction-id"] == f"{session[:24]}-6"


def test_what_is_missing_from_records_is_refused_unless_it_says_null() -> None:
    desk = Desk()
    reply = desk.ask("/invocations", {"dataframe_records": [{"a": 1, "b": None}, {"a": 1}]})
    assert (reply.status, reply.json["code"]) == (400, "input.columns_missing")
    assert desk.ask("/invocations", {"dataframe_records": [{"b": None, "a": 1}]}).status == 200
    assert math.isnan(desk.estimator.frames[0]["b"][0])


def test_booleans_are_numbers_as_at_training() -> None:
    desk = Desk()
    assert desk.ask("/invocations", {"inputs": [[True, False]]}).json == {"predictions": [1]}


def test_moments_with_a_zone_become_utc() -> None:
    desk = Desk(features=MIXED)
    row = [1, "UA", "2013-01-01T10:00:00+02:00"]
    assert desk.ask("/invocations", {"inputs": [row]}).status == 200
    assert desk.estimator.frames[0]["at"].tolist() == [pd.Timestamp("2013-01-01T08:00:00")]


def test_columns_to_keep_go_to_the_log_and_not_to_the_model() -> None:
    noted = Noted()
    desk = Desk(keep=["flight", "a", "*"], log=noted)
    assert desk.ask("/invocations", {"inputs": {"a": [1], "b": [2], "flight": ["UA17"]}}).status == 200
    assert list(desk.estimator.frames[0].columns) == ["a", "b"]
    entry: LoggedBatch = noted.entries[0]
    assert list(entry.columns) == ["a", "b", "flight"]
    assert entry.columns["flight"] == ["UA17"]
    assert (entry.rows, entry.predictions.tolist(), entry.scores.tolist()) == (1, [1], [0.75])
    assert desk.ask("/invocations", {"inputs": [[1, 2]]}).status == 200
    refused = desk.ask("/invocations", {"inputs": {"a": [1], "b": [2], "flight": [{"no": 1}]}})
    assert (refused.status, refused.json["code"]) == (400, "input.columns_type")


def test_unknown_columns_are_refused_or_ignored_and_never_named() -> None:
    body = {"inputs": {"a": [1], "b": [2], "Miller-1970": ["x"]}}
    reply = Desk().ask("/invocations", body)
    assert (reply.status, reply.json["code"]) == (400, "input.columns_unknown")
    assert b"Miller" not in reply.body
    assert Desk(extra="ignore").ask("/invocations", body).status == 200


WRONG: list[tuple[str, Any, int, str]] = [
    ("no JSON", b'{"inputs": [[1, 2', 400, "input.json"),
    ("NaN", b'{"inputs": [[NaN, 2]]}', 400, "input.json"),
    ("infinite", b'{"inputs": [[1e999, 2]]}', 400, "input.json"),
    ("empty body", b"", 400, "input.json"),
    ("a list", [[1, 2]], 400, "input.shape"),
    ("nothing known", {"data": [[1, 2]]}, 400, "input.shape"),
    ("two forms", {"inputs": [[1, 2]], "instances": [[1, 2]]}, 400, "input.shape"),
    ("no rows", {"inputs": []}, 400, "input.shape"),
    ("no rows, named", {"inputs": {}}, 400, "input.shape"),
    ("ragged", {"inputs": [[1, 2], [3]]}, 400, "input.shape"),
    ("uneven columns", {"inputs": {"a": [1], "b": [1, 2]}}, 400, "input.shape"),
    ("rows of text", {"inputs": ["ab", "cd"]}, 400, "input.shape"),
    ("columns twice", {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, 400, "input.shape"),
    ("columns no names", {"dataframe_split": {"columns": [1, 2], "data": [[1, 2]]}}, 400, "input.shape"),
    ("no data", {"dataframe_split": {"columns": ["a", "b"]}}, 400, "input.shape"),
    ("a column missing", {"inputs": {"a": [1]}}, 400, "input.columns_missing"),
    ("text for a number", {"inputs": [["7.5", 2]]}, 400, "input.columns_type"),
    ("a list for a number", {"inputs": [[[1], 2]]}, 400, "input.columns_type"),
    ("too many rows", {"inputs": [[1, 2]] * 11}, 413, "limit.rows"),
    ("params", {"inputs": [[1, 2]], "params": [1]}, 400, "input.params"),
    ("probabilities", {"inputs": [[1, 2]], "params": {"probabilities": "yes"}}, 400, "input.params"),
]


@pytest.mark.parametrize(("what", "body", "status", "code"), WRONG, ids=[each[0] for each in WRONG])
def test_wrong_requests_are_refused_with_the_reason(what: str, body: Any, status: int, code: str) -> None:
    desk = Desk(limits=Limits(threads=1, rows=10))
    reply = desk.ask("/invocations", body)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert reply.json["error_code"] == "BAD_REQUEST"
    assert desk.estimator.frames == []
    assert desk.ask("/invocations", {"inputs": [[1, 2]]}).status == 200


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]} | changes


V2_WRONG: list[tuple[str, Any, int, str]] = [
    ("no JSON", b"{", 400, "input.json"),
    ("no inputs", {"id": "x"}, 400, "input.shape"),
    ("inputs no list", {"inputs": {"a": [1]}}, 400, "input.shape"),
    ("inputs of text", {"inputs": ["a"]}, 400, "input.shape"),
    ("no shape", {"inputs": [tensor(shape=None)]}, 400, "input.shape"),
    ("shape of text", {"inputs": [tensor(shape=["1", 2])]}, 400, "input.shape"),
    ("negative", {"inputs": [tensor(shape=[-1, 2])]}, 400, "input.shape"),
    ("another size", {"inputs": [tensor(shape=[2, 2])]}, 400, "input.shape"),
    ("another width", {"inputs": [tensor(shape=[2, 1])]}, 400, "input.shape"),
    ("unknown datatype", {"inputs": [tensor(datatype="FP128")]}, 400, "input.datatype"),
    ("datatype no text", {"inputs": [tensor(datatype=["FP64"])]}, 400, "input.datatype"),
    ("not of its datatype", {"inputs": [tensor(datatype="INT64", data=[1.5, 2])]}, 400, "input.datatype"),
    ("null in whole numbers", {"inputs": [tensor(datatype="INT64", data=[None, 2])]}, 400, "input.datatype"),
    ("binary", {"inputs": [tensor(parameters={"binary_data_size": 16})]}, 400, "input.binary"),
    ("odd parameters", {"inputs": [tensor(parameters=7)]}, 200, ""),
    ("nested unevenly", {"inputs": [tensor(shape=[2, 2], data=[[1, 2], 3])]}, 400, "input.shape"),
    ("no name", {"inputs": [tensor(name=None, shape=[2])]}, 400, "input.shape"),
    ("a column missing", {"inputs": [tensor(name="a", shape=[2])]}, 400, "input.columns_missing"),
    ("a name of lists", {"inputs": [tensor(name=[["a"]], shape=[2])]}, 400, "input.shape"),
    ("an id of numbers", {"inputs": [tensor()], "id": 7}, 400, "input.id"),
    ("unknown outputs", {"inputs": [tensor()], "outputs": [{"name": "x"}]}, 400, "input.outputs"),
    ("text for numbers", {"inputs": [tensor(datatype="BYTES", data=["1", "2"])]}, 400, "input.columns_type"),
    ("too many rows", {"inputs": [tensor(shape=[11, 2], data=[1] * 22)]}, 413, "limit.rows"),
    ("more than there are", {"inputs": [tensor(shape=[10**18, 2])]}, 413, "limit.rows"),
]


@pytest.mark.parametrize(("what", "body", "status", "code"), V2_WRONG, ids=[each[0] for each in V2_WRONG])
def test_wrong_v2_requests_are_refused_with_the_reason(what: str, body: Any, status: int, code: str) -> None:
    reply = Desk(limits=Limits(threads=1, rows=10)).ask("/v2/models/late/infer", body)
    assert reply.status == status, reply.body
    if code:
        assert (reply.json["code"], set(reply.json)) == (code, {"error", "code"})


def test_other_content_types_are_refused() -> None:
    reply = Desk().ask("/invocations", b"<a/>", headers={"Content-Type": "application/xml"})
    assert (reply.status, reply.json["code"]) == (415, "input.content_type")
    reply = Desk().ask("/invocations", b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert (reply.status, reply.json["code"]) == (415, "input.encoding")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a,b\n1,x\n", "input.columns_type"),
        ("a,b\n1,inf\n", "input.columns_type"),
        ("a\n1\n", "input.columns_missing"),
        ("a,b\n1\n", "input.shape"),
        ("a,a\n1,2\n", "input.shape"),
        ("a,b\n", "input.shape"),
        ("", "input.csv"),
        ('a,b\n"1,2\n', "input.csv"),
    ],
)
def test_wrong_csv_is_refused(text: str, code: str) -> None:
    reply = Desk().ask("/invocations", text.encode(), headers={"Content-Type": "text/csv"})
    assert (reply.status, reply.json["code"]) == (400, code)


def test_rows_the_model_refuses_for_missing_values_are_the_clients_affair() -> None:
    desk = Desk()
    desk.estimator.raises = ValueError("Input X contains NaN. It was 4711.")
    reply = desk.ask("/invocations", {"inputs": [[4711, None]]})
    assert (reply.status, reply.json["code"]) == (400, "input.missing_values")
    assert "b (number)" in reply.json["message"]
    assert b"4711" not in reply.body
    whole = desk.ask("/invocations", {"inputs": [[4711, 1]]})
    assert (whole.status, whole.json["code"]) == (500, "model.predict_failed")
    assert b"4711" not in whole.body


def test_a_models_failure_is_logged_as_one_row_without_prediction() -> None:
    noted = Noted()
    desk = Desk(log=noted)
    desk.estimator.raises = RuntimeError("4711")
    desk.ask("/invocations", {"inputs": [[4711, 1]]})
    (entry,) = noted.entries
    assert (entry.error, entry.predictions, entry.columns) == ("model.predict_failed", None, None)


SECRETS = st.text(st.characters(codec="utf-8", exclude_characters='\\"'), min_size=6, max_size=20).map(
    lambda text: f"§{text}§"
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SECRETS | st.integers(10**9, 10**15) | st.floats(1e6, 1e12).map(lambda number: number + 0.125),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(SECRETS, inner, max_size=2),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [
        lambda value: {"inputs": value},
        lambda value: {"instances": [value, value]},
        lambda value: {"inputs": [[1, value]]},
        lambda value: {"dataframe_records": [{"a": value, "b": 1, "c": value}]},
        lambda value: {"dataframe_split": {"columns": ["a", "b"], "data": [[value, 1], [value]]}},
        lambda value: {"dataframe_split": {"columns": [value, "b"], "data": [[1, 2]]}},
        lambda value: {"inputs": [[1, 2]], "params": value},
        lambda value: {"inputs": [{"name": value, "shape": [1, 2], "datatype": "FP64", "data": [value, 2]}]},
        lambda value: {"inputs": [{"name": "a", "shape": value, "datatype": value, "data": [1]}]},
        lambda value: {"inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": value}]},
        lambda value: {"inputs": [], "id": value, "outputs": value},
        lambda value: {"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1]}], "id": value},
        lambda value: value,
    ]
)


def leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in (key, *leaves(inner))]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value if isinstance(value, str) else json.dumps(value)]


@pytest.fixture(scope="module")
def careful() -> Desk:
    desk = Desk()
    desk.estimator.raises = None
    return desk


@given(value=VALUES, place=PLACES, broken=st.booleans(), raises=st.booleans())
@settings(max_examples=150)
def test_nothing_a_client_sent_comes_back_or_into_a_log_line(
    careful: Desk, value: Any, place: Any, broken: bool, raises: bool
) -> None:
    body = json.dumps(place(value), ensure_ascii=False).encode("utf-8", "surrogatepass")
    body = body[:-2] if broken else body
    careful.estimator.raises = ValueError(f"bad row {value}") if raises else None
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        for path in ("/invocations", "/v2/models/late/infer"):
            reply = careful.ask(path, body)
            if reply.status < 400:
                continue
            told = reply.body.decode() + str(reply.headers)
            for leaf in leaves(value):
                assert leaf not in told
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    ours = [line for line in lines if "selector" not in line]
    for leaf in leaves(value):
        assert not any(leaf in line for line in ours)


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=100)
def test_both_protocols_and_all_forms_agree_on_the_numbers(
    careful: Desk, rows: list[tuple[float | None, float | None]]
) -> None:
    careful.estimator.raises = None
    careful.estimator.frames.clear()
    data = [list(row) for row in rows]
    by_name = {name: [row[place] for row in data] for place, name in enumerate(("a", "b"))}
    for body in (
        {"dataframe_split": {"columns": ["a", "b"], "data": data}},
        {"dataframe_records": [{"b": row[1], "a": row[0]} for row in data]},
        {"inputs": by_name},
    ):
        assert careful.ask("/invocations", body).status == 200
    flat = [value for row in data for value in row]
    matrix = {"name": "rows", "shape": [len(data), 2], "datatype": "FP64", "data": flat}
    named = [
        {"name": name, "shape": [len(data)], "datatype": "FP64", "data": values}
        for name, values in by_name.items()
    ]
    for inputs in ([matrix], named):
        assert careful.ask("/v2/models/late/infer", {"inputs": inputs}).status == 200
    wanted = np.array([[np.nan if value is None else float(value) for value in row] for row in data])
    assert len(careful.estimator.frames) == 5
    for frame in careful.estimator.frames:
        np.testing.assert_array_equal(frame.to_numpy(), wanted)


@pytest.mark.parametrize("extra", ["refuse", "ignore"])
def test_of_records_no_more_columns_are_made_than_are_needed(
    monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    # Thousands of records, each with names of its own, would be millions of columns of thousands of rows.
    made: list[list[str]] = []
    by_column = Reader._by_column

    def noted(self: Reader, names: list[str], columns: Any) -> Any:
        made.append(names)
        return by_column(self, names, columns)

    monkeypatch.setattr(Reader, "_by_column", noted)
    desk = Desk(extra=extra, keep=["customer"], log=Noted())
    records = [{"a": 1, "b": 2, "customer": 7, f"other {number}": 1} for number in range(50)]
    reply = desk.ask("/invocations", {"dataframe_records": records})
    if extra == "refuse":
        assert (reply.status, reply.json["code"], made) == (400, "input.columns_unknown", [])
    else:
        assert (reply.status, made) == (200, [["a", "b", "customer"]])


def test_a_shape_of_very_many_sizes_is_not_multiplied() -> None:
    desk = Desk()
    for shape in ([], [1, 2, 1], [1, 2] + [2**62] * 1_000):
        reply = desk.ask("/v2/models/late/infer", {"inputs": [tensor(shape=shape)]})
        assert (reply.status, reply.json["code"]) == (400, "input.shape")
        assert reply.json["error"].startswith("a tensor has the shape [rows]")


def test_of_a_csv_no_more_lines_are_read_than_are_answered() -> None:
    desk = Desk(limits=Limits(threads=1, rows=10))
    # The broken line would be found if everything was read.
    text = "a,b\n" + "\n1,2" * 11 + '\n"a' * 5
    reply = desk.ask("/invocations", text.encode(), headers={"content-type": "text/csv"})
    assert (reply.status, reply.json["code"]) == (413, "limit.rows")


def test_what_a_model_could_not_answer_counts_against_its_version_and_misuse_does_not() -> None:
    desk = Desk()
    desk.ask("/invocations", {"inputs": [[1, 2]]})
    desk.ask("/invocations", {"dataframe_records": [{"a": 1}]})
    desk.estimator.raises = ValueError("no missing values, please")
    assert desk.ask("/invocations", {"inputs": [[None, 2]]}).status == 400
    figures = desk.figures.by_version("late")["1"]
    assert (figures["requests"], figures["errors"], figures["refused"]) == (3, 1, 1)
