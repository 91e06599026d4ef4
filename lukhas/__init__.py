"""LUKHAS PWM: signals in; bounded, explained changes to the model call out; every decision on record.

Public names are imported on first use, so that `import lukhas` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lukhas.audit.store import audit_log_read, audit_log_write
    from lukhas.flags import is_enabled
    from lukhas.modulation.dispatcher import Decision, Modulator
    from lukhas.modulation.signals import Signal
    from lukhas.settings import Secret

__version__ = "0.1.0"

_HOMES = {
    "Decision": "lukhas.modulation.dispatcher",
    "Modulator": "lukhas.modulation.dispatcher",
    "Secret": "lukhas.settings",
    "Signal": "lukhas.modulation.signals",
    "audit_log_read": "lukhas.audit.store",
    "audit_log_write": "lukhas.audit.store",
    "is_enabled": "lukhas.flags",
}

__all__ = [
    "Decision",
    "Modulator",
    "Secret",
    "Signal",
    "__version__",
    "audit_log_read",
    "audit_log_write",
    "is_enabled",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lukhas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
