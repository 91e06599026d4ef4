"""Signing and shipping beside the calls: on the loop that serves, with the blocking work in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal

from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.ship import Shipper
from lukhas.errors import LukhasError
from lukhas.telemetry import Metrics

Part = Literal["checkpoint", "ship"]
Notice = Callable[[Part, LukhasError | None], None]

_LAST_SHIP_S: Final = 5.0


def _say_nothing(part: Part, failure: LukhasError | None) -> None:
    pass


class Attestation:
    """Signs the log and ships what was signed; a failure is kept, counted and told, and never raised.

    Attributes:
        problems: what failed at the last try, by part; empty when all is well.
    """

    def __init__(
        self,
        checkpoints: CheckpointStore,
        shipper: Shipper | None,
        metrics: Metrics,
        notice: Notice = _say_nothing,
    ) -> None:
        """Prepare; `sign` and `ship` are then called again and again, each from a task of its own.

        Args:
            checkpoints: with a signer.
            shipper: None where nothing is shipped.
            metrics: gets times, sizes and failures.
            notice: told on the loop when a part begins to fail, fails otherwise, or works again (None).
        """
        self.problems: dict[Part, LukhasError] = {}
        self._checkpoints = checkpoints
        self._shipper = shipper
        self._metrics = metrics
        self._notice = notice

    async def sign(self) -> bool:
        """Sign the log where it has grown; say whether the newest checkpoint covers it."""
        try:
            signed = await asyncio.to_thread(self._checkpoints.sign)
        except LukhasError as failure:
            self._fail("checkpoint", failure)
            return False
        self._metrics.checkpoint_time.value = signed.time_ms / 1000
        self._metrics.checkpoint_size.value = signed.size
        self._settle("checkpoint")
        return True

    async def ship(self, patience_s: float | None = None) -> bool:
        """Ship the newest checkpoint, where shipping is set; say whether that worked.

        Args:
            patience_s: how long tiles are sent before the rest is left to the next time; the packaged time when None.
        """
        shipper = self._shipper
        if shipper is None:
            return True
        try:
            if patience_s is None:
                shipped = await asyncio.to_thread(shipper.ship)
            else:
                shipped = await asyncio.to_thread(shipper.ship, patience_s)
        except LukhasError as failure:
            self._fail("ship", failure)
            return False
        if shipped is not None:
            self._metrics.shipped_size.value = shipped.size
        self._settle("ship")
        return True

    async def thin(self) -> int:
        """Delete the checkpoints that are not needed any more; return how many. For about once an hour."""
        try:
            return await asyncio.to_thread(self._checkpoints.thin)
        except LukhasError as failure:
            self._fail("checkpoint", failure)
            return 0

    async def finish(self) -> bool:
        """Sign and ship for the last time, after the last record; say whether both worked.

        Ends within the writer's and the target's time limits, and sends tiles for at most five seconds.
        """
        if self._shipper is not None:
            self._shipper.hurry(_LAST_SHIP_S)
        signed = await self.sign()
        return await self.ship(_LAST_SHIP_S) and signed

    def _fail(self, part: Part, failure: LukhasError) -> None:
        self._metrics.audit_failures.add(part)
        before = self.problems.get(part)
        self.problems[part] = failure
        if before is None or before.message != failure.message:
            self._notice(part, failure)

    def _settle(self, part: Part) -> None:
        if self.problems.pop(part, None) is not None:
            self._notice(part, None)
