"""Models: saved so that they can be loaded safely, and registered exactly once.

For training. :func:`save_model` writes a fitted estimator to a folder, in the skops format where every type
in it is scikit-learn's, NumPy's or SciPy's, else as cloudpickle; the SHA-256 over the folder is what later
loads must match. :func:`register_model` uploads it, registers one version for each piece of work, and writes
the :class:`~airflow_provider_xops.records.ModelVersion` record and the pins of its data to the lake.
:func:`find_model` gives what an earlier attempt at the same work has registered, and completes its evidence
if that attempt was killed before it could.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import ModelError, NotFoundError, RegistryError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.pins import pin
from airflow_provider_xops.records import Actor, ActorKind, ModelVersion, Producer, Selection
from airflow_provider_xops.registry._errors import scrub, translate
from airflow_provider_xops.registry.artifacts import artifact_digest, download, size_of
from airflow_provider_xops.registry.client import KEY_TAG, RegistryClient, quoted
from airflow_provider_xops.registry.runs import RunHandle, close_runs_of, delete_unfinished_models
from airflow_provider_xops.registry.saving import FACTS_FILE, ModelFacts, SavedModel, save_model, saved_facts

__all__ = ["ModelFacts", "SavedModel", "find_model", "register_model", "save_model"]

log = logging.getLogger(__name__)

DIGEST_TAG = "xops.artifact_digest"
PRODUCER_TAG = "xops.producer"
AS_OF_TAG = "xops.recorded_at"
TRUSTED_TAG = "xops.trusted_types"


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What is recorded about a version besides what MLflow itself knows."""

    facts: ModelFacts
    artifact_digest: str
    trusted_types: tuple[str, ...]
    key: str
    experiment_id: str | None
    size_bytes: int | None = None


def register_model(
    client: RegistryClient,
    lake: Lake,
    *,
    name: str,
    saved: SavedModel,
    facts: ModelFacts,
    run: RunHandle,
    actor: Actor,
    as_of: datetime,
) -> ModelVersion:
    """Upload a saved model, register it as a version of ``name`` once for ``run.key``, and record it.

    :param saved: from :func:`save_model`.
    :param run: the open run; the model is shown on its page.
    :returns: the record; if another attempt at the same work was faster, its record.
    :raises UnavailableError: MLflow or the storage did not answer; trying again is safe.
    :raises RegistryError: MLflow refuses (the name has ``/`` or ``:``, the user may not register).
    """
    # Training takes long: another attempt may have registered meanwhile. Where none had begun there is hardly
    # one to be found, and `create_version_once` still finds it.
    existing = None if run.first else find_model(client, lake, name=name, key=run.key)
    if existing is not None:
        return existing
    registration = Registration(
        facts=facts,
        artifact_digest=saved.digest,
        trusted_types=saved.trusted_types,
        key=run.key,
        experiment_id=run.experiment_id,
        size_bytes=size_of(saved.path),
    )
    source = upload_model(client, saved.path, run=run, digest=saved.digest, task=facts.task)
    entity = create_version_once(
        client,
        name=name,
        source=source,
        run_id=run.run_id,
        registration=registration,
        actor=actor,
        as_of=as_of,
    )
    if entity.source != source:
        # Another attempt at the same work was faster by a moment: its files and its facts count, not ours.
        earlier = find_model(client, lake, name=name, key=run.key)
        if earlier is not None:
            return earlier
    return record_version(lake, entity, registration=registration, actor=actor, as_of=as_of)


def find_model(client: RegistryClient, lake: Lake, *, name: str, key: str) -> ModelVersion | None:
    """The version that the same work has registered before; None if there is none.

    Missing evidence and pins (the attempt was killed right after registering) are written.

    :param key: from :func:`~airflow_provider_xops.registry.runs.work_key`.
    :raises ModelError: ``model.digest_mismatch`` if the files in MLflow are not those that were registered.
    """
    found = versions_of_key(client, name, key)
    if not found:
        return None
    entity = min(found, key=lambda each: int(each.version))
    digest = entity.tags.get(DIGEST_TAG)
    if not digest:
        raise RegistryError(
            f"model {name} v{entity.version} carries our key but no artifact digest",
            code="registry.foreign_version",
            why="somebody changed its tags",
            todo="delete the version in MLflow and run the task again",
        )
    actor, as_of = _written_by(entity, key)
    record = known_version(
        lake, name=name, version=int(entity.version), created_at_ms=created_ms(entity), digest=digest
    )
    if record is None:
        log.info("Model %s v%s has no evidence yet: writing it.", name, entity.version)
        registration = _registration_from_files(client, entity, key, digest)
        record = record_version(lake, entity, registration=registration, actor=actor, as_of=as_of)
    else:
        pin_data(lake, record, actor=actor, as_of=as_of)
    if record.experiment_id is not None:
        close_runs_of(client, record.experiment_id, key, finished=record.run_id)
    log.info(
        "Model %s v%d was registered by the same work before (%s).", name, record.version, record.record_id
    )
    return record


def known_version(
    lake: Lake, *, name: str, version: int, created_at_ms: int, digest: str
) -> ModelVersion | None:
    """The record of a version from the lake's evidence; None if there is none."""
    with contextlib.suppress(NotFoundError):
        record = lake.evidence.get(ModelVersion.kind, version_record_id(name, version, created_at_ms, digest))
        if isinstance(record, ModelVersion):
            return record
    return None


def version_record_id(name: str, version: int, created_at_ms: int, digest: str) -> str:
    """The id of the record that a model version has, or will have."""
    from airflow_provider_xops.records import digest_of

    return digest_of([ModelVersion.kind, name, version, created_at_ms, digest])[:32]


def upload_model(client: RegistryClient, path: Path, *, run: RunHandle, digest: str, task: str) -> str:
    """Upload a model folder as a logged model of the run; gives its ``models:/m-...`` address."""
    doing = f"uploading the model of run {run.run_id}"

    def create(mlflow: Any) -> Any:
        tags = {KEY_TAG: run.key, DIGEST_TAG: digest}
        return mlflow.create_logged_model(
            run.experiment_id, name="model", source_run_id=run.run_id, model_type=task, tags=tags
        )

    unanswered = False
    try:
        with client.session(doing, repeat=False) as mlflow:
            logged = create(mlflow)
    except UnavailableError:
        unanswered = True
        with client.session(doing) as mlflow:
            logged = create(mlflow)
    with client.session(doing) as mlflow:
        from mlflow.entities import LoggedModelOutput

        upload_files(mlflow, client, logged, path)
        mlflow.finalize_logged_model(logged.model_id, "READY")
        mlflow.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, 0)])
        if unanswered:
            # The request that got no answer may have made an empty twin.
            delete_unfinished_models(mlflow, run.experiment_id, run.run_id)
    log.info("Uploaded the model of run %s as %s.", run.run_id, logged.model_id)
    return f"models:/{logged.model_id}"


def upload_files(mlflow: Any, client: RegistryClient, logged: Any, path: Path) -> None:
    """Upload to where the new logged model's files belong; MLflow's own function would ask for that again.

    :raises UnavailableError: ``unavailable.artifacts``: the storage did not take them.
    """
    uri = client.settings.tracking_uri
    if uri.startswith("databricks") or not logged.artifact_location:
        # There the place is not all that is needed to write to it.
        mlflow.log_model_artifacts(logged.model_id, str(path))
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    doing = f"uploading model {logged.model_id}"
    try:
        get_artifact_repository(logged.artifact_location, tracking_uri=uri).log_artifacts(str(path))
    except Exception as error:
        if translate(error, doing, client.settings) is not None:
            raise
        # Where the server does not pass files on, they go to the storage itself, whose client has own errors.
        raise UnavailableError(
            f"the storage of MLflow's files did not do it: {doing}", code="unavailable.artifacts",
            why=f"{type(error).__name__}: {scrub(str(error), client.settings)}",
            todo="check the storage and this worker's credentials for it; trying again is safe",
        ) from None  # fmt: skip


def create_version_once(
    client: RegistryClient,
    *,
    name: str,
    source: str,
    run_id: str | None,
    registration: Registration,
    actor: Actor,
    as_of: datetime,
) -> Any:
    """Register ``source`` as a version of ``name``, once for the registration's key; gives MLflow's entity.

    Of versions with the same key the lowest stays: whoever made a higher one sees the lower one, so all
    agree.
    """
    tags = {
        KEY_TAG: registration.key,
        DIGEST_TAG: registration.artifact_digest,
        PRODUCER_TAG: json.dumps(dataclasses.asdict(actor.producer), sort_keys=True),
        AS_OF_TAG: as_of.isoformat(),
        TRUSTED_TAG: json.dumps(list(registration.trusted_types)),
    }
    model_id = source.removeprefix("models:/") if source.startswith("models:/m-") else None

    def create() -> None:
        with client.session(f"registering {source} as a version of model {name}") as mlflow:
            mlflow.create_model_version(
                name, source, run_id=run_id, tags=tags, await_creation_for=None, model_id=model_id
            )

    try:
        create()
    except (NotFoundError, RegistryError) as error:
        # Most often the model is there. A server with access control says "forbidden" of what does not exist.
        if isinstance(error, RegistryError) and error.code != "registry.forbidden":
            raise
        _ensure_model(client, name)
        create()
    found = sorted(versions_of_key(client, name, registration.key), key=lambda each: int(each.version))
    kept, *twins = found
    for twin in twins:
        with (
            contextlib.suppress(NotFoundError),
            client.session(f"deleting the twin {name} v{twin.version}") as mlflow,
        ):
            mlflow.delete_model_version(name, twin.version)
        log.info("Deleted model %s v%s, a twin of v%s.", name, twin.version, kept.version)
    log.info("Registered model %s v%s (%s).", name, kept.version, client.version_url(name, int(kept.version)))
    return kept


def versions_of_key(client: RegistryClient, name: str, key: str) -> list[Any]:
    """The versions of a model that carry a key."""
    with client.session(f"searching model {name} for the work {key}") as mlflow:
        return list(
            mlflow.search_model_versions(f"name = {quoted(name)} and tags.`{KEY_TAG}` = {quoted(key)}")
        )


def record_version(
    lake: Lake, entity: Any, *, registration: Registration, actor: Actor, as_of: datetime
) -> ModelVersion:
    """Write a registered version's record and pin its data; writing it again changes nothing."""
    facts = registration.facts
    record = ModelVersion(
        recorded_at=as_of,
        produced_by=actor.producer,
        name=str(entity.name),
        version=int(entity.version),
        created_at_ms=created_ms(entity),
        run_id=entity.run_id or None,
        source_uri=str(entity.source),
        artifact_digest=registration.artifact_digest,
        trusted_types=registration.trusted_types,
        experiment_id=registration.experiment_id,
        size_bytes=registration.size_bytes,
        **{field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)},
    )
    lake.evidence.put(record)
    pin_data(lake, record, actor=actor, as_of=as_of)
    log.info("Recorded model %s v%d as %s.", record.name, record.version, record.record_id)
    return record


def pin_data(lake: Lake, record: ModelVersion, *, actor: Actor, as_of: datetime) -> None:
    """Keep the dataset versions a model was trained and tested on from being vacuumed."""
    chosen: list[tuple[str, Selection | None]] = [("training", record.training), ("holdout", record.holdout)]
    for reason, selection in chosen:
        if selection is not None:
            pin(
                lake,
                selection.dataset,
                reason=reason,
                holder=f"model:{record.name}/{record.version}",
                actor=actor,
                as_of=as_of,
            )


def created_ms(entity: Any) -> int:
    """When MLflow made the version, in milliseconds: what tells it from a namesake of a re-created model."""
    return int(entity.creation_timestamp)


def _ensure_model(client: RegistryClient, name: str) -> None:
    try:
        with client.session(f"making the registered model {name}") as mlflow:
            mlflow.create_registered_model(name)
        log.info("Made the registered model %s.", name)
    except RegistryError as error:
        if error.context.get("mlflow_code") != "RESOURCE_ALREADY_EXISTS":
            raise


def _written_by(entity: Any, key: str) -> tuple[Actor, datetime]:
    """The attempt that registered a version, from its tags: what it left out is written in its name."""
    created = datetime.fromtimestamp(created_ms(entity) / 1000, tz=UTC)
    try:
        producer = Producer(**json.loads(entity.tags[PRODUCER_TAG]))
        producer = dataclasses.replace(producer, kind=ActorKind(producer.kind))
        as_of = datetime.fromisoformat(entity.tags[AS_OF_TAG])
    except (KeyError, TypeError, ValueError):
        producer, as_of = Producer(kind=ActorKind.SERVICE, id="unknown"), created
    return Actor(producer=producer, idempotency_key=key, fence=0), as_of


def _registration_from_files(client: RegistryClient, entity: Any, key: str, digest: str) -> Registration:
    with tempfile.TemporaryDirectory(prefix="xops-model-") as folder:
        path = download(client, str(entity.source), Path(folder) / "model")
        found = artifact_digest(path)
        if found != digest:
            raise ModelError(
                f"the files of model {entity.name} v{entity.version} are not those that were registered",
                code="model.digest_mismatch",
                why=f"their digest is {found[:12]}..., registered was {digest[:12]}...",
                todo="delete the version in MLflow and train again",
            )
        facts, size = saved_facts(path / FACTS_FILE), size_of(path)
    with client.session(f"reading run {entity.run_id}") as mlflow:
        experiment_id = mlflow.get_run(entity.run_id).info.experiment_id if entity.run_id else None
    return Registration(
        facts=facts,
        artifact_digest=digest,
        trusted_types=tuple(json.loads(entity.tags.get(TRUSTED_TAG, "[]"))),
        key=key,
        experiment_id=experiment_id,
        size_bytes=size,
    )
