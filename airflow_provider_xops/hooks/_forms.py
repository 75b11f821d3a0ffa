"""Connection forms for Airflow 3.1, which asks the hook classes; later ones read the metadata alone.

For the hooks. Both come from the same literal, :mod:`airflow_provider_xops.get_provider_info`.
"""

from __future__ import annotations

import importlib
from typing import Any

from airflow_provider_xops.get_provider_info import get_provider_info

__all__ = ["ConnectionForm"]


class ConnectionForm:
    """Gives a hook with a ``conn_type`` the two methods that Airflow 3.1 calls."""

    conn_type: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("get_connection_form_widgets", "get_ui_field_behaviour"):
            setattr(cls, name, vars(ConnectionForm)[name])  # Airflow looks at the class itself, not its bases

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The extra fields; none where WTForms is not there (then only the form lacks them)."""
        try:
            fab: Any = importlib.import_module("flask_appbuilder.fieldwidgets")
            forms: Any = importlib.import_module("wtforms")
        except ImportError:
            return {}
        widgets = {}
        for name, field in _declared(cls.conn_type).get("conn-fields", {}).items():
            schema, make, widget = field["schema"], forms.StringField, fab.BS3TextFieldWidget
            if schema.get("format") == "password":
                make, widget = forms.PasswordField, fab.BS3PasswordFieldWidget
            elif "integer" in schema["type"]:
                make = forms.IntegerField
            widgets[name] = make(field["label"], description=field.get("description", ""), widget=widget())
        return widgets

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Which standard fields are hidden, renamed or explained."""
        behaviour = _declared(cls.conn_type).get("ui-field-behaviour", {})
        return {name.replace("-", "_"): value for name, value in behaviour.items()}


def _declared(conn_type: str) -> dict[str, Any]:
    types: list[dict[str, Any]] = get_provider_info()["connection-types"]
    return next((each for each in types if each["connection-type"] == conn_type), {})
