"""Which data trained which model that produced this prediction, and who approved it: one walk.

For the auditor, through ``xops trace``. Upstream: prediction, scoring run (or serving session, if a server
gave it), model version, training dataset version, validation report, raw dataset version, ingest run, source
file with its checksum; and the ledger's decisions with the evaluations they rest on. Downstream: dataset
version, models trained on it, scoring runs, tables of predictions, serving sessions.

A link whose record is not there (a crash between data and evidence, another lake) is a node that says
*missing*; only a subject that nothing knows is an error.
"""

from __future__ import annotations

import logging
import re

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake._lineage_graph import Edge, Node, Trace
from airflow_provider_xops.lake._lineage_records import Decisions
from airflow_provider_xops.lake._lineage_text import render
from airflow_provider_xops.lake._lineage_walk import Walk
from airflow_provider_xops.lake.lake import Lake

__all__ = ["Decisions", "Edge", "Node", "Trace", "render", "trace"]

log = logging.getLogger(__name__)

_PREDICTION = re.compile(r"(?P<run>[0-9a-f]{20,32})-(?P<row>[0-9]+)")
_MODEL = re.compile(r"(?:model:)?(?P<name>[^@]+)/v?(?P<version>[0-9]+)")
_DATASET = re.compile(r"(?:dataset:)?(?P<table>[A-Za-z0-9_.-]+)@(?P<version>[0-9]+)")


def trace(lake: Lake, subject: str, *, decisions: Decisions = ()) -> Trace:
    """The chain of ``subject``, both ways.

    :param subject: a prediction id (``<hex>-<row>``), a model version (``NAME/3`` or ``model:NAME/3``), or a
        dataset version (``TABLE@12`` or ``dataset:TABLE@12``; raw tables too).
    :param decisions: the promotion ledger's entries, or a function that gives those of a model's name.
    :raises ArgumentError: ``subject`` is none of these (``argument.trace``).
    :raises NotFoundError: nothing in the lake knows it.

    It reads records and the names of data files, and changes nothing. Of a prediction that a server gave it
    also looks for the row in the log; values of rows are never part of a trace. A row that is not in the log
    is told as missing: the session leads on to the model all the same.
    """
    walk = Walk(lake, decisions)
    text = subject.strip()
    if match := _PREDICTION.fullmatch(text):
        root = walk.prediction(text, match["run"], int(match["row"]))
    elif match := _DATASET.fullmatch(text):
        root = walk.dataset_subject(match["table"], int(match["version"]))
    elif match := _MODEL.fullmatch(text):
        root = walk.model_subject(match["name"], int(match["version"]))
    else:
        raise ArgumentError(
            f"{subject!r} is not something to trace", code="argument.trace",
            todo="give a prediction id, a model version (NAME/3) or a dataset version (TABLE@12)",
        )  # fmt: skip
    log.info("Traced %s: %d nodes, %d edges.", text, len(walk.graph.nodes), len(walk.graph.edges))
    return walk.graph.trace(text, root)
