"""Input columns of two versions of a model: whether what callers send the one today is what the other takes.

For promotion and for deployment. Golden rows do not show it: they have the columns of the version that they
were recorded with.

What it does not do: it compares names and their order, not what the columns hold. A column that was a number
and is a text now is the same column here.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_xops.records import ModelVersion

__all__ = ["OtherInputs", "names_inputs", "other_inputs"]

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class OtherInputs:
    """How the columns differ. With neither ``more`` nor ``fewer`` they are the same in another order.

    :param more: columns that the new version needs and the old one did not. :param fewer: those that the old
        one takes and the new one does not.
    """

    more: tuple[str, ...] = ()
    fewer: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """In words, with what would come of it, for a reason or an error."""
        if not self.more and not self.fewer:
            return "it takes the same columns in another order: rows without names would be read wrongly"
        told = [f"it needs {_few(self.more)}"] if self.more else []
        told += [f"it does not take {_few(self.fewer)}"] if self.fewer else []
        return f"{'; '.join(told)}: requests as they come now would be refused"


def other_inputs(model: ModelVersion, before: ModelVersion) -> OtherInputs | None:
    """How the columns that ``model`` takes are others than those of ``before``; None: they are the same.

    None also where one of the two names no columns (it was adopted without a signature): then nothing can be
    compared, which :func:`names_inputs` tells.

    >>> other_inputs(new, old).how  # doctest: +SKIP
    'it needs wind_gust; it does not take tailnum: requests as they come now would be refused'
    """
    if not names_inputs(model, before) or model.features == before.features:
        return None
    return OtherInputs(
        more=tuple(sorted(set(model.features) - set(before.features))),
        fewer=tuple(sorted(set(before.features) - set(model.features))),
    )


def names_inputs(*models: ModelVersion | None) -> bool:
    """Whether each of these is known and says which columns it takes."""
    return all(model is not None and bool(model.features) for model in models)


def _few(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
