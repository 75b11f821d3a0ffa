"""Documents and figures on the page of a model's MLflow run, and the text on its version's page.

For the evaluation report and the model card. The lake keeps the documents; what is put into MLflow is a copy
for people who look there. Putting it twice changes nothing: files of a name replace each other, and a metric
is logged at a moment that follows from what it measures.

What it does not do: it makes no run. A model that has none (adopted, trained elsewhere) keeps its documents
in the lake alone.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.models import created_ms

__all__ = ["DESCRIPTION_LIMIT", "attach", "describe"]

log = logging.getLogger(__name__)

DESCRIPTION_LIMIT = 5_000  # characters; MLflow refuses a longer one
# Above and below the part of a description that is ours: what people wrote around it stays.
BEGIN, END = "<!-- xops:card -->", "<!-- /xops:card -->"
_METRICS_A_BATCH = 500
_ROOM_FOR_MARKERS = len(BEGIN) + len(END) + 8


def attach(
    client: RegistryClient,
    model: ModelVersion,
    files: Mapping[str, bytes],
    *,
    metrics: Mapping[str, float | None] | None = None,
    folder: str = "xops",
    at_ms: int | None = None,
) -> bool:
    """Put files (and figures) onto a model's MLflow run; whether there is a run that takes them.

    :param files: name (without folders) to content; they stand under ``folder`` among the run's artifacts.
    :param metrics: a None or NaN is left out: it was not measured, and 0 would say that it was.
    :param at_ms: when the figures were measured, milliseconds since 1970; None: when the version was made.
        The same figure at the same moment is logged once however often it is put.
    :returns: False where the model has no run, or the run was deleted.
    :raises ArgumentError: a file's name is not a plain name (``argument.file_name``).
    :raises UnavailableError: MLflow or its artifact store did not answer; trying again is safe.

    >>> attach(client, model, {"report.html": page}, metrics={"eval.roc_auc": 0.71})  # doctest: +SKIP
    True
    """
    for name in files:
        if not name or name in (".", "..") or Path(name).name != name:
            raise ArgumentError(
                f"{name!r} is not a plain file name", code="argument.file_name",
                why="a document stands directly in its folder", todo="leave out slashes",
            )  # fmt: skip
    if model.run_id is None or not _takes_more(client, model.run_id):
        log.info("%s has no MLflow run: its documents are in the lake alone.", model.ref)
        return False
    measured = {
        name: float(value)
        for name, value in (metrics or {}).items()
        if value is not None and math.isfinite(value)
    }
    moment = model.created_at_ms if at_ms is None else at_ms
    with (
        tempfile.TemporaryDirectory(prefix="xops-documents-") as place,
        client.session(f"attaching documents to run {model.run_id}") as mlflow,
    ):
        for name, content in files.items():
            (Path(place) / name).write_bytes(content)
        if files:
            mlflow.log_artifacts(model.run_id, place, artifact_path=folder)
        _log(mlflow, model.run_id, measured, moment)
    log.info("Put %d documents and %d figures onto run %s.", len(files), len(measured), model.run_id)
    return True


def describe(client: RegistryClient, model: ModelVersion, text: str) -> bool:
    """Make ``text`` (Markdown) the part of a version's description that is ours; whether it changed anything.

    What people wrote into the description stays where it is; too long a text is cut at the end of a line.

    :returns: False where it says so already, or the version is no longer the one that the record names.
    :raises NotFoundError: the version is not in MLflow.
    """
    entity = client.get_version(model.name, model.version)
    if created_ms(entity) != model.created_at_ms:
        log.warning("%s was made anew in MLflow: its description is left alone.", model.ref)
        return False
    before = str(entity.description or "")
    after = merged_description(before, text)
    if after == before:
        return False
    with client.session(f"describing model {model.name} v{model.version}") as mlflow:
        mlflow.update_model_version(model.name, str(model.version), after)
    return True


def merged_description(before: str, text: str) -> str:
    """A description whose part between our markers is ``text``, at most :data:`DESCRIPTION_LIMIT` characters.

    >>> merged_description("Ask Ann.", "# late v1").splitlines()
    ['Ask Ann.', '', '<!-- xops:card -->', '# late v1', '<!-- /xops:card -->']
    """
    head, found, rest = before.partition(BEGIN)
    _, closed, tail = rest.partition(END) if found else ("", "", "")
    if found and not closed:
        tail = ""
    head, tail = head.rstrip("\n"), tail.lstrip("\n")
    room = DESCRIPTION_LIMIT - len(head) - len(tail) - _ROOM_FOR_MARKERS
    ours = _cut(text.strip("\n"), room)
    if not ours:
        return before
    parts = [head, f"{BEGIN}\n{ours}\n{END}", tail]
    return "\n\n".join(part for part in parts if part)


def _cut(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    mark = "\n…"
    whole = text[: max(0, room - len(mark))].rpartition("\n")[0].rstrip("\n")
    return f"{whole}{mark}" if whole else ""


def _takes_more(client: RegistryClient, run_id: str) -> bool:
    try:
        with client.session(f"reading run {run_id}") as mlflow:
            found = mlflow.get_run(run_id)
    except NotFoundError:
        return False
    return bool(found.info.lifecycle_stage == "active")


def _log(mlflow: Any, run_id: str, measured: Mapping[str, float], moment: int) -> None:
    from mlflow.entities import Metric

    figures = [Metric(name, value, moment, 0) for name, value in measured.items()]
    for start in range(0, len(figures), _METRICS_A_BATCH):
        mlflow.log_batch(run_id, metrics=figures[start : start + _METRICS_A_BATCH])
