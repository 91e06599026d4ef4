"""ETag, If-Match and If-None-Match (RFC 9110, section 13), for everything that can be edited."""

from __future__ import annotations

from fastapi import Request, Response

from lukhas.errors import InvalidRequest, PreconditionRequired


def read_if_match(request: Request, *, is_required: bool) -> frozenset[str] | None:
    """Return the tags of which the thing must have one, without quotes; None where any will do.

    Args:
        is_required: whether a request without the header is refused; `*` always says that any will do.

    Raises:
        PreconditionRequired: the header is missing.
        InvalidRequest: it holds no tag, or a weak one, which never matches.
    """
    tags = _read(request, "if-match")
    if tags is None and is_required:
        raise PreconditionRequired(
            "This change must name what it changes.",
            hint="Read the thing first, and send its ETag as If-Match.",
            param="If-Match",
        )
    if tags is None or tags == ["*"]:
        return None
    if not tags or any(len(tag) < 2 or tag[0] != '"' or tag[-1] != '"' for tag in tags):
        raise InvalidRequest('If-Match must be an ETag in quotes, such as "pol_...", or *.', param="If-Match")
    return frozenset(tag[1:-1] for tag in tags)


def answer_tagged(request: Request, answer: Response, tag: str) -> Response:
    """Return the answer with its ETag; where the caller has this very version already, 304 without a body."""
    quoted = f'"{tag}"'
    known = _read(request, "if-none-match") or []
    if request.method == "GET" and ("*" in known or quoted in [one.removeprefix("W/") for one in known]):
        answer = Response(status_code=304, headers={"x-request-id": answer.headers.get("x-request-id", "")})
    answer.headers["etag"] = quoted
    return answer


def _read(request: Request, name: str) -> list[str] | None:
    found = request.headers.getlist(name)
    if not found:
        return None
    return [tag for value in found for part in value.split(",") if (tag := part.strip())]
