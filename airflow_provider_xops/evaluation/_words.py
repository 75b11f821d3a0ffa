"""Figures as people read them: as many digits as the interval supports, and never a missing one as 0."""

from __future__ import annotations

import math

from airflow_provider_xops.training.metrics import METRICS

__all__ = ["MISSING", "better", "estimate", "method_name", "p_value", "percent", "plain", "signed"]

MISSING = "not measured"
_HIGHER, _LOWER = "higher is better", "lower is better"
_METHODS = {
    "bca": "bias-corrected and accelerated bootstrap (BCa)",
    "percentile": "percentile bootstrap",
    "delong": "DeLong",
    "mcnemar_mid_p": "McNemar (mid-p)",
    "tango_score": "Tango's score test",
    "paired_bootstrap": "paired bootstrap",
    "cluster_bootstrap": "cluster bootstrap",
    "spiegelhalter": "Spiegelhalter's test",
    "holm": "Holm",
    "bonferroni": "Bonferroni",
    "benjamini_hochberg": "Benjamini-Hochberg",
    "shap": "SHAP values",
    "permutation": "Permutation importance",
}


def estimate(value: float | None, lower: float | None = None, upper: float | None = None) -> str:
    """A value with its interval, in as many decimals as show two digits of the interval's width.

    >>> estimate(0.71342, 0.7021, 0.7245), estimate(12.3456), estimate(None)
    ('0.713 [0.702, 0.725]', '12.35', 'not measured')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if lower is None or upper is None or not (math.isfinite(lower) and math.isfinite(upper)):
        return plain(value)
    if not lower < upper:
        return f"{plain(value)} [{plain(lower)}, {plain(upper)}]"
    decimals = min(max(1 - math.floor(math.log10(upper - lower)), 0), 8)
    return f"{_fixed(value, decimals)} [{_fixed(lower, decimals)}, {_fixed(upper, decimals)}]"


def signed(value: float | None, lower: float | None = None, upper: float | None = None) -> str:
    """A difference with its interval.

    >>> signed(0.0123, 0.0011, 0.0236)
    '+0.012 [0.001, 0.024]'
    """
    shown = estimate(value, lower, upper)
    above = value is not None and math.isfinite(value) and value > 0
    rounded_away = not shown.partition(" ")[0].strip("0.,")
    return f"+{shown}" if above and not rounded_away else shown


def plain(value: float | int | None) -> str:
    """A number in four digits.

    >>> plain(1234567), plain(0.00012345), plain(None)
    ('1,234,567', '0.0001234', 'not measured')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if isinstance(value, int) or (abs(value) >= 1000 and float(value).is_integer()):
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def percent(share: float | None) -> str:
    """A share of 1.

    >>> percent(0.1234)
    '12.3 %'
    """
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.3g} %"


def p_value(value: float | None) -> str:
    """A p-value, without digits that mean nothing.

    >>> p_value(0.04251), p_value(1e-9), p_value(None)
    ('0.043', '< 0.001', '')
    """
    if value is None or not math.isfinite(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def better(metric: str) -> str:
    """The direction in which a metric gets better; nothing for one that is unknown here.

    >>> better("roc_auc")
    'higher is better'
    """
    known = METRICS.get(metric)
    return "" if known is None else _HIGHER if known.greater_is_better else _LOWER


def method_name(method: str) -> str:
    """A method as its literature calls it; another name as it is, without underscores.

    >>> method_name("mcnemar_mid_p"), method_name("my_test")
    ('McNemar (mid-p)', 'my test')
    """
    return _METHODS.get(method, method.replace("_", " "))


def _fixed(value: float, decimals: int) -> str:
    shown = f"{value:,.{decimals}f}"
    return shown.removeprefix("-") if float(shown.replace(",", "")) == 0 else shown
