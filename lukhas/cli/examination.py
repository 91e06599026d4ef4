"""The checks of `lukhas doctor`. Each looks, changes nothing, and says what to do."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lukhas.cli import audit_examination, safeguard
from lukhas.cli.database import SCHEMAS, check_schema
from lukhas.cli.finding import Finding
from lukhas.cli.store import find_file, open_existing
from lukhas.errors import LukhasError, StorageUnavailable
from lukhas.settings import Settings

OLDEST_PYTHON: Final = (3, 11)
_MB: Final = 1_000_000
_LITTLE_SPACE_MB: Final = 1_000
_NO_SPACE_MB: Final = 100
# A clock that is behind this was never set.
_BUILT_S: Final = 1_767_225_600  # 2026-01-01
_AHEAD_MS: Final = 60_000


def examine(settings: Settings) -> list[Finding]:
    """Run every check."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _check_python,
        _check_sqlite,
        _check_data_dir,
        _check_databases,
        _check_vault_key,
        safeguard.check_policy,
        safeguard.check_shadow_policy,
        safeguard.check_capabilities,
        safeguard.check_rules,
        safeguard.check_tools,
        safeguard.check_sensors,
        safeguard.check_limits,
        audit_examination.check_audit,
        _check_flags,
        _check_upstream,
        safeguard.check_moderator,
        _check_port,
        _check_clock,
        _check_space,
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check(settings)
        except OSError as failure:
            name = check.__name__.partition("check_")[2].replace("_", " ")
            where = f"{failure.filename}: " if failure.filename else ""
            findings.append(Finding(name, "fail", f"{where}{failure.strerror}", "Check owner and permissions."))
    return findings


def _check_python(_: Settings) -> Iterator[Finding]:
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding("python", "fail", found, "Use Python 3.11 or newer.")
    else:
        yield Finding("python", "ok", found)


def _check_sqlite(settings: Settings) -> Iterator[Finding]:
    from lukhas.storage.sqlite import sqlite_safety

    safety = sqlite_safety()
    if safety.safe or find_file(settings.sqlalchemy_url) is None:
        yield Finding("sqlite", "ok", f"{safety.version}, {safety.reason}" if safety.safe else "not used")
    else:
        advice = "While a gateway serves, commands cannot change keys. Where it has a wheel: pip install pysqlite3"
        yield Finding("sqlite", "warn", f"{safety.version} {safety.reason}", advice)


def _check_data_dir(settings: Settings) -> Iterator[Finding]:
    path = settings.data_dir
    if not path.exists():
        above = _nearest(path)
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            advice = "Make it, or set LUKHAS_DATA_DIR to a directory that can be written."
            yield Finding("data directory", "fail", f"{path} is not there, and {above} cannot be written", advice)
        else:
            yield Finding("data directory", "ok", f"{path} (made at first start)")
        return
    if not path.is_dir():
        yield Finding("data directory", "fail", f"{path} is not a directory", "Set LUKHAS_DATA_DIR to a directory.")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data directory", "fail", f"{path} cannot be read and written", f"chown or chmod 700 {path}")
    elif mode & 0o077:
        yield Finding("data directory", "warn", f"{path} is open to others (mode {mode:o})", f"chmod 700 {path}")
    else:
        yield Finding("data directory", "ok", f"{path} (mode {mode:o})")


def _check_databases(settings: Settings) -> Iterator[Finding]:
    for schema in SCHEMAS:
        name = "database" if schema == "main" else "vault"
        try:
            place, problems = check_schema(settings, schema)
        except StorageUnavailable as failure:
            if failure.message.startswith("There is no database"):
                yield Finding(name, "ok", "not made yet (made at first start)")
            else:
                yield Finding(name, "fail", f"{failure.message} {failure.hint}".strip(), "Bring it back.", True)
            continue
        except LukhasError as failure:
            yield Finding(name, "fail", failure.message, failure.hint or "Check LUKHAS_DATABASE_URL.")
            continue
        if not problems:
            yield Finding(name, "ok", place)
        elif all(problem.startswith("revision:") for problem in problems):
            yield Finding(name, "warn", problems[0], "Starting the gateway upgrades it; or: lukhas db upgrade")
        else:
            advice = "Stop the gateway, keep the files, see: lukhas db check"
            yield Finding(name, "fail", f"{place}: {'; '.join(problems[:3])}", advice)


def _check_vault_key(settings: Settings) -> Iterator[Finding]:
    from lukhas.vault.pepper import FILE_NAME, load_pepper

    file = find_file(settings.sqlalchemy_url)
    if file is None:
        yield Finding("vault key", "ok", "beside no SQLite file")
        return
    path = file.with_name(FILE_NAME)
    if not path.exists():
        if file.with_name("vault.db").exists() and _is_bound(settings):
            yield Finding("vault key", "fail", f"{path} is missing", "Restore it from where it is kept.")
        else:
            yield Finding("vault key", "ok", "not made yet (made at first start)")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding("vault key", "warn", f"{path} is open to others (mode {mode:o})", f"chmod 600 {path}")
        return
    try:
        if _is_bound(settings):
            with open_existing(settings, "vault") as database:
                load_pepper(database, path)
    except LukhasError as failure:
        yield Finding("vault key", "fail", failure.message, failure.hint)
    else:
        yield Finding("vault key", "ok", f"{path} (mode {mode:o})")


def _is_bound(settings: Settings) -> bool:
    """Say whether the vault has ever been used with a key; asking for the key itself would make one."""
    from sqlalchemy import select

    from lukhas.storage import migrate
    from lukhas.storage.metadata import VAULT_PEPPER

    try:
        with open_existing(settings, "vault") as database:
            if not migrate.is_current(database):
                return False
            with database.reading() as connection:
                return connection.execute(select(VAULT_PEPPER.c.proof)).first() is not None
    except StorageUnavailable:
        return False


def _check_flags(_: Settings) -> Iterator[Finding]:
    from lukhas.flags import NAMED_FLAGS, reload
    from lukhas.flags.snapshot import PREFIX

    try:
        reload()
    except LukhasError as failure:
        yield Finding("flags", "fail", failure.message, "Correct it: a safety flag has its strict value until then.")
        return
    names = sorted(name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX))
    unknown = [name for name in names if name.upper() not in NAMED_FLAGS]
    if unknown:
        advice = f"Fine where they are your own. Known: {', '.join(NAMED_FLAGS)}."
        yield Finding("flags", "warn", f"no flag of ours: {', '.join(unknown)}", advice)
    else:
        yield Finding("flags", "ok", f"set: {', '.join(names)}" if names else "all at their defaults")


def _check_upstream(settings: Settings) -> Iterator[Finding]:
    if settings.upstream_base_url == "echo":
        yield Finding("upstream", "ok", "echo: built in, no model is called")
        return
    import asyncio

    from lukhas.openai.upstream import make_upstream

    async def ask() -> str | None:
        upstream = make_upstream(settings)
        try:
            return await upstream.check()
        finally:
            await upstream.close()

    try:
        problem = asyncio.run(ask())
    except LukhasError as failure:
        yield Finding("upstream", "fail", failure.message, failure.hint)
        return
    if problem is not None:
        advice = "Check LUKHAS_UPSTREAM_BASE_URL and the network."
        yield Finding("upstream", "fail", f"{settings.upstream_base_url}: {problem}", advice, True)
    elif settings.upstream_api_key is None:
        advice = "Where it wants a key, set LUKHAS_UPSTREAM_API_KEY."
        yield Finding("upstream", "warn", f"{settings.upstream_base_url} answers; no key is set", advice)
    else:
        yield Finding("upstream", "ok", f"{settings.upstream_base_url} takes connections; its key is not tried")


def _check_port(settings: Settings) -> Iterator[Finding]:
    from lukhas.cli.server import bind

    place = f"{settings.host} port {settings.port}"
    try:
        listener = bind(settings.host, settings.port)
        try:
            listener.listen(1)
        finally:
            listener.close()
    except (LukhasError, OSError) as failure:
        holder = _serving_process(settings)
        if holder:
            yield Finding("port", "ok", f"{place}: a gateway (process {holder}) serves this data directory")
        else:
            message = failure.message if isinstance(failure, LukhasError) else str(failure.strerror)
            yield Finding("port", "fail", message, "Stop what uses it, or choose another with LUKHAS_PORT.")
    else:
        yield Finding("port", "ok", f"{place} is free")


def _serving_process(settings: Settings) -> str:
    """Return the process id in the serving lock where that process holds it; else nothing."""
    import fcntl

    path = settings.data_dir / "serve.lock"
    try:
        with path.open("rb") as file:
            try:
                # Shared, and let go at once: it only asks whether somebody holds the exclusive one.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(20).decode("ascii", "replace").strip() or "unknown"
    except OSError:
        pass
    return ""


def _check_clock(settings: Settings) -> Iterator[Finding]:
    now_ms = round(time.time() * 1000)
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_ms / 1000))
    newest_ms = _newest_record_ms(settings)
    if now_ms < _BUILT_S * 1000:
        yield Finding(
            "clock", "fail", f"{shown}: it was never set", "Set it, best by NTP: keys and signals expire by it."
        )
    elif newest_ms is not None and newest_ms > now_ms + _AHEAD_MS:
        found = f"{shown}: the newest record is {(newest_ms - now_ms) / 1000:.0f} s ahead of it"
        yield Finding("clock", "warn", found, "Find out which of the two times is wrong; set the clock by NTP.")
    else:
        yield Finding("clock", "ok", shown)


def _newest_record_ms(settings: Settings) -> int | None:
    from sqlalchemy import select

    from lukhas.storage import migrate
    from lukhas.storage.metadata import AUDIT_RECORD

    try:
        with open_existing(settings) as database:
            if not migrate.is_current(database):
                return None
            query = select(AUDIT_RECORD.c.time_ms).order_by(AUDIT_RECORD.c.leaf_index.desc()).limit(1)
            with database.reading() as connection:
                return connection.execute(query).scalar()
    except LukhasError:
        return None


def _check_space(settings: Settings) -> Iterator[Finding]:
    free_mb = shutil.disk_usage(_nearest(settings.data_dir)).free // _MB
    found = f"{free_mb:,} MB free for {settings.data_dir}"
    if free_mb < _NO_SPACE_MB:
        yield Finding("disk space", "fail", found, "Free some: without room for its record no call is answered.")
    elif free_mb < _LITTLE_SPACE_MB:
        yield Finding("disk space", "warn", found, "Free some: without room for its record no call is answered.")
    else:
        yield Finding("disk space", "ok", found)


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest one above it that is there."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())
