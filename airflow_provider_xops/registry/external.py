"""A training that ran elsewhere hands back its record, is checked, and is gated like any other.

For a Kubernetes pod, Spark, SageMaker or a shell script: it reads a dataset version of the lake, trains, and
gives one JSON object, whose schema is :data:`TRAINING_SCHEMA`. What it says is checked against the lake and
against the files MLflow serves before a record is written.

What cannot be checked: that it used these rows and no others. Its selection's digest is recorded as declared.
"""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from airflow_provider_xops.errors import ArgumentError, DataError, ModelError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import resolve_ref
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion, Selection, digest_of
from airflow_provider_xops.registry._foreign import (
    Inspected,
    inspect_model,
    source_of_run,
    version_of_source,
)
from airflow_provider_xops.registry.artifacts import download
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.models import (
    Registration,
    create_version_once,
    created_ms,
    find_model,
    known_version,
    record_version,
    upload_model,
)
from airflow_provider_xops.registry.runs import log_run, run
from airflow_provider_xops.registry.saving import ModelFacts

__all__ = ["TRAINING_SCHEMA", "ExternalTraining", "record_training"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExternalSelection:
    """Rows that were used: partitions of the dataset version, how many rows, and a digest of them."""

    partitions: tuple[str, ...]
    rows: int
    digest: str
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class ExternalDataset:
    """The dataset version that was read; ``digest`` is the one its record in the lake has."""

    table: str
    version: int
    digest: str
    table_uuid: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExternalTraining:
    """What a training that ran elsewhere hands back. Exactly one of ``version``, ``run_id``,
    ``artifact_uri``."""

    model: str
    artifact_digest: str
    dataset: ExternalDataset
    training: ExternalSelection
    features: tuple[str, ...]
    task: str
    estimator: str
    code_version: str
    schema_version: Literal[1] = 1
    version: int | None = None
    run_id: str | None = None
    artifact_uri: str | None = None
    artifact_path: str | None = None
    holdout: ExternalSelection | None = None
    target: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    trusted_types: tuple[str, ...] = ()


def record_training(
    lake: Lake, client: RegistryClient, payload: Mapping[str, Any], *, actor: Actor, as_of: datetime
) -> ModelVersion:
    """Check and record a training that ran elsewhere; the same payload again gives the same record.

    :param payload: as :data:`TRAINING_SCHEMA` describes it. ``artifact_digest`` is SHA-256 over the canonical
        JSON of the sorted ``[[relative path, sha256 of the file], ...]``
        (:func:`~.artifacts.artifact_digest`).
    :raises ArgumentError: it does not fit the schema (``argument.training_record``).
    :raises DataError: the lake's version has another digest (``data.digest_mismatch``) or fewer rows
        (``data.selection_rows``).
    :raises NotFoundError: no such table, version, partition, run or model version.
    :raises ModelError: the files have another digest (``model.digest_mismatch``), or hold types not named in
        ``trusted_types`` (``model.untrusted``).
    """
    said = _parsed(payload)
    ref = _checked_dataset(lake, said)
    key = digest_of(["external", said.model, said.artifact_digest, _plain_ref(ref), said.training.digest])[
        :40
    ]
    registered = find_model(client, lake, name=said.model, key=key)
    if registered is not None:
        return registered
    facts = ModelFacts(
        training=_selection(ref, said.training),
        holdout=None if said.holdout is None else _selection(ref, said.holdout),
        features=said.features,
        target=said.target,
        task=said.task,
        estimator=said.estimator,
        code_version=said.code_version,
        params_digest=digest_of(said.params),
        metrics={name: value for name, value in said.metrics.items() if value is not None},
        origin="external",
    )
    with tempfile.TemporaryDirectory(prefix="xops-model-") as folder:
        source = _source(client, said)
        path = download(client, source, Path(folder) / "model")
        inspected = inspect_model(path, subject=f"the model at {source}", trust=said.trusted_types)
        _check_digest(said, inspected, source)
        return _register(lake, client, said, facts, inspected, source, path, key, actor, as_of)


def _register(
    lake: Lake,
    client: RegistryClient,
    said: ExternalTraining,
    facts: ModelFacts,
    inspected: Inspected,
    source: str,
    path: Path,
    key: str,
    actor: Actor,
    as_of: datetime,
) -> ModelVersion:
    def registration(experiment_id: str | None) -> Registration:
        return Registration(
            facts=facts,
            artifact_digest=inspected.digest,
            trusted_types=inspected.trusted_types,
            key=key,
            experiment_id=experiment_id,
        )

    def finish(entity: Any, experiment_id: str | None) -> ModelVersion:
        record = known_version(
            lake,
            name=said.model,
            version=int(entity.version),
            created_at_ms=created_ms(entity),
            digest=inspected.digest,
        )
        if record is not None:
            return record
        log.info("Recording the training of %s v%s, which ran elsewhere.", said.model, entity.version)
        return record_version(
            lake, entity, registration=registration(experiment_id), actor=actor, as_of=as_of
        )

    def create(from_source: str, run_id: str | None, experiment_id: str | None) -> ModelVersion:
        made = create_version_once(
            client,
            name=said.model,
            source=from_source,
            run_id=run_id,
            registration=registration(experiment_id),
            actor=actor,
            as_of=as_of,
        )
        return finish(made, experiment_id)

    if said.version is not None:
        return finish(client.get_version(said.model, said.version), None)
    if said.run_id is not None:
        entity = version_of_source(client, said.model, source)
        return finish(entity, None) if entity is not None else create(source, said.run_id, None)
    with run(client, experiment=said.model, key=key, actor=actor, run_name=said.model) as handle:
        selections = {"training": facts.training, "holdout": facts.holdout}
        log_run(
            client,
            handle,
            params=said.params,
            metrics=said.metrics,
            selections={name: chosen for name, chosen in selections.items() if chosen is not None},
        )
        uploaded = upload_model(client, path, run=handle, digest=inspected.digest, task=said.task)
        return create(uploaded, handle.run_id, handle.experiment_id)


def _parsed(payload: Mapping[str, Any]) -> ExternalTraining:
    try:
        said: ExternalTraining = _adapter().validate_python(dict(payload))
    except ValueError as error:
        problems = getattr(error, "errors", None)
        first = (
            problems(include_input=False, include_url=False)[0]
            if problems
            else {"loc": (), "msg": "unreadable"}
        )
        raise ArgumentError(
            "this is not the record of a training",
            code="argument.training_record",
            why=f"{'.'.join(str(part) for part in first['loc']) or 'payload'}: {first['msg']}",
            todo="give what `xops training-schema` describes",
        ) from None
    places = [said.version is not None, said.run_id is not None, said.artifact_uri is not None]
    if sum(places) != 1:
        raise ArgumentError(
            f"the training of {said.model} does not say where its model is",
            code="argument.training_record",
            why=f"{sum(places)} of version, run_id and artifact_uri are given",
            todo="give exactly one of them",
        )
    if said.training.rows <= 0:
        raise ArgumentError(
            f"the training of {said.model} says that it used no rows",
            code="argument.training_record",
            todo="hand back how many rows the model was fitted on",
        )
    return said


def _checked_dataset(lake: Lake, said: ExternalTraining) -> DatasetRef:
    """The lake's identity of the version that was read, if it is what the training says it was."""
    ref = resolve_ref(lake, said.dataset.table, said.dataset.version)
    record = read.rebuild_version_record(lake, ref)
    same_table = said.dataset.table_uuid in (None, ref.table_uuid)
    if record.digest != said.dataset.digest or not same_table:
        raise DataError(
            f"the training of {said.model} read another {ref} than this lake has",
            code="data.digest_mismatch",
            why=f"it says {said.dataset.digest[:12]}..., the lake {record.digest[:12]}..."
            if same_table
            else "its table has another UUID: it was deleted and made again",
            todo="train on this lake's version, or open the lake that it read",
        )
    for name, chosen in (("training", said.training), ("holdout", said.holdout)):
        if chosen is None:
            continue
        rows = read.count_rows(lake, ref, _existing(lake, ref, chosen))
        if chosen.rows > rows:
            raise DataError(
                f"the {name} of {said.model} has more rows than {ref}",
                code="data.selection_rows",
                why=f"it says {chosen.rows}, those partitions have {rows}",
                todo="hand back the rows that were read",
            )
    return ref


def _existing(lake: Lake, ref: DatasetRef, chosen: ExternalSelection) -> tuple[str, ...]:
    read.content_digest(lake, ref, chosen.partitions)  # raises for a partition that is not there
    return chosen.partitions


def _selection(ref: DatasetRef, chosen: ExternalSelection) -> Selection:
    return Selection(
        dataset=ref,
        partitions=chosen.partitions,
        rows=chosen.rows,
        digest=chosen.digest,
        description=chosen.description,
    )


def _plain_ref(ref: DatasetRef) -> list[Any]:
    return [ref.lake_id, ref.table, ref.table_uuid, ref.version]


def _source(client: RegistryClient, said: ExternalTraining) -> str:
    if said.version is not None:
        return str(client.get_version(said.model, said.version).source)
    if said.run_id is not None:
        return source_of_run(client, said.run_id, said.artifact_path)
    return str(said.artifact_uri)


def _check_digest(said: ExternalTraining, inspected: Inspected, source: str) -> None:
    if inspected.digest != said.artifact_digest:
        raise ModelError(
            f"the files at {source} are not those that the training of {said.model} handed back",
            code="model.digest_mismatch",
            why=f"their digest is {inspected.digest[:12]}..., it says {said.artifact_digest[:12]}...",
            todo="hand back the digest of the files as they were uploaded, and do not change them afterwards",
        )


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(ExternalTraining)


def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = _adapter().json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


TRAINING_SCHEMA: dict[str, Any] = _schema()
