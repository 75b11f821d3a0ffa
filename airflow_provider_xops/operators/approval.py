"""A promotion that waits for people: show the evidence, ask, conclude, and let the ledger know.

For DAGs on Airflow 3.1 and newer, whose human-in-the-loop tasks wait without a worker slot. People answer in
Airflow's UI or through its REST API, under the account they are signed in with::

    approval = approve_promotion(evaluation=judge.output, approvers=["ana", "bob"], people=2)
    PromoteModelOperator(task_id="promote", evaluation=judge.output, approval=approval.output)

``promote`` runs whatever people said: an approval, a no with its reason, or silence is in the ledger
afterwards.

What it does not do: it keeps nobody from promoting by another way. The gate ``approved`` does that: a policy
that asks for it is asked by every promotion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from airflow.sdk import TaskGroup

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.hooks.lake import LakeHook
from airflow_provider_xops.hooks.mlflow import MlflowHook
from airflow_provider_xops.operators._approval import ConcludeApprovalOperator, ShowEvidenceOperator
from airflow_provider_xops.operators._approval_ask import AskApprovalOperator, people_asked

__all__ = [
    "ApprovalGroup",
    "AskApprovalOperator",
    "ConcludeApprovalOperator",
    "ShowEvidenceOperator",
    "approve_promotion",
]


class ApprovalGroup(TaskGroup):
    """The tasks of one request: ``show_evidence``, ``ask_1`` to ``ask_n``, ``result``.

    Made by :func:`approve_promotion`.
    """

    @property
    def output(self) -> Any:
        """The result of asking, for ``PromoteModelOperator(approval=...)``."""
        result: Any = self.get_child_by_label("result")
        return result.output


def approve_promotion(
    group_id: str = "approve",
    *,
    evaluation: Any,
    gate_report: Any = None,
    card: Any = None,
    alias: str = "champion",
    approvers: Sequence[Any] | str = (),
    people: int = 1,
    in_turn: bool = False,
    role: str = "",
    timeout: timedelta | None = timedelta(days=1),
    valid_for: timedelta | None = None,
    trainer_counts: bool = False,
    person_by: Literal["id", "name"] = "id",
    notifiers: Sequence[Any] = (),
    lake_conn_id: str = LakeHook.default_conn_name,
    mlflow_conn_id: str = MlflowHook.default_conn_name,
    default_args: Mapping[str, Any] | None = None,
) -> ApprovalGroup:
    """Tasks that ask people whether an evaluated version may be promoted; call it inside a DAG.

    :param evaluation: the output of the task that evaluated the version, or an evaluation's record id.
    :param gate_report: the output of a ``CheckGatesOperator``, to be shown.
    :param card: the output of a ``WriteModelCardOperator``, to be linked; empty: the version's newest card.
    :param alias: what the version would become.
    :param approvers: who may answer: ids of Airflow users, or mappings with ``id`` and ``name``; empty:
        anybody who may edit the DAG's runs.
    :param people: how many different people must approve; each is a question of its own.
    :param in_turn: ask the next person when the one before has said yes, and nobody twice; otherwise all
        questions are open at once.
    :param role: the function in which they speak, such as ``risk``.
    :param timeout: how long each question waits; silence is a no. None: for ever.
    :param valid_for: how long an approval counts; None: for good.
    :param trainer_counts: whether the word of whoever trained the model counts.
    :param person_by: what names a person in the ledger: the ``id`` of their account, or its ``name``.
    :param notifiers: Airflow notifiers, called when a question is asked.
    :param lake_conn_id: the Airflow connection of the lake. :param mlflow_conn_id: of the MLflow server.
    :param default_args: defaults of these tasks, ``retries`` for example.
    :return: the group; its ``output`` is the result.
    :raises ArgumentError: ``argument.people``: nobody would be asked, or more people than may answer;
        ``argument.timeout``: it is not above zero.

    Example::

        approval = approve_promotion(
            evaluation=judge.output, approvers=["ana", "bob", "cid"], people=2, timeout=timedelta(hours=8)
        )

    What it does not do: while ``in_turn`` is off, a no does not close the other questions; they end when they
    are answered or their time is over.
    """
    if not isinstance(people, int) or people < 1:
        raise ArgumentError(
            f"people of {group_id} is {people!r}", code="argument.people",
            why="it is the number of questions, which a DAG knows before it runs",
            todo="give a whole number of 1 or more",
        )  # fmt: skip
    if timeout is not None and timeout <= timedelta(0):
        raise ArgumentError(
            f"timeout of {group_id} is {timeout}", code="argument.timeout",
            why="nobody could answer, and Airflow takes no time at all for all the time there is",
            todo="give a longer time, or None to wait for ever",
        )  # fmt: skip
    few = None if _is_template(approvers) else len(people_asked(approvers))
    if few and few < people:
        raise ArgumentError(
            f"{group_id} needs {people} people and may ask {few}", code="argument.people",
            why="one person's two answers count once", todo="name more approvers, or ask for fewer people",
        )  # fmt: skip
    defaults: Any = dict(default_args or {})
    group = ApprovalGroup(
        group_id=group_id,
        default_args=defaults,
        tooltip=f"May it become {alias}? {people} of {few or 'all who may'} must approve.",
    )
    with group:
        show = ShowEvidenceOperator(
            task_id="show_evidence",
            evaluation=evaluation,
            gate_report=gate_report,
            card=card,
            alias=alias,
            people=people,
            timeout=timeout,
            lake_conn_id=lake_conn_id,
            mlflow_conn_id=mlflow_conn_id,
        )
        asks: list[AskApprovalOperator] = []
        for place in range(1, people + 1):
            ask = AskApprovalOperator(
                task_id=f"ask_{place}",
                form=show.output,
                approvers=approvers,
                role=role,
                valid_for=valid_for,
                person_by=person_by,
                before=[earlier.output for earlier in asks] if in_turn else (),
                response_timeout=timeout,
                notifiers=list(notifiers),
                lake_conn_id=lake_conn_id,
            )
            asks.append(ask)
        ConcludeApprovalOperator(
            task_id="result",
            evaluation=evaluation,
            form=show.output,
            answers=[ask.output for ask in asks],
            alias=alias,
            people=people,
            approvers=approvers,
            trainer_counts=trainer_counts,
            lake_conn_id=lake_conn_id,
        )
    return group


def _is_template(approvers: Any) -> bool:
    """Whether who may answer is known only when the DAG runs."""
    given = [approvers] if isinstance(approvers, str) else approvers
    return not isinstance(given, Sequence) or any(isinstance(one, str) and "{{" in one for one in given)
