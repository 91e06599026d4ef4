"""Who is calling: the bearer key, or, where authentication is off, anybody on this very machine."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from lukhas.access.ring import ApiKey
from lukhas.api.asgi import Scope, header
from lukhas.errors import Forbidden, Unauthenticated
from lukhas.gateway.runtime import Runtime

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
LOCAL_KEY: Final = ApiKey(
    key_id="local", name="authentication is off", tenant="default", scopes=frozenset({"admin"}), created_ms=0
)


def authenticate(scope: Scope, runtime: Runtime) -> ApiKey:
    """Return the caller's key.

    Raises:
        Unauthenticated: no key, or none that is valid.
        Forbidden: authentication is off, and the request does not come from a program on this machine.
    """
    if runtime.settings.auth == "off":
        _check_local(scope)
        return LOCAL_KEY
    value = header(scope, b"authorization")
    kind, _, secret = (value or b"").partition(b" ")
    if kind.lower() != b"bearer" or not secret.strip():
        runtime.count_unauthenticated()
        raise Unauthenticated(
            "No API key was sent.", hint="Send one as 'Authorization: Bearer lk_...'. To make one: lukhas key create"
        )
    return runtime.authenticate(secret.strip().decode("latin-1"))


def require(key: ApiKey, scope: str) -> None:
    """Check that a key has a scope.

    Raises:
        Forbidden: it has not.
    """
    if not key.allows(scope):
        raise Forbidden(
            f"This key lacks the scope '{scope}'.", hint=f"Create one with it: lukhas key create --scope {scope}"
        )


def _check_local(scope: Scope) -> None:
    # A page of another site can send requests to loopback; it cannot choose the Host and Origin that come with them.
    host = (header(scope, b"host") or b"").decode("latin-1")
    origin = header(scope, b"origin")
    if _name_of(f"//{host}") not in _LOOPBACK_NAMES:
        raise Forbidden("Authentication is off, so only requests to a loopback host are answered.")
    if origin is not None and _name_of(origin.decode("latin-1")) not in _LOOPBACK_NAMES:
        raise Forbidden("Authentication is off, so requests from another site's page are refused.")


def _name_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
