"""What a key may do beside calling the model, and what a tenant may be called."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from lukhas.errors import InvalidRequest

SCOPES: Final[Mapping[str, str]] = {
    "admin": "Everything, for every tenant; implies all other scopes.",
    "signals": "Emit any signal, and read signals, for subjects of the key's own tenant.",
    "signals:tenant": "Emit signals that hold for the whole tenant.",
    "signals:release": "Release tightened subjects of the key's own tenant.",
    "audit": "Read the tenant's audit records.",
    "audit:erase": "Forget subjects of the key's own tenant.",
    "policy": "Read, try out and change the policy.",
    "feedback": "Send feedback cards as the key itself.",
    "feedback:on_behalf": "Send feedback cards for the end users they name.",
    "metrics": "Read /metrics.",
}

_TENANT: Final = re.compile(r"[a-z0-9._-]{1,64}\Z", re.ASCII)


def check_scopes(names: Iterable[str]) -> frozenset[str]:
    """Return the names as a set.

    Raises:
        InvalidRequest: a name that is no scope; says which one is nearest.
    """
    if isinstance(names, str):
        raise InvalidRequest("Scopes are a list of names, not one text.", param="scopes")
    chosen = frozenset(names)
    for name in sorted(chosen, key=str):
        if name not in SCOPES:
            near = difflib.get_close_matches(str(name), SCOPES, n=1, cutoff=0.4)
            known = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(SCOPES)}."
            raise InvalidRequest(f"Unknown scope '{str(name)[:40]}'.", hint=known, param="scopes")
    return chosen


def check_tenant(name: str) -> str:
    """Return the name where it may be a tenant's: 1 to 64 of a-z, 0-9, dot, underscore, hyphen.

    Raises:
        InvalidRequest: any other name.
    """
    if not _TENANT.match(name):
        raise InvalidRequest(
            "This is not a tenant's name.", hint="Use 1 to 64 of a-z, 0-9, '.', '_' and '-'.", param="tenant"
        )
    return name
