"""One loaded model version: proved, asked once what it answered at training, and ready to answer.

For the fleet. Loading checks, before anything of the model is executed, that its files have the digest that
the lake has on record; then it asks the model about the rows whose predictions were recorded at training, and
a model that answers differently here is not served. That first question also warms it up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.types as pt

from airflow_provider_xops.errors import ModelError, UnavailableError, XOpsError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ModelRef, ModelVersion, ServingSession, Variant
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger_state import MOVING
from airflow_provider_xops.registry.loading import get_model, model_of, read_model
from airflow_provider_xops.serving._smoke_checks import Rows
from airflow_provider_xops.serving._smoke_requests import compare_labels, compare_scores
from airflow_provider_xops.serving.online import sessions
from airflow_provider_xops.serving.online.model_files import ModelFiles
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.predicting import predict, task_of

__all__ = ["Feature", "FeatureKind", "GoldenCheck", "LoadedModel", "Loader", "load"]

log = logging.getLogger(__name__)

# Other processors round otherwise in the last digits; a model that was changed differs by more.
GOLDEN_TOLERANCE = 1e-6
# With Python's usual 5 ms, reading a model of 1.5 MB beside small requests made the slowest hundredth of them
# wait 215 ms, with this one 36 ms; a fifth of it gained little and slowed the others down.
SHORT_TURN_S = 0.001
_TURNS = threading.Lock()
_loading = 0
_usual_turn = SHORT_TURN_S


class FeatureKind(StrEnum):
    """What a column holds. ``any``: neither the model's signature nor its training data says."""

    NUMBER = "number"
    TEXT = "text"
    TIME = "time"
    ANY = "any"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column that a model takes."""

    name: str
    kind: FeatureKind


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """The comparison with the answers recorded at training.

    :param rows: how many were compared; 0: none could be, and ``why`` says for what reason.
    :param apart: the largest difference of a probability or predicted number.
    """

    rows: int
    apart: float | None = None
    why: str = ""


@dataclass(eq=False, kw_only=True)
class LoadedModel:
    """A model version in memory.

    :param record: as the lake has it. :param session: its record; prediction ids lead to it.
    :param features: the columns it takes, in its order. :param classes: of a classifier, in its order.
    :param load_seconds: how long bringing, proving, reading and asking it took.
    """

    record: ModelVersion
    session: ServingSession
    estimator: Any = field(repr=False)
    task: Task
    classes: tuple[Any, ...] | None
    features: tuple[Feature, ...]
    golden: GoldenCheck
    loaded_at: datetime
    load_seconds: float
    ids: sessions.PredictionIds = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.ids = sessions.PredictionIds(self.session)

    @property
    def ref(self) -> ModelRef:
        """The version's identity."""
        return self.record.ref

    @property
    def version(self) -> int:
        """The version's number."""
        return self.record.version

    def predict(self, frame: pd.DataFrame) -> Predictions:
        """The model's predictions for the rows of a feature frame; any number of threads may ask at once.

        :param frame: the features in their order: float64 for numbers, object for text (NaN where missing),
            pandas times.
        :raises ModelError: ``model.predict_failed``; its message holds no values.
        """
        # A step that changes its input must not change what is logged, or what a shadow is asked.
        rows = frame.copy(deep=False)
        return predict(self.estimator, rows, task=self.task, name=str(self.ref))

    def next_ids(self, rows: int) -> list[str]:
        """``rows`` new prediction ids, each given once in the life of the session."""
        return self.ids.texts(rows)


@dataclass(kw_only=True)
class Loader:
    """How a server loads the versions of its aliases; the fleet calls it with a model's name and a variant.

    :param lake_factory: opens the lake. :param server: the server's own name, for its sessions.
    :param log_table: where predictions are written; None: nowhere.
    :param files: where model files are kept between loads.
    """

    lake_factory: Callable[[], Lake]
    client: RegistryClient
    server: str
    alias: str
    clock: Callable[[], datetime]
    actor: Actor
    log_table: str | None = None
    files: ModelFiles = field(default_factory=ModelFiles)
    tolerance: float = GOLDEN_TOLERANCE

    def __call__(self, model: str, variant: Variant) -> LoadedModel:
        with _short_turns():
            return load(
                self.lake_factory(), self.client, model, variant.version,
                created_at_ms=variant.created_at_ms or None, server=self.server, alias=self.alias,
                log_table=self.log_table, files=self.files, tolerance=self.tolerance, clock=self.clock,
                actor=self.actor,
            )  # fmt: skip

    def prepare(self) -> None:
        """Import what loading needs, so that the first swap does not do it while requests are answered."""
        import skops.io  # noqa: F401
        from mlflow import MlflowClient  # noqa: F401
        from sklearn import pipeline  # noqa: F401


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Threads take shorter turns of the interpreter inside, so that requests wait less for a load."""
    global _loading, _usual_turn
    with _TURNS:
        if _loading == 0:
            _usual_turn = sys.getswitchinterval()
            sys.setswitchinterval(min(_usual_turn, SHORT_TURN_S))
        _loading += 1
    try:
        yield
    finally:
        with _TURNS:
            _loading -= 1
            if _loading == 0:
                sys.setswitchinterval(_usual_turn)


def load(
    lake: Lake,
    client: RegistryClient,
    model: str,
    version: int,
    *,
    created_at_ms: int | None = None,
    server: str,
    alias: str,
    log_table: str | None = None,
    files: ModelFiles | None = None,
    tolerance: float = GOLDEN_TOLERANCE,
    clock: Callable[[], datetime],
    actor: Actor,
) -> LoadedModel:
    """Bring a version into memory and begin its session.

    :param created_at_ms: tells versions of re-created models apart; None: the newest of that number.
    :param server: the server's own name. :param alias: what it is loaded for.
    :param files: where its files are kept; default: they are brought anew.
    :param tolerance: how far a probability or a predicted number may be from the one recorded at training
        (absolutely up to 1, beyond that relative to it); predicted classes must be the same.
    :raises NotFoundError: ``not_found.model_record``.
    :raises ModelError: ``model.digest_mismatch`` (nothing was executed), ``model.untrusted``,
        ``model.load_failed``, ``model.golden_mismatch``, ``model.features_unknown``; ``model.other_files``
        where several files are on record as this version and the alias's ledger names none of them.
    :raises UnavailableError: MLflow or the lake did not answer.

    >>> load(lake, client, "late", 3, server="gate-1", alias="champion", clock=utc_now,
    ...      actor=actor).golden.rows  # doctest: +SKIP
    25

    What it does not do: a version whose rows are gone from the lake, or that was adopted, has nothing to be
    compared with; it is served, and ``golden.why`` says so.
    """
    begun = clock()
    record = _record_of(lake, model, version, created_at_ms, alias)
    if not record.features:
        raise ModelError(
            f"{record.ref} does not say which columns it takes", code="model.features_unknown",
            why="it was adopted, and MLflow has no signature of it",
            todo="adopt it again, naming its features",
        )  # fmt: skip
    with (files or ModelFiles()).of(client, record) as path:
        estimator = read_model(path, record)
        features = _features(lake, record, path)
    task = task_of(estimator, recorded=record.task)
    golden = _check_golden(lake, record, estimator, task, tolerance)
    ready = clock()
    session = sessions.begin(
        lake, server=server, model=record, alias=alias, started_at=ready, log_table=log_table, actor=actor
    )
    log.info(
        "Loaded %s for %s: %s.", record.ref, alias,
        f"{golden.rows} recorded predictions are the same" if golden.rows else f"not compared, {golden.why}",
    )  # fmt: skip
    return LoadedModel(
        record=record, session=session, estimator=estimator, task=task,
        classes=_classes(estimator) if task is Task.CLASSIFICATION else None,
        features=features, golden=golden, loaded_at=ready, load_seconds=(ready - begun).total_seconds(),
    )  # fmt: skip


def _record_of(lake: Lake, model: str, version: int, created_at_ms: int | None, alias: str) -> ModelVersion:
    """The record of the files that were decided about: a version can be adopted again with other ones."""
    for entry in reversed(ledger.state(lake, model, alias).entries):
        same = entry.to_version == version and created_at_ms in (None, entry.to_created_at_ms)
        if same and entry.outcome in MOVING and entry.artifact_digest is not None:
            return model_of(lake, entry)
    record = get_model(lake, model, version, created_at_ms=created_at_ms)
    digests = {
        each.artifact_digest
        for each in lake.evidence.all(ModelVersion.kind)
        if isinstance(each, ModelVersion)
        and (each.name, each.version) == (record.name, record.version)
        and each.created_at_ms == record.created_at_ms
    }
    if len(digests) > 1:
        raise ModelError(
            f"{len(digests)} different files are on record as {record.ref}", code="model.other_files",
            why="somebody adopted it again after its files were changed, and nothing tells which are meant",
            todo="register the files that are meant as another version",
        )  # fmt: skip
    return record


def _classes(estimator: Any) -> tuple[Any, ...] | None:
    found = getattr(estimator, "classes_", None)
    return None if found is None else tuple(np.asarray(found).tolist())


def _check_golden(
    lake: Lake, record: ModelVersion, estimator: Any, task: Task, tolerance: float
) -> GoldenCheck:
    """Ask the model about the rows recorded at training.

    :raises ModelError: ``model.golden_mismatch``, ``model.predict_failed``.
    """
    if record.golden is None or record.holdout is None:
        return GoldenCheck(rows=0, why=f"no predictions are on record (the model was {record.origin})")
    try:
        frame = Rows.of(lake, record, sizes=(0,)).frame
    except UnavailableError:
        raise
    except XOpsError as error:
        # The data went or changed, which says nothing about the model: its bytes are proved.
        log.warning("The holdout rows of %s cannot be read (%s).", record.ref, error.code)
        return GoldenCheck(rows=0, why=f"the holdout rows cannot be read: {error.code}")
    if frame.empty:
        return GoldenCheck(rows=0, why="no holdout rows are on record")
    said = predict(estimator, frame, task=task, name=str(record.ref))
    labels = compare_labels(task, record.golden, range(len(frame)), said.labels.tolist())
    different, distance, same = labels.different, labels.apart, labels.within(tolerance)
    if record.golden.scores:
        given = [] if said.probabilities is None else said.probabilities.tolist()
        scores = compare_scores(record.golden, given)
        same = same and scores.within(tolerance)
        different, distance = max(different, scores.different), _larger(distance, scores.apart)
    if not same:
        raise ModelError(
            f"{record.ref} does not answer as it did at training", code="model.golden_mismatch",
            why=f"{different} of {len(frame)} recorded predictions are others here, by up to"
            f" {'an unknown amount' if distance is None else format(distance, '.3g')}",
            todo="run the model with the library versions it was trained with (xops show names them)",
            context={"rows": len(frame), "different": different},
        )  # fmt: skip
    return GoldenCheck(rows=len(frame), apart=distance)


def _larger(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)


def _features(lake: Lake, record: ModelVersion, path: Path) -> tuple[Feature, ...]:
    """The columns and what they hold: as the model's signature says, else as its training data are."""
    kinds = _signature_kinds(path)
    if set(kinds) < set(record.features) and record.training is not None:
        try:
            schema = read.schema_of(lake, record.training.dataset)
            kinds = {
                name: _kind_of(schema.field(name).type) for name in record.features if name in schema.names
            } | kinds
        except UnavailableError:
            raise
        except XOpsError as error:
            log.warning("The columns of %s cannot be read (%s).", record.training.dataset, error.code)
    return tuple(Feature(name=name, kind=kinds.get(name, FeatureKind.ANY)) for name in record.features)


def _signature_kinds(path: Path) -> dict[str, FeatureKind]:
    import yaml

    try:
        inputs = (yaml.safe_load((path / "MLmodel").read_text()).get("signature") or {}).get("inputs")
        columns = json.loads(inputs) if isinstance(inputs, str) else inputs or []
        found = {str(each["name"]): str(each.get("type")) for each in columns if "name" in each}
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError):
        return {}
    return {name: _SIGNATURE_KINDS[kind] for name, kind in found.items() if kind in _SIGNATURE_KINDS}


def _kind_of(kind: Any) -> FeatureKind:
    if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_boolean(kind):
        return FeatureKind.NUMBER
    if pt.is_temporal(kind):
        return FeatureKind.TIME
    return FeatureKind.TEXT


_SIGNATURE_KINDS = {
    "double": FeatureKind.NUMBER,
    "float": FeatureKind.NUMBER,
    "long": FeatureKind.NUMBER,
    "integer": FeatureKind.NUMBER,
    "boolean": FeatureKind.NUMBER,
    "string": FeatureKind.TEXT,
    "datetime": FeatureKind.TIME,
}
