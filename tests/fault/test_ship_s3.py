"""Shipping to a real S3 server, and to one that is gone, denies, hangs or talks nonsense."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from checkpoint_scene import open_scene
from object_store import BUCKET, ObjectStore, free_port, make_environment, run_object_store

from lukhas.audit.checkpoint import open_checkpoint
from lukhas.audit.ship_target import open_target
from lukhas.errors import IntegrityError, StorageUnavailable

URL = f"s3://{BUCKET}/logs/one"
BOUND_S = 15.0


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own AWS settings reaches a test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setattr("lukhas.audit.ship_s3._READ_S", 1)
    monkeypatch.setattr("lukhas.audit.ship_s3._CONNECT_S", 1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with run_object_store(tmp_path / "s3") as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@contextmanager
def bounded() -> Generator[None]:
    """Fail what ends, but too late."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BOUND_S


@pytest.mark.requires("rclone")
def test_ship_s3_holds_what_was_signed(store: ObjectStore, tmp_path: Path) -> None:
    """Tiles and checkpoints are there under the prefix, byte for byte, and a second process goes on from them."""
    with open_scene(tmp_path) as scene:
        for count in (300, 600):
            scene.append(count)
            signed = scene.checkpoints.sign()
            assert scene.shipper(open_target(URL)).ship() == signed
        verifiers = [scene.signer.verifier]
    place = store.folder / BUCKET / "logs" / "one"
    assert open_checkpoint((place / "checkpoint").read_bytes(), verifiers).size == 900
    assert len((place / "tile/0/002").read_bytes()) == 8192
    assert len((place / "tile/0/003.p/132").read_bytes()) == 132 * 32
    assert sorted(path.name for path in (place / "checkpoints").iterdir()) == [f"{300:020d}", f"{900:020d}"]


@pytest.mark.requires("rclone")
def test_ship_s3_rolled_back_log_overwrites_nothing(store: ObjectStore, tmp_path: Path) -> None:
    """A shorter log of the same key finds the larger checkpoint there."""
    for name, count in (("long", 20), ("short", 10)):
        (tmp_path / name).mkdir()
        with open_scene(tmp_path / name) as scene:
            scene.append(count)
            scene.checkpoints.sign()
            if name == "long":
                scene.shipper(open_target(URL)).ship()
                continue
            with pytest.raises(IntegrityError, match="set back or cut"):
                scene.shipper(open_target(URL)).ship()
    place = store.folder / BUCKET / "logs" / "one"
    assert [path.name for path in (place / "checkpoints").iterdir()] == [f"{20:020d}"]


@pytest.mark.requires("rclone")
def test_ship_s3_hanging_server_ends_in_time_and_recovers(store: ObjectStore, tmp_path: Path) -> None:
    """A server that takes connections and answers nothing costs seconds; when it answers again, shipping goes on."""
    with open_scene(tmp_path) as scene:
        scene.append(300)
        signed = scene.checkpoints.sign()
        shipper = scene.shipper(open_target(URL))
        store.pause()
        try:
            with bounded(), pytest.raises(StorageUnavailable):
                shipper.ship()
        finally:
            store.resume()
        assert shipper.ship() == signed


@pytest.mark.requires("rclone")
def test_ship_s3_restarted_server_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is killed is StorageUnavailable; the same shipper uses the one that takes its place."""
    port = free_port()
    for name, value in make_environment(port).items():
        monkeypatch.setenv(name, value)
    with open_scene(tmp_path) as scene:
        shipper = scene.shipper(open_target(URL))
        with run_object_store(tmp_path / "s3", port):
            scene.append(1)
            scene.checkpoints.sign()
            shipper.ship()
        scene.append(300)
        signed = scene.checkpoints.sign()
        with bounded(), pytest.raises(StorageUnavailable):
            shipper.ship()
        with run_object_store(tmp_path / "s3", port):
            assert shipper.ship() == signed


@pytest.mark.requires("rclone")
def test_ship_s3_denied_says_what_the_service_says(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong credentials, or none, are StorageUnavailable with the service's own word, and no secret in it."""
    with open_scene(tmp_path) as scene:
        scene.append(1)
        scene.checkpoints.sign()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
        with bounded(), pytest.raises(StorageUnavailable) as denied:
            scene.shipper(open_target(URL)).ship()
        assert "hunter2" not in str(denied.value)
        assert denied.value.hint
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        with bounded(), pytest.raises(StorageUnavailable, match="redentials"):
            scene.shipper(open_target(URL)).ship()


@pytest.mark.requires("rclone")
def test_ship_s3_without_the_bucket_fails_clearly(store: ObjectStore, tmp_path: Path) -> None:
    """A bucket that is not there is not made; the error names it."""
    with open_scene(tmp_path) as scene:
        scene.append(1)
        scene.checkpoints.sign()
        with bounded(), pytest.raises(StorageUnavailable, match="s3://nowhere"):
            scene.shipper(open_target("s3://nowhere/x")).ship()
    assert [path.name for path in store.folder.iterdir()] == [BUCKET]


def answer(reply: bytes) -> tuple[int, socket.socket]:
    """Start a server on loopback that says the same to everybody, and return its port and socket."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    connection.recv(65_536)
                    connection.sendall(reply)
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], listener


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"", id="closed"),
        pytest.param(b"garbage\r\n\r\n", id="garbage"),
        pytest.param(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n", id="500"),
        pytest.param(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", id="403"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nshort", id="cut-off"),
        pytest.param(b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", id="moved"),
        pytest.param(b"HTTP/1.1 503 Slow\r\nRetry-After: 9999\r\nContent-Length: 0\r\n\r\n", id="503"),
    ],
)
def test_ship_s3_broken_answer_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    """Whatever a broken or hostile endpoint says, ship() ends with StorageUnavailable."""
    port, listener = answer(reply)
    for name, value in make_environment(port).items():
        monkeypatch.setenv(name, value)
    with listener, open_scene(tmp_path) as scene:
        scene.append(1)
        scene.checkpoints.sign()
        with bounded(), pytest.raises(StorageUnavailable):
            scene.shipper(open_target(URL)).ship()


def test_ship_s3_page_instead_of_a_store_is_not_this_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web page that answers everything with 200 is no checkpoint, and nothing is sent there."""
    port, listener = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
    for name, value in make_environment(port).items():
        monkeypatch.setenv(name, value)
    with listener, open_scene(tmp_path) as scene:
        scene.append(1)
        scene.checkpoints.sign()
        with bounded(), pytest.raises(IntegrityError):
            scene.shipper(open_target(URL)).ship()
