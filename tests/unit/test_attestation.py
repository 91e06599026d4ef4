"""Signing and shipping beside the calls: failures are counted, kept and told once, and end by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_scene import Scene, check_whole, open_scene

from lukhas.audit.attestation import Attestation
from lukhas.audit.ship_file import FileTarget
from lukhas.errors import LukhasError
from lukhas.telemetry import Metrics


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with open_scene(tmp_path) as found:
        yield found


async def test_attestation_signs_ships_and_says_so_in_metrics(scene: Scene, tmp_path: Path) -> None:
    """After both, the metrics have time and sizes of what was signed and shipped."""
    metrics = Metrics()
    target = FileTarget(tmp_path / "out")
    attestation = Attestation(scene.checkpoints, scene.shipper(target), metrics)
    scene.append(300)
    assert await attestation.sign() and await attestation.ship()
    assert metrics.checkpoint_time.value == scene.clock.now_ms() / 1000
    assert (metrics.checkpoint_size.value, metrics.shipped_size.value) == (300, 300)
    assert attestation.problems == {}
    assert check_whole(target, scene.signer.verifier) == 300


async def test_attestation_failure_is_told_once_and_when_it_ends(scene: Scene, tmp_path: Path) -> None:
    """A target that cannot be written is counted at each try, told at the first, and told again when it works."""
    told: list[tuple[str, bool]] = []

    def notice(part: str, failure: LukhasError | None) -> None:
        told.append((part, failure is None))

    metrics = Metrics()
    place = tmp_path / "out"
    place.write_bytes(b"")
    attestation = Attestation(scene.checkpoints, scene.shipper(FileTarget(place)), metrics, notice)
    scene.append(1)
    await attestation.sign()
    assert not await attestation.ship() and not await attestation.ship()
    assert set(attestation.problems) == {"ship"}
    assert metrics.audit_failures.values == {("ship",): 2}
    place.unlink()
    assert await attestation.ship()
    assert attestation.problems == {}
    assert told == [("ship", False), ("ship", True)]


async def test_attestation_signing_failure_leaves_the_last_metrics(scene: Scene) -> None:
    """A writer that stopped is a counted failure, and no exception."""
    metrics = Metrics()
    attestation = Attestation(scene.checkpoints, None, metrics)
    scene.append(1)
    assert await attestation.sign()
    scene.append(1)
    scene.writer.close(10)
    assert not await attestation.sign()
    assert await attestation.ship()
    assert metrics.checkpoint_size.value == 1
    assert metrics.audit_failures.values == {("checkpoint",): 1}
    assert set(attestation.problems) == {"checkpoint"}


async def test_attestation_finish_covers_the_last_record(scene: Scene, tmp_path: Path) -> None:
    """At shutdown everything that was appended is signed and shipped."""
    target = FileTarget(tmp_path / "out")
    attestation = Attestation(scene.checkpoints, scene.shipper(target), Metrics())
    scene.append(10)
    await attestation.sign()
    scene.append(600)
    assert await attestation.finish()
    assert check_whole(target, scene.signer.verifier) == 610


async def test_attestation_thins_and_survives_failure(scene: Scene) -> None:
    """Thinning returns how many went; where it cannot, it is counted."""
    metrics = Metrics()
    attestation = Attestation(scene.checkpoints, None, metrics)
    for _ in range(3):
        scene.append(1)
        await attestation.sign()
    scene.clock.advance(400 * 86_400_000)
    assert await attestation.thin() == 2
    scene.append(1)
    await attestation.sign()
    scene.writer.close(10)
    scene.path.rename(scene.path.with_name("away.db"))
    scene.database.close()
    assert await attestation.thin() == 0
    assert metrics.audit_failures.values == {("checkpoint",): 1}
