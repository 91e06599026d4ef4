"""Capturing what a call says, where the settings ask for it: the request as it came, the answer as it was released.

A text goes into the transaction of its call's record. Whatever keeps a text from being captured costs that text, never
the call, and is counted.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from lukhas.access.ring import ApiKey
from lukhas.audit.content import ContentRow, Owner, Part, seal_content
from lukhas.audit.excerpt import MARGIN_CHARS, make_excerpt
from lukhas.clock import Clock
from lukhas.errors import LukhasError
from lukhas.gateway.heavy_work import HeavyWork
from lukhas.openai.call import Call
from lukhas.openai.stream_text import StreamText
from lukhas.settings import Settings
from lukhas.telemetry import Metrics
from lukhas.vault.subjects import SubjectVault

log = structlog.get_logger("lukhas.capture")

# The caller's own names of its end user: the record has a sub_ id instead, and so has the text.
_USER_FIELDS: Final = ("user", "safety_identifier")


class ContentCapture:
    """Opens the capture of each call. One for each gateway, where `settings.audit_content` is on."""

    def __init__(self, settings: Settings, vault: SubjectVault, clock: Clock, metrics: Metrics, heavy: HeavyWork):
        self.clock = clock
        self.heavy = heavy
        self.most_bytes = settings.audit_content_max_bytes
        self._vault = vault
        self._metrics = metrics
        self._deadline_s = settings.writer_deadline_s
        self._said: str | None = None

    async def open(
        self, audit_id: str, key: ApiKey, session: str | None, user: str | None, call: Call, size_bytes: int
    ) -> CallCapture | None:
        """Return the capture of a call with its request sealed; None where it cannot be.

        Args:
            session, user: `sub_...` ids, where the call names them.
            size_bytes: how large its body is.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                if session is None and user is None:
                    # Somebody's texts they are; erasing the key's subject makes all of them unreadable.
                    user = await self._vault.resolve(key.tenant, "key", key.key_id)
                owner = Owner(key.tenant, audit_id, session, user)
                keys = [await self._vault.keys.key(sub_id) for sub_id in owner.subjects]
            capture = CallCapture(self, owner, keys, is_stream=call.stream)
            if call.body:
                named = {name: user for name in _USER_FIELDS if call.body.get(name)}
                await capture.keep("request", {**call.body, **named}, size_bytes)
        except (LukhasError, TimeoutError) as failure:
            self.count_failure(failure)
            return None
        return capture

    def count_failure(self, failure: Exception) -> None:
        """Count a text that could not be captured; say why, once for each reason in a row."""
        self._metrics.audit_failures.add("content")
        reason = str(failure) or type(failure).__name__
        if reason != self._said:
            log.warning("content_not_captured", problem=reason)
        self._said = reason


class CallCapture:
    """What is captured of one call, until a record takes it along."""

    __slots__ = ("_has_answer", "_keys", "_owner", "_rows", "_stream", "_with")

    def __init__(self, capture: ContentCapture, owner: Owner, keys: list[bytes], *, is_stream: bool) -> None:
        self._with = capture
        self._owner = owner
        self._keys = keys
        self._rows: list[ContentRow] = []
        self._stream = StreamText(capture.most_bytes + MARGIN_CHARS + 1) if is_stream else None
        self._has_answer = False

    def take_rows(self) -> list[ContentRow]:
        """Return what the next record takes along; nothing the second time."""
        rows, self._rows = self._rows, []
        return rows

    def take_released(self, block: bytes) -> None:
        """Take what was just released of a streamed answer."""
        if self._stream is not None:
            try:
                self._stream.take(block)
            except LukhasError as failure:
                self._stream = None
                self._with.count_failure(failure)

    async def keep(self, part: Part, value: Any, size_bytes: int) -> None:
        """Seal a part, on a thread where it is large. Of an answer, the first one counts."""
        if part == "answer" and self._has_answer:
            return
        row = await self._with.heavy.run(size_bytes, self._seal, part, value)
        self._rows.append(row)
        self._has_answer = self._has_answer or part == "answer"

    async def keep_stream(self) -> None:
        """Seal what was released of a streamed answer."""
        runs = self._take_runs()
        if runs:
            await self.keep("answer", runs, sum(map(len, runs.values())))

    def keep_stream_now(self) -> None:
        """Seal what was released of a streamed answer whose caller is gone: nothing can be awaited there."""
        runs = self._take_runs()
        if runs and not self._has_answer:
            self._rows.append(self._seal("answer", runs))
            self._has_answer = True

    def _take_runs(self) -> dict[str, str]:
        stream, self._stream = self._stream, None
        return {} if stream is None else stream.runs

    def _seal(self, part: Part, value: Any) -> ContentRow:
        excerpt = make_excerpt(value, self._with.most_bytes)
        return seal_content(self._owner, part, excerpt, self._with.clock.now_ms(), self._keys)
