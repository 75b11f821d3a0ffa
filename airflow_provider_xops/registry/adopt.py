"""Taking what MLflow has already into the chain: models, and the champion they may already be.

For whoever has models before this package comes. Nothing is retrained, copied or executed: the files' digest
is computed, a record is written, and from then on the model is evaluated, gated, promoted and traced like any
other. :func:`record_training` does the same for a training that ran elsewhere and hands back what it did.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from airflow_provider_xops.errors import ArgumentError, RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    ModelVersion,
    PromotionDecision,
    PromotionOutcome,
    Selection,
    digest_of,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry._foreign import (
    Inspected,
    inspect_model,
    run_facts,
    source_of_run,
    version_of_source,
)
from airflow_provider_xops.registry.aliases import alias_option
from airflow_provider_xops.registry.apply import apply_decision
from airflow_provider_xops.registry.artifacts import download
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.external import TRAINING_SCHEMA, record_training
from airflow_provider_xops.registry.ledger import Draft, LedgerState
from airflow_provider_xops.registry.models import (
    Registration,
    create_version_once,
    created_ms,
    known_version,
    record_version,
)
from airflow_provider_xops.registry.saving import ModelFacts

__all__ = ["TRAINING_SCHEMA", "adopt_model", "record_training"]

log = logging.getLogger(__name__)


def adopt_model(
    lake: Lake,
    client: RegistryClient,
    *,
    name: str,
    version: int | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    alias: str | None = None,
    training: Selection | None = None,
    holdout: Selection | None = None,
    features: Sequence[str] | None = None,
    target: str | None = None,
    task: str | None = None,
    trust: Sequence[str] = (),
    actor: Actor,
    as_of: datetime,
) -> ModelVersion:
    """Record a model that MLflow has: version ``version`` of ``name``, or what run ``run_id`` logged.

    A run's model that is not registered yet becomes a version of ``name``. Adopting again gives the same
    record.

    :param artifact_path: which of a run's models, if it logged several.
    :param alias: the alias it has in MLflow already: the ledger then begins with it as the champion.
    :param training: what it was trained on, if that is in this lake (without it no leak can be found).
    :param features: default: the inputs of its signature.
    :param trust: names of types in it that you vouch for, beside scikit-learn's, NumPy's and SciPy's.
    :raises ArgumentError: not exactly one of ``version`` and ``run_id`` (``argument.adopt``).
    :raises NotFoundError: no such version, run, or model of the run.
    :raises ModelError: it is no MLflow model, has no files, or holds types that nobody trusted.
    :raises RegistryError: ``registry.alias_elsewhere``, ``registry.has_champion``, ``registry.blocked``.
    """
    if (version is None) == (run_id is None):
        raise ArgumentError(
            f"which model of {name} is to be adopted?",
            code="argument.adopt",
            todo="name either a version or a run, not both",
        )
    if version is not None:
        entity = client.get_version(name, version)
        source = str(entity.source)
    else:
        source = source_of_run(client, str(run_id), artifact_path)
        entity = version_of_source(client, name, source)
    with tempfile.TemporaryDirectory(prefix="xops-model-") as folder:
        path = download(client, source, Path(folder) / "model")
        inspected = inspect_model(path, subject=f"the model at {source}", trust=trust)
    known_run = run_id or (entity.run_id if entity is not None else None)
    registration = _registration(
        client, inspected, source, known_run, training, holdout, features, target, task
    )
    if entity is None:
        entity = create_version_once(
            client,
            name=name,
            source=source,
            run_id=known_run,
            registration=registration,
            actor=actor,
            as_of=as_of,
        )
    record = known_version(
        lake,
        name=name,
        version=int(entity.version),
        created_at_ms=created_ms(entity),
        digest=inspected.digest,
    )
    if record is None:
        record = record_version(lake, entity, registration=registration, actor=actor, as_of=as_of)
        log.info("Adopted model %s v%d (%s).", name, record.version, inspected.flavor)
    if alias is not None:
        _adopt_champion(lake, client, record, alias, actor, as_of)
    return record


def _registration(
    client: RegistryClient,
    inspected: Inspected,
    source: str,
    run_id: str | None,
    training: Selection | None,
    holdout: Selection | None,
    features: Sequence[str] | None,
    target: str | None,
    task: str | None,
) -> Registration:
    metrics, params, code, experiment_id = run_facts(client, run_id)
    facts = ModelFacts(
        training=training,
        holdout=holdout,
        features=tuple(features) if features is not None else inspected.features,
        target=target,
        task=task or "unknown",
        estimator=f"mlflow:{inspected.flavor}",
        code_version=code,
        params_digest=digest_of(params),
        metrics=metrics,
        origin="adopted",
    )
    return Registration(
        facts=facts,
        artifact_digest=inspected.digest,
        trusted_types=inspected.trusted_types,
        key=digest_of(["adopt", source])[:40],
        experiment_id=experiment_id,
    )


def _adopt_champion(
    lake: Lake, client: RegistryClient, record: ModelVersion, alias: str, actor: Actor, as_of: datetime
) -> None:
    """Begin an alias's ledger with the version it points to already."""
    target = client.alias_target(record.name, alias)
    if target != record.version:
        raise RegistryError(
            f"alias {alias} of model {record.name} does not point to v{record.version}",
            code="registry.alias_elsewhere",
            why=f"it points to {f'v{target}' if target else 'nothing'}; adopting moves no alias",
            todo="adopt the version it points to, or promote this one",
        )

    def decide(now: LedgerState) -> Draft | PromotionDecision:
        current = now.current
        if current is None:
            if (record.version, record.created_at_ms) in now.blocked:
                raise RegistryError(
                    f"v{record.version} of {record.name} is blocked",
                    code="registry.blocked",
                    why="it was rolled back from before; adopting asks no gates",
                    todo=f"release it by name first: `xops release {record.name} {record.version}"
                    f"{alias_option(alias)} --reason ...`",
                )
            since = "before the ledger began" if now.standing is None else "after the ledger had retired it"
            return Draft(
                outcome=PromotionOutcome.PROMOTED,
                reason=f"adopted: alias {alias} pointed to v{record.version} {since}",
                to_version=record.version,
                to_created_at_ms=record.created_at_ms,
                artifact_digest=record.artifact_digest,
                evidence=(record.record_id,),
            )
        if (current.to_version, current.to_created_at_ms) == (record.version, record.created_at_ms):
            return current
        raise RegistryError(
            f"{record.name}/{alias} has a champion in the ledger: v{current.to_version}",
            code="registry.has_champion",
            why="only the first champion is adopted; later ones are promoted",
            todo=f"`xops rollback {record.name} --to {record.version}` if the alias was moved on purpose",
        )

    decision, _written = ledger.append(lake, record.name, alias, decide, actor=actor, as_of=as_of)
    apply_decision(lake, client, decision, actor=actor, as_of=as_of)
