"""Keeping the JSONL file near the log's head, from a thread that looks a few times a second."""

from __future__ import annotations

import logging
import threading
from typing import Final

from lukhas.audit.jsonl import JsonlFile
from lukhas.errors import LukhasError
from lukhas.telemetry import Metrics

log = logging.getLogger("lukhas.audit.jsonl")

LOOK_EVERY_S: Final = 0.2
_AFTER_FAILURE_S: Final = 1.0


class JsonlFollower:
    """Appends what others committed. Also keeps the file's metrics where the writer itself appends (required)."""

    def __init__(self, file: JsonlFile, metrics: Metrics, *, every_s: float = LOOK_EVERY_S) -> None:
        self._file = file
        self._metrics = metrics
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jsonl", daemon=True)
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the file does not follow the log; None where it does."""
        return self._problem

    def start(self) -> None:
        """Start the thread. A follower starts once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Append what is in the log by now, and stop. Call it after the writer was closed, so that nothing is missed.

        Returns:
            Whether the thread ended within the time.
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._every_s if self._problem is None else _AFTER_FAILURE_S):
                self._look()
            self._look()
        finally:
            self._file.close()

    def _look(self) -> None:
        try:
            self._file.catch_up()
        except LukhasError as failure:
            self._metrics.audit_failures.add("jsonl")
            if self._problem != failure.message:
                log.warning("jsonl_not_appended", extra={"problem": failure.message, "hint": failure.hint})
            self._problem = failure.message
        else:
            if self._problem is not None:
                log.warning("jsonl_appends_again", extra={"file": str(self._file.status().path)})
            self._problem = None
        try:
            self._metrics.jsonl_lag.value = self._file.lag()
        except LukhasError:
            pass  # the log cannot be read, which the database's own check says
