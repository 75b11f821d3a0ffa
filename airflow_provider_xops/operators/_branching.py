"""What follows a validation where its outcome decides: Airflow's own branching, with the output kept.

For the validate operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Context

__all__ = ["branches_of", "check_downstream", "follow"]

ALWAYS = ("passed", "failed")
RETURN_VALUE = "return_value"


def branches_of(given: Any, *, needed: bool) -> dict[str, list[str]]:
    """Outcome to the ids of the tasks (or task groups) to go on with; an empty list goes on with none.

    :param needed: whether a policy says ``branch``.
    :raises ArgumentError: ``argument.branches``: it is no such mapping, ``passed`` or ``failed`` has no
        branch, or no policy uses it.
    """
    if given is None and not needed:
        return {}
    if given is not None and not needed:
        raise _refused("branches is given and no policy says branch", "pass on_failure='branch' too")
    if not isinstance(given, Mapping) or not set(given) <= set(records.Outcome):
        raise _refused(
            "branches does not name outcomes",
            f"map {', '.join(outcome.value for outcome in records.Outcome)} to ids of tasks",
        )
    found: dict[str, list[str]] = {}
    for outcome, ids in given.items():
        named = [ids] if isinstance(ids, str) else list(ids or ())
        if not all(isinstance(name, str) and name.strip() for name in named):
            raise _refused(f"the branch of {outcome} is not a list of task ids", "name tasks by their id")
        found[str(outcome)] = named
    missing = [outcome for outcome in ALWAYS if outcome not in found]
    if missing:
        raise _refused(
            f"branches has none for {' and '.join(missing)}", "name its tasks, or [] to go on with none"
        )
    return found


def check_downstream(operator: Any, branches: Mapping[str, list[str]]) -> None:
    """Refuse a branch that is not directly downstream of the operator: it could not be followed.

    :raises ArgumentError: ``argument.branches``.
    """
    groups = getattr(operator.dag, "task_group_dict", {}) if operator.has_dag() else {}
    for outcome, ids in branches.items():
        for name in ids:
            reached = {root.task_id for root in groups[name].roots} if name in groups else {name}
            if not reached <= set(operator.downstream_task_ids):
                raise _refused(
                    f"the branch {name!r} of {outcome} is not directly downstream of task {operator.task_id}",
                    "put it there with >>, or correct its id (with its task groups' prefix)",
                )


def follow(operator: Any, context: Context, branch: list[str], returned: dict[str, Any]) -> dict[str, Any]:
    """Skip what is directly downstream and not of the branch; gives what the task returns.

    Airflow ends a branching task by an exception, and what it would have returned is lost: it is pushed
    before.
    """
    if operator.do_xcom_push:
        context["ti"].xcom_push(key=RETURN_VALUE, value=returned)
    operator.do_branch(context, branch)
    return returned


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.branches", todo=todo)
