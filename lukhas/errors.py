"""Every error that LUKHAS raises on purpose.

LukhasError
├── ConfigurationError          the operator must act: a setting, a file, the environment
│   ├── SettingsError             a wrong or misspelt LUKHAS_* value
│   └── PolicyError               a policy file with mistakes, each with its place
│       └── ExpressionError         one expression outside the language
├── RequestError                the caller must act
│   ├── InvalidRequest            the request cannot be understood                 400
│   │   ├── SignalError             a signal that is not one
│   │   │   └── UnknownSignal         a name that the policy does not declare
│   │   ├── InvalidId               an identifier of the wrong form
│   │   └── PreconditionRequired    a change that must name what it changes            428
│   ├── Unauthenticated           no key, or a key that is not valid               401
│   ├── Forbidden                 a valid key that may not do this                 403
│   │   └── PolicyDenied            the policy in force does not allow it
│   │       └── ModerationDenied      moderation found something that may not pass
│   ├── NotFound                  no such thing, or not yours                      404
│   │   └── KeyErased               its subject was erased: nobody can read it
│   ├── Conflict                  the thing has changed or exists already          409
│   │   └── PreconditionFailed      it is no longer what the request names           412
│   ├── TooLarge                  a body or header over its limit                  413
│   └── LimitReached              a limit of the key or tenant is used up          429
│       ├── RateLimited             requests, tokens or calls at once: waiting helps
│       └── BudgetExhausted         the day's budget: waiting for tomorrow helps
├── UpstreamError               the model's side failed
│   ├── UpstreamUnreachable       the call was surely not sent                     502
│   ├── UpstreamBroken            sent, and the answer was cut, empty or garbage   502
│   └── UpstreamTimeout           sent, and no answer in time                      504
└── UnavailableError            this service cannot serve now                      503
    ├── StorageUnavailable        the database cannot write or read
    ├── ModerationUnavailable     a required moderator cannot be asked
    ├── Overloaded                a bounded queue is full
    ├── ShuttingDown              the process drains
    └── IntegrityError            what is stored is not what was written

HTTP statuses are assigned in `lukhas/api/problems.py` alone; the numbers above are a reading aid.
"""

from __future__ import annotations

from typing import ClassVar


class LukhasError(Exception):
    """Any error that LUKHAS raises on purpose.

    Attributes:
        code: a stable, documented identifier (docs/reference/errors.md).
        message: what happened, for a person.
        hint: what to do about it; may be empty.
        retryable: whether the same request can succeed later unchanged.
        param: the request field or setting at fault, where one is known.
    """

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ConfigurationError(LukhasError):
    """The operator must act: a setting, a file or the environment is wrong."""

    code = "configuration_error"


class SettingsError(ConfigurationError):
    """A LUKHAS_* setting is misspelt or has a wrong value. Never carries the value."""

    code = "settings_error"


class PolicyError(ConfigurationError):
    """A policy that cannot take effect.

    Attributes:
        mistakes: every mistake found, each a `lukhas.modulation.policy.Mistake` with line and column.
    """

    code = "policy_invalid"

    def __init__(
        self, message: str, *, mistakes: tuple[object, ...] = (), hint: str = "", param: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, param=param)
        self.mistakes = mistakes


class ExpressionError(PolicyError):
    """An expression outside the policy language.

    Attributes:
        line: 1-based line inside the expression's source.
        column: 1-based column of the part that is refused.
        allowed: what the language would admit there.
    """

    code = "expression_invalid"

    def __init__(self, message: str, *, line: int, column: int, allowed: str) -> None:
        super().__init__(message, hint=f"Allowed: {allowed}.")
        self.line = line
        self.column = column
        self.allowed = allowed


class RequestError(LukhasError):
    """The caller must act."""

    code = "request_error"


class InvalidRequest(RequestError):
    """The request cannot be understood."""

    code = "invalid_request"


class SignalError(InvalidRequest):
    """A signal that is not one: a level outside [0, 1], a wrong ttl, a wrong type."""

    code = "invalid_signal"


class UnknownSignal(SignalError):
    """A signal name that the policy in force does not declare."""

    code = "unknown_signal"


class InvalidId(InvalidRequest):
    """An identifier of the wrong form."""

    code = "invalid_id"


class PreconditionRequired(InvalidRequest):
    """A change that must name what it changes, by If-Match, and does not."""

    code = "precondition_required"


class Unauthenticated(RequestError):
    """No key, or a key that is unknown, expired or revoked."""

    code = "invalid_api_key"


class Forbidden(RequestError):
    """A valid key that may not do this."""

    code = "forbidden"


class PolicyDenied(Forbidden):
    """The policy in force does not allow this call."""

    code = "policy_denied"


class ModerationDenied(PolicyDenied):
    """Moderation found something that may not pass. Never carries what it found."""

    code = "moderation_denied"


class NotFound(RequestError):
    """No such thing, or it belongs to somebody else."""

    code = "not_found"


class KeyErased(NotFound):
    """The subject was erased, and what was kept under its key went with it."""

    code = "subject_erased"


class Conflict(RequestError):
    """The thing exists already, or has changed since it was read."""

    code = "conflict"


class PreconditionFailed(Conflict):
    """The thing is no longer what the request's If-Match names."""

    code = "precondition_failed"


class TooLarge(RequestError):
    """A body, header or value over its limit."""

    code = "too_large"


class LimitReached(RequestError):
    """A limit of the key or its tenant is used up.

    Attributes:
        retry_after_s: when the same request can succeed, in seconds from now.
        headers: what the answer carries beside it, as raw headers: limits, what is left of them, when they reset.
    """

    code = "limit_reached"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint=hint, param=param)
        self.retry_after_s = retry_after_s
        self.headers: list[tuple[bytes, bytes]] = []


class RateLimited(LimitReached):
    """Too many requests, tokens or calls at once."""

    code = "rate_limit_exceeded"


class BudgetExhausted(LimitReached):
    """The day's budget does not hold this call."""

    code = "insufficient_quota"


class UpstreamError(LukhasError):
    """The model's side failed.

    Attributes:
        attempts: how many times the call was tried; 0 where the failure came after the answer had begun.
    """

    code = "upstream_error"
    retryable = True
    attempts: int = 0


class UpstreamUnreachable(UpstreamError):
    """The upstream could not be connected to: the call was surely not sent."""

    code = "upstream_unreachable"


class UpstreamBroken(UpstreamError):
    """The call was sent, and the answer was cut off, empty or not understandable."""

    code = "upstream_broken"


class UpstreamTimeout(UpstreamError):
    """The call was sent, and no answer came within its deadline."""

    code = "upstream_timeout"


class UnavailableError(LukhasError):
    """This service cannot serve now."""

    code = "unavailable"
    retryable = True


class StorageUnavailable(UnavailableError):
    """The database cannot be written or read."""

    code = "storage_unavailable"


class ModerationUnavailable(UnavailableError):
    """A moderator that is required could not be asked, so nothing passes."""

    code = "moderation_unavailable"


class Overloaded(UnavailableError):
    """A bounded queue is full."""

    code = "overloaded"


class ShuttingDown(UnavailableError):
    """The process drains and takes no new work."""

    code = "shutting_down"


class IntegrityError(UnavailableError):
    """What is stored is not what was written."""

    code = "integrity_error"
    retryable = False
