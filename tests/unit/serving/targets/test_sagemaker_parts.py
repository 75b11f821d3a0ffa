"""Names, archives and answers of SageMaker endpoints."""

from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving.targets import _sagemaker_parts as parts
from airflow_provider_xops.serving.targets._sagemaker_parts import (
    Names,
    SageMakerSettings,
    variant_of,
    version_of,
)
from tests.unit.registry.builders import a_model
from tests.unit.serving.targets.builders import a_deployment

GOOD: dict[str, Any] = {
    "endpoint": "late-arrival",
    "image_uri": "images/mlflow-pyfunc:3",
    "role_arn": "arn:aws:iam::123456789012:role/serving",
    "model_data": "s3://models/xops",
}
# SageMaker's own pattern of names.
NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
endpoints = st.from_regex(r"\A[a-zA-Z0-9](-?[a-zA-Z0-9]){0,31}\Z")


@given(endpoints, st.integers(1, 10**6), st.text(max_size=60))
def test_every_name_is_one_that_sagemaker_takes(endpoint: str, version: int, model_name: str) -> None:
    names = Names(endpoint)
    model = a_model(version, name=model_name or "m")
    deployment = a_deployment(model, target="sagemaker", endpoint=endpoint)
    settings = SageMakerSettings(**(GOOD | {"endpoint": endpoint}))
    made = [names.model(model, settings), variant_of(model)]
    made += [names.config(deployment, stage) for stage in ("both", "alone", "back", "shadow-1000000")]
    assert all(NAME.fullmatch(name) for name in made)
    assert version_of(variant_of(model)) == version
    assert all(names.is_of(name, deployment) for name in made[2:])


@given(endpoints, endpoints)
def test_no_endpoint_takes_anothers_things_for_its_own(one: str, other: str) -> None:
    if one != other:
        assert not Names(one).prefix.startswith(Names(other).prefix)


def test_a_version_in_another_container_is_another_model() -> None:
    names, model = Names("late-arrival"), a_model(3)
    changes: list[dict[str, Any]] = [
        {}, {"image_uri": "images/other"}, {"environment": {"A": "1"}}, {"model_data": "s3://other"},
    ]  # fmt: skip
    made = {names.model(model, SageMakerSettings(**(GOOD | change))) for change in changes}
    assert len(made) == len(changes)


def test_a_recreated_version_is_another_variant() -> None:
    assert variant_of(a_model(3, created_at_ms=1)) != variant_of(a_model(3, created_at_ms=2))


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": ""}, {"endpoint": "late_arrival"}, {"endpoint": "a" * 64}, {"image_uri": ""},
        {"role_arn": "serving"}, {"model_data": "/models"}, {"model_data": "s3://"}, {"instance_count": 0},
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as refused:
        SageMakerSettings(**(GOOD | change))
    assert refused.value.code == "argument.sagemaker"


def test_an_environment_with_secrets_does_not_show() -> None:
    assert "hidden" not in repr(SageMakerSettings(**GOOD, environment={"TOKEN": "hidden"}))


def test_the_same_files_give_the_same_archive_whenever_they_were_written(tmp_path: Path) -> None:
    archives = []
    for moment in (1_000_000_000, 1_600_000_000):
        folder = tmp_path / str(moment)
        (folder / "data").mkdir(parents=True)
        for name in ("MLmodel", "data/b", "data/a"):
            (folder / name).write_bytes(name.encode())
            os.utime(folder / name, (moment, moment))
        stream = io.BytesIO()
        parts._pack(folder, stream)
        archives.append(stream.getvalue())
    assert archives[0] == archives[1]
    with tarfile.open(fileobj=io.BytesIO(archives[0])) as archive:
        assert archive.getnames() == ["MLmodel", "data/a", "data/b"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"predictions": ["late", "ok"]}', ["late", "ok"]),
        (b'{"predictions": [{"y": 1.5}, {"y": 2}]}', [1.5, 2]),
        (b'{"predictions": [[0.1, 0.9]]}', [[0.1, 0.9]]),
        (b'{"predictions": "late"}', None),
        (b"[1, 2]", None),
        (b"", None),
    ],
)
def test_predictions_of_mlflows_container(body: bytes, expected: Any) -> None:
    assert parts.predictions_of(body) == expected
