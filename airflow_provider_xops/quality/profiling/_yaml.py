"""YAML that reads back as it was written.

Private to :mod:`airflow_provider_xops.quality.profiling`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["yaml_text"]


def yaml_text(data: Any) -> str:
    """Plain data as YAML, in its own order.

    Letters stay letters; but PyYAML writes some characters bare that it reads back as line breaks (U+0085),
    so what does not read back is escaped.
    """
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    try:
        if yaml.safe_load(text) == data:
            return text
    except yaml.YAMLError:
        pass
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=100))
