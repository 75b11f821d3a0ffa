"""Rows to requests, answers against the record, and a server that does not answer."""

from __future__ import annotations

import json
import math
import socket
import string
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import GoldenPredictions
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.serving import _smoke_environment
from airflow_provider_xops.serving._smoke_child import folder_digest
from airflow_provider_xops.serving._smoke_requests import (
    Client,
    TimeUp,
    as_request,
    compare_labels,
    compare_scores,
)
from airflow_provider_xops.training.metrics import Task


def decoded(frame: pd.DataFrame) -> pd.DataFrame:
    """What MLflow's own parser makes of a request."""
    from mlflow.pyfunc.scoring_server import _split_data_and_params, infer_and_parse_data  # type: ignore[attr-defined]

    data, _ = _split_data_and_params(as_request(frame).decode())
    return infer_and_parse_data(data)


@given(st.lists(st.floats(allow_infinity=False, allow_nan=True), min_size=1, max_size=20))
def test_numbers_arrive_to_the_last_bit(values: list[float]) -> None:
    body = json.loads(as_request(pd.DataFrame({"x": values})))["dataframe_split"]
    assert body["columns"] == ["x"]
    arrived = [math.nan if row[0] is None else row[0] for row in body["data"]]
    assert np.array_equal(np.array(arrived, dtype=float), np.array(values), equal_nan=True)


def test_text_moments_and_gaps_arrive() -> None:
    moments = pd.to_datetime(["2013-01-01T05:00:00.123456", None]).tz_localize("America/New_York")
    frame = pd.DataFrame(
        {"x": [0.1, np.nan], "c": pd.Series(['Ñandú "x"', np.nan], dtype=object), "at": moments}
    )
    arrived = decoded(frame)
    assert list(arrived.columns) == ["x", "c", "at"]
    assert arrived["x"][0] == 0.1
    assert arrived["c"][0] == 'Ñandú "x"'
    # MLflow's schemas have no zones: the moment goes as UTC.
    assert arrived["at"][0] == "2013-01-01T10:00:00.123456"
    assert arrived.iloc[1].isna().all()


GOLDEN = GoldenPredictions(
    rows=(0, 1), labels=("0", "'UA'"), classes=("0", "'UA'"), scores=((0.75, 0.25), (0.1, 0.9))
)


def test_classes_are_compared_with_their_type() -> None:
    same = compare_labels(Task.CLASSIFICATION, GOLDEN, [1, 0], ["UA", 0])
    assert (same.different, same.apart) == (0, 0.0)
    for other in ([0, "DL"], ["0", "UA"], [0.0, "UA"], [False, "UA"]):
        assert compare_labels(Task.CLASSIFICATION, GOLDEN, [0, 1], other).apart == 1.0


@pytest.mark.parametrize(
    "said", [[[0.75, 0.25]], [0.75, 0.1], [["x", "y"], [0.1, 0.9]], [[None, 0.25], [0.1, 0.9]], []]
)
def test_what_is_no_number_or_of_another_shape_never_passes(said: list[object]) -> None:
    assert compare_scores(GOLDEN, said).apart is None


def test_numbers_are_apart_absolutely_up_to_1_and_relatively_beyond() -> None:
    golden = GoldenPredictions(rows=(0, 1, 2), labels=("0.5", "-2000000.0", "nan"))
    assert compare_labels(Task.REGRESSION, golden, [0], [0.25]).apart == 0.25
    found = compare_labels(Task.REGRESSION, golden, [0, 1], [0.5, -1000000.0])
    assert (found.different, found.apart) == (1, 0.5)
    assert compare_labels(Task.REGRESSION, golden, [2], [float("nan")]).apart is None


@given(
    st.dictionaries(
        st.lists(st.text(string.ascii_letters + " .-_é", min_size=1, max_size=5), min_size=1, max_size=3)
        .map("/".join)
        .filter(
            lambda name: not any(part.strip(".") == "" or part != part.strip() for part in name.split("/"))
        ),
        st.binary(max_size=50),
        min_size=1,
        max_size=5,
    )
)
def test_the_process_that_loads_computes_the_registrys_digest(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("model")
    for name, content in files.items():
        path = folder / name
        if any(parent.is_file() for parent in path.parents) or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "registered_model_meta").write_text("MLflow's own")
    assert folder_digest(str(folder)) == artifact_digest(folder)


@pytest.fixture
def silent() -> Iterator[int]:
    """A server that accepts and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_server_that_never_answers_is_not_waited_for_beyond_the_deadline(silent: int) -> None:
    client = Client(silent, deadline=time.monotonic() + 0.3)
    for _ in range(2):
        with pytest.raises(TimeUp):
            client.post("/invocations", b"{}")
    with pytest.raises(TimeUp):
        client.ping()


def test_an_answer_that_is_no_json_has_no_predictions() -> None:
    class Odd(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"oops")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(server.server_port, deadline=time.monotonic() + 20)
    try:
        answer = client.post("/invocations", b"{}")
    finally:
        client.close()
        server.shutdown()
        server.server_close()
    assert (answer.status, answer.predictions) == (200, None)
    with pytest.raises(OSError, match="ConnectionRefusedError"):
        client.ping()


def test_without_uv_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_smoke_environment.shutil, "which", lambda _: None)
    monkeypatch.setattr(_smoke_environment.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ArgumentError) as caught:
        _smoke_environment.uv_command()
    assert caught.value.code == "argument.extra_missing"
    assert "pip install uv" in caught.value.todo


def test_a_model_without_requirements_has_no_recorded_environment(tmp_path: Path) -> None:
    with pytest.raises(_smoke_environment.NotBuilt, match="no requirements"):
        _smoke_environment.build_environment(tmp_path, tmp_path, python=None, seconds=5)
