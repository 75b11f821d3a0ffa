"""What MLflow has, against what the records and the ledger say.

Private to the registry's deciding functions: promotion, rollback, nomination, reconciliation.
"""

from __future__ import annotations

from airflow_provider_xops.errors import NotFoundError, RegistryError
from airflow_provider_xops.registry.apply import late_write
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import LedgerState
from airflow_provider_xops.registry.models import created_ms

__all__ = ["alias_of", "check_version", "moved_by_hand"]


def check_version(client: RegistryClient, name: str, version: int, created_at_ms: int | None) -> None:
    """See that MLflow has this very version.

    :raises NotFoundError: it has none of that number. :raises RegistryError: ``registry.model_recreated``.
    """
    entity = client.get_version(name, version)
    if created_at_ms is not None and created_ms(entity) != created_at_ms:
        raise RegistryError(
            f"model {name} v{version} in MLflow is not the one that was recorded",
            code="registry.model_recreated",
            why=f"it was made at {created_ms(entity)}, recorded is {created_at_ms}: somebody deleted"
            " the model and made another of the same name, whose versions count from 1 again",
            todo="train and register the model again, or adopt the version that is there",
        )


def alias_of(client: RegistryClient, model: str, alias: str) -> int | None:
    """The version an alias points to; None: nowhere. A model that is gone has no aliases."""
    try:
        return client.alias_target(model, alias)
    except NotFoundError:
        return None


def moved_by_hand(client: RegistryClient, now: LedgerState, seen: int | None) -> int | None:
    """The version the alias was moved to by hand; a deleted alias or one on its way is not that.

    :param seen: where the alias pointed before the ledger was read.
    """
    if now.unapplied is not None or seen in (None, now.current_version):
        return None
    # The alias was read before the ledger: somebody may have decided between the two.
    target = client.alias_target(now.model, now.alias)
    if target in (None, now.current_version) or late_write(client, now, target) is not None:
        return None
    return target
