"""Guards the parts of a Responses answer, each as a whole; plain answers and streams end in the same items."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

import orjson

from lukhas.errors import UpstreamBroken
from lukhas.openai.call import AnswerGuard, TextKind
from lukhas.openai.response_item import (
    ECHOED,
    FREE,
    CallForm,
    Item,
    find_call,
    is_server_word,
    make_call,
    read_payload,
    refusal_item,
    refusal_part,
    type_of,
)

# What every event of a stream may hold beside what it is about.
EVENT_FIELDS: Final = frozenset(
    ("type", "sequence_number", "item_id", "output_index", "content_index", "summary_index", "obfuscation")
)
# Of a response: what a server writes in a known form, though not in a known text.
_KNOWN_FIELDS: Final = frozenset(("error", "incomplete_details", "moderation", "usage"))
_is_base64: Final = re.compile(r"[A-Za-z0-9+/_-]+=*").fullmatch
_DEEPEST: Final = 128
_LOGPROB_FIELDS: Final = frozenset(("token", "bytes", "logprob", "top_logprobs"))
_REMEMBERED_CHARS: Final = 1_000_000
_MEDIA_FIELDS: Final[Mapping[str, str]] = {
    "partial_image_b64": "image",
    "b64_json": "image",
    "file_data": "file",
    "audio": "audio",
}


class AnswerPass:
    """Guards the values of one answer, each as a whole, and remembers what it has seen.

    Streams repeat their values in several events; what was judged once is not judged, or recorded, again.

    Attributes:
        is_ended: whether a text was blocked, so that the answer ends there.
        blocked_calls: ids of the blocked tool calls.
        tools: the request's tools as the response repeats them.
    """

    def __init__(self, guard: AnswerGuard) -> None:
        self._guard = guard
        self._seen: dict[tuple[TextKind, str], tuple[str, bool]] = {}
        self._seen_chars = 0
        self._hit = False
        self._withheld = False
        self._media: dict[str, bool] = {}
        self.is_ended = False
        self.blocked_calls: list[str] = []
        self.tools: Any = None

    @property
    def refusal(self) -> str:
        """Why the last thing was blocked; never empty, since an empty refusal reads as none."""
        return self._guard.refusal or "A part of the answer was blocked by policy."

    def take_hit(self) -> bool:
        """Return whether a text was blocked since the last time."""
        hit, self._hit = self._hit, False
        return hit

    def text(self, kind: TextKind, text: str) -> str:
        """Return what may be released of a whole text; `take_hit` then tells whether it was blocked."""
        if not text:
            return text
        known = self._seen.get((kind, text))
        if known is None:
            channel = self._guard.open(kind)
            released = channel.feed(text)
            released += channel.finish()
            known = (released, channel.is_blocked)
            self._seen_chars += len(text)
            if self._seen_chars <= _REMEMBERED_CHARS:
                self._seen[kind, text] = known
        self._hit = self._hit or known[1]
        # The same object where nothing was changed: that is how changes are seen.
        return text if known[0] == text else known[0]

    def admit(self, kind: str) -> bool:
        """Say whether media of this kind may pass; asked once for each kind."""
        if kind not in self._media:
            self._media[kind] = self._guard.admit_media(kind)
        return self._media[kind]

    def tree(self, value: Any, name: str = "", *, is_free: bool = False, depth: int = 0) -> Any:
        """Return a value with every string in it guarded; the value itself where nothing was changed.

        Args:
            name: of the member that holds it, which may say that the server wrote it.
            is_free: whether names say nothing here, because the model may have chosen them.

        Raises:
            UpstreamBroken: nested deeper than can be guarded.
        """
        if isinstance(value, str):
            if not value or (not is_free and is_server_word(name, value)) or name == "encrypted_content":
                return value
            media = self.find_media(name, value)
            if media is None:
                return self.text("other", value)
            if self.admit(media):
                return value
            self._withheld = True
            return ""
        if depth > _DEEPEST:
            raise UpstreamBroken("The upstream's answer is nested too deeply to be guarded.")
        if isinstance(value, dict):
            return self._members(cast("Item", value), is_free=is_free, depth=depth)
        if isinstance(value, list):
            entries = cast("list[Any]", value)
            guarded = [self.tree(entry, is_free=is_free, depth=depth + 1) for entry in entries]
            return guarded if any(new is not old for new, old in zip(guarded, entries, strict=True)) else entries
        return value

    def _members(self, members: Item, *, is_free: bool, depth: int) -> Item:
        changed: Item = {}
        is_changed = False
        for name, value in members.items():
            key = self.text("other", name) if is_free else name
            new = self.tree(value, name, is_free=is_free or name in FREE, depth=depth + 1)
            is_changed = is_changed or new is not value or key is not name
            changed[key] = new
        return changed if is_changed else members

    def find_media(self, name: str, value: str) -> str | None:
        """Return which kind of media a string is; None where it is text."""
        if value.startswith("data:") and ";base64," in value[:256]:
            head = value[5:11]
            return "image" if head.startswith("image") else "audio" if head.startswith("audio") else "file"
        kind = _MEDIA_FIELDS.get(name)
        return kind if kind is not None and is_base64(value) else None

    def rest(self, event: Item, *known: str) -> Item:
        """Return a stream's event with all its fields guarded but the usual ones and those that are known already."""
        new = event
        for name, value in event.items():
            if isinstance(value, (str, dict, list)) and name not in EVENT_FIELDS and name not in known:
                guarded: Any = self.tree(value, name)
                if self.take_hit():
                    guarded = None
                if guarded is not value:
                    new = {**new, name: guarded}
        return new

    def error(self, event: Item) -> Item:
        """Return an error event with its texts guarded; one that is blocked says only that."""
        new = event
        for name, value in event.items():
            guarded: Any = self.tree(value, name)
            if self.take_hit():
                guarded = self.refusal if name == "message" else {"message": self.refusal}
            if guarded is not value:
                new = {**new, name: guarded}
        return new

    def item(self, value: Any) -> list[Any]:
        """Return what stands in the place of one output item: itself, itself and a refusal, or a refusal alone."""
        if not isinstance(value, dict):
            guarded = self.tree(value, is_free=True)
            return [] if self._end_if_hit() else [guarded]
        item = cast("Item", value)
        kind = type_of(item)
        if kind == "message":
            return [self._message(item)]
        if kind == "reasoning":
            return self._reasoning(item)
        form = find_call(kind)
        if form is not None:
            return [self._call(item, form)]
        return [self._or_refusal(item, self._fields(item, is_free=not kind.endswith("_output")))]

    def _fields(self, item: Item, *, without: tuple[str, ...] = (), is_free: bool = False) -> Item:
        """Return an item with its own fields guarded, but those named."""
        changed = item
        for name, value in item.items():
            if name in without:
                continue
            new = self.tree(value, name, is_free=name in FREE or (is_free and not isinstance(value, str)))
            if new is not value:
                changed = {**changed, name: new}
        return changed

    def _message(self, item: Item) -> Item:
        content: Any = item.get("content")
        changed = self._fields(item, without=("content",))
        if self._end_if_hit() or self._is_withheld():
            parts = cast("list[Any]", content) if isinstance(content, list) else []
            return {**changed, "status": "incomplete", "content": [*self._parts(parts)[0], refusal_part(self.refusal)]}
        if isinstance(content, str):
            text = self.text("text", content)
            if self._end_if_hit():
                return {**changed, "status": "incomplete", "content": [refusal_part(self.refusal)]}
            return changed if text is content else {**changed, "content": text}
        if not isinstance(content, list):
            return changed
        parts, is_cut = self._parts(cast("list[Any]", content))
        if is_cut:
            return {**changed, "status": "incomplete", "content": parts}
        return changed if parts is content else {**changed, "content": parts}

    def _parts(self, parts: list[Any]) -> tuple[list[Any], bool]:
        guarded: list[Any] = []
        for part in parts:
            new = self.part(part)
            if self._end_if_hit() or self._is_withheld():
                return [*guarded, refusal_part(self.refusal)], True
            guarded.append(new)
        return (guarded if any(n is not o for n, o in zip(guarded, parts, strict=True)) else parts), False

    def part(self, part: Any, released: str | None = None) -> Any:
        """Return one part of a message's content, guarded; `take_hit` then tells whether it was blocked.

        Args:
            released: what a stream has released of its text already, which is then not judged again.
        """
        if not isinstance(part, dict):
            return self.tree(part, is_free=True)
        fields = cast("Item", part)
        kind = type_of(fields)
        name = "refusal" if kind == "refusal" else "text"
        text: Any = fields.get(name)
        if not isinstance(text, str):
            return self.tree(fields)
        if released is None:
            of: TextKind = "refusal" if kind == "refusal" else "reasoning" if kind.startswith("reasoning") else "text"
            released = self.text(of, text)
        changed = fields if released == text else {**fields, name: released}
        rest = self._fields(changed, without=(name, "logprobs"))
        logprobs: Any = fields.get("logprobs")
        if isinstance(logprobs, list) and logprobs:
            kept = self.logprobs(cast("list[Any]", logprobs)) if released == text else []
            rest = rest if kept is logprobs else {**rest, "logprobs": kept}
        elif logprobs is not None and not isinstance(logprobs, list):
            rest = {**rest, "logprobs": cast("list[Any]", [])}
        return rest

    def logprobs(self, entries: list[Any]) -> list[Any]:
        """Return a run of logprobs if each of its readings, the alternatives' too, may pass as it is; else none."""
        entries = clean_logprobs(entries)
        for reading in read_tokens(entries):
            whole = "".join(reading)
            if self.text("logprobs", whole) != whole:
                return []
        return entries

    def _reasoning(self, item: Item) -> list[Any]:
        changed = self._fields(item, without=("summary", "content", "encrypted_content"))
        is_cut = self.take_hit()
        for name in ("summary", "content"):
            parts: Any = changed.get(name)
            if not isinstance(parts, list):
                guarded: Any = self.text("reasoning", parts) if isinstance(parts, str) else self.tree(parts)
                is_cut = is_cut or self.take_hit()
            elif is_cut:
                guarded = []
            else:
                guarded, is_cut = self._reasoning_parts(cast("list[Any]", parts))
            if guarded is not parts:
                changed = {**changed, name: guarded}
        if not is_cut:
            return [changed]
        self.is_ended = True
        return self.cut_reasoning(changed)

    def cut_reasoning(self, item: Item) -> list[Any]:
        """Return a reasoning item that was blocked, and the refusal that follows it."""
        left = {name: value for name, value in item.items() if name != "encrypted_content"}
        return [{**left, "status": "incomplete"}, refusal_item(item, self.refusal, status="incomplete")]

    def _reasoning_parts(self, parts: list[Any]) -> tuple[list[Any], bool]:
        guarded: list[Any] = []
        for part in parts:
            new = self.reasoning_part(part)
            guarded.append(new)
            if self.take_hit():
                return guarded, True
        return (guarded if any(n is not o for n, o in zip(guarded, parts, strict=True)) else parts), False

    def reasoning_part(self, part: Any, released: str | None = None) -> Any:
        """Return one part of reasoning with its text guarded."""
        fields = cast("Item", part) if isinstance(part, dict) else {}
        text: Any = fields.get("text")
        if not isinstance(text, str):
            return self.tree(part, is_free=True)
        new = self.text("reasoning", text) if released is None else released
        changed = fields if new == text else {**fields, "text": new}
        return self._fields(changed, without=("text",))

    def _call(self, item: Item, form: CallForm) -> Item:
        arguments, fields, is_json = read_payload(item, form)
        call = make_call(item, form, arguments, self.tools)
        verdict = self._guard.judge(call)
        message = verdict.message
        changed = item
        is_allowed = verdict.is_allowed
        if is_allowed and verdict.arguments != arguments:
            put_back = _put_back(item, fields, verdict.arguments, is_json=is_json)
            changed, is_allowed = (item, False) if put_back is None else (put_back, True)
        result: Any = item.get("result")
        is_image = type_of(item) == "image_generation_call" and isinstance(result, str) and is_base64(result)
        if is_allowed and is_image and not self.admit("image"):
            return refusal_item(item, self.refusal, status="completed")
        if not is_allowed:
            if call.call_id is not None:
                self.blocked_calls.append(call.call_id)
            return refusal_item(item, message or self.refusal, status="completed")
        judged = (*fields, "result") if is_image else fields
        return self._or_refusal(item, self._fields(changed, without=judged, is_free=not form.payload))

    def _or_refusal(self, item: Item, guarded: Item) -> Item:
        if self._end_if_hit():
            return refusal_item(item, self.refusal, status="incomplete")
        return refusal_item(item, self.refusal, status="completed") if self._is_withheld() else guarded

    def _end_if_hit(self) -> bool:
        hit = self.take_hit()
        self.is_ended = self.is_ended or hit
        return hit

    def _is_withheld(self) -> bool:
        withheld, self._withheld = self._withheld, False
        return withheld

    def envelope(self, answer: Item) -> Item:
        """Return a response with every string guarded but its output and what it repeats of its request."""
        changed = answer
        for name, value in answer.items():
            if name in ECHOED or name in ("output", "output_text"):
                continue
            new = self.tree(value, name, is_free=name not in _KNOWN_FIELDS and not isinstance(value, str))
            if self.take_hit():
                # No part of the answer itself: it is taken out, and the answer stands.
                new = (
                    {**cast("Item", new), "message": self.refusal}
                    if name == "error" and isinstance(new, dict)
                    else None
                )
            self._withheld = False
            if new is not value:
                changed = {**changed, name: new}
        return changed


def is_base64(text: str) -> bool:
    """Say whether a text is data written in base64, as far as its beginning shows."""
    return bool(text) and _is_base64(text[:256]) is not None


def clean_logprobs(entries: list[Any]) -> list[Any]:
    """Return logprobs without anything but tokens and their numbers; the list itself where that is all it holds."""
    if all(_is_clean(entry) for entry in entries):
        return entries
    clean: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            kept = {name: value for name, value in cast("Item", entry).items() if name in _LOGPROB_FIELDS}
            others: Any = kept.get("top_logprobs")
            if others is not None:
                kept["top_logprobs"] = clean_logprobs(cast("list[Any]", others)) if isinstance(others, list) else []
            clean.append(kept)
    return clean


def _is_clean(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    fields = cast("Item", entry)
    others: Any = fields.get("top_logprobs")
    if not others:
        return fields.keys() <= _LOGPROB_FIELDS
    return (
        fields.keys() <= _LOGPROB_FIELDS
        and isinstance(others, list)
        and all(_is_clean(other) for other in cast("list[Any]", others))
    )


def read_tokens(entries: list[Any]) -> list[list[str]]:
    """Return the readings of a run of logprobs: the tokens chosen, then the alternatives of each rank."""
    chosen: list[str] = []
    ranks: list[list[str]] = []
    for entry in entries:
        fields = cast("Item", entry) if isinstance(entry, dict) else {}
        token: Any = fields.get("token")
        chosen.append(token if isinstance(token, str) else "")
        others: Any = fields.get("top_logprobs")
        for rank, other in enumerate(cast("list[Any]", others) if isinstance(others, list) else []):
            alternative: Any = cast("Item", other).get("token") if isinstance(other, dict) else None
            if rank == len(ranks):
                ranks.append([])
            ranks[rank].append(alternative if isinstance(alternative, str) else "")
    return [chosen, *ranks]


def _put_back(item: Item, fields: tuple[str, ...], arguments: str, *, is_json: bool) -> Item | None:
    """Return the item with what the guard left of its arguments; None where that no longer has their form."""
    if not is_json:
        return {**item, fields[0]: arguments} if fields else None
    try:
        value: Any = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict) or set(cast("Item", value)) != set(fields):
        return None
    return {**item, **cast("Item", value)}
