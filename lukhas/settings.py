"""One frozen Settings, read from the environment, a file and secrets' files.

Strongest first: environment (`LUKHAS_PORT`, or `LUKHAS_ADMIN_KEY_FILE` for a secret kept in a file), then the file
named by `LUKHAS_CONFIG` (TOML or YAML, keys without the prefix, in lower case), then the documented default.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NoReturn, cast
from urllib.parse import urlsplit

from lukhas.errors import SettingsError

PREFIX: Final = "LUKHAS_"
# Read by other programs of the house (tests, SDKs), so they may stand in the same environment.
FOREIGN_PREFIXES: Final = ("LUKHAS_FLAG_", "LUKHAS_TEST_")
FOREIGN_NAMES: Final = frozenset({"LUKHAS_CONFIG", "LUKHAS_API_KEY", "LUKHAS_BASE_URL"})


class Secret:
    """A text that cannot be printed, logged or serialised by accident; `reveal()` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be serialised")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be serialised")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self  # it never changes, and `dataclasses.asdict` copies what it returns

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def _setting(default: object, parse: Callable[[str], object], doc: str, *, secret: bool = False) -> Any:
    return field(default=cast(Any, default), metadata={"parse": parse, "doc": doc, "secret": secret})


def _text(value: str) -> str:
    return value


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value.lower()

    return parse


def _switch(value: str) -> bool:
    found = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
    if value.lower() not in found:
        raise ValueError("must be true or false")
    return found[value.lower()]


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not low <= number <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return number

    return parse


def _path(value: str) -> Path:
    if not value:
        raise ValueError("must be a path")
    return Path(value).expanduser()


def _optional_path(value: str) -> Path | None:
    return _path(value) if value else None


def _secret(value: str) -> Secret:
    return Secret(value)


def _admin_key(value: str) -> Secret:
    if len(value) < 32 or not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("must be at least 32 printable ASCII characters without spaces at the ends")
    return Secret(value)


def _upstream(value: str) -> str:
    return value if value == "echo" else _url(value, "'echo' or ", "LUKHAS_UPSTREAM_API_KEY")


def _optional_url(value: str) -> str:
    return _url(value, "", "LUKHAS_MODERATION_API_KEY") if value else value


def _url(value: str, other: str, key: str) -> str:
    wrong = ValueError(f"must be {other}an http(s) URL up to and with /v1")
    if not value.isprintable() or " " in value:
        raise wrong
    try:
        parts = urlsplit(value)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise wrong from None
    if not is_whole or parts.query or parts.fragment:
        raise wrong
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"must not carry a user name or password; use {key}")
    return value.rstrip("/")


def _names(value: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in value.split(",")) if name)


def _place(value: str) -> str:
    """A folder or a bucket: `file:///folder`, `s3://bucket/prefix`; a bare path is a folder."""
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme == "s3" and parts.netloc and not (parts.query or parts.fragment):
        return value.rstrip("/")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return value
    if parts.scheme == "" and value.startswith(("/", "~")):
        return Path(value).expanduser().as_uri()
    raise ValueError("must be file:///folder, s3://bucket/prefix or an absolute path")


def _origin(value: str) -> str:
    if not value.isprintable() or "+" in value or any(c.isspace() for c in value) or len(value) > 200:
        raise ValueError("must be a name without spaces and '+', such as example.com/audit")
    return value


def _host(value: str) -> str:
    if not value or any(c.isspace() for c in value):
        raise ValueError("must be a host name or an IP address")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Build one with `load_settings`, or directly in tests."""

    host: str = _setting("127.0.0.1", _host, "Address to listen on.")
    port: int = _setting(8080, _integer(0, 65535), "Port to listen on; 0 takes a free one.")
    data_dir: Path = _setting(
        Path("~/.local/share/lukhas"), _path, "Directory of the embedded database, keys and lock."
    )
    database_url: str = _setting("", _text, "SQLAlchemy URL; empty means SQLite in the data directory.")
    upstream_base_url: str = _setting(
        "echo", _upstream, "The model API, up to and with /v1; 'echo' answers locally without a model."
    )
    upstream_api_key: Secret | None = _setting(None, _secret, "Bearer key for the upstream.", secret=True)
    upstream_connect_timeout_s: float = _setting(5.0, _seconds(0.01, 600), "Deadline for connecting upstream.")
    upstream_read_timeout_s: float = _setting(
        120.0, _seconds(0.01, 86400), "Longest silence accepted while the upstream answers."
    )
    upstream_total_timeout_s: float = _setting(
        600.0, _seconds(0.01, 86400), "Deadline for one call, retries and stream included."
    )
    upstream_max_retries: int = _setting(2, _integer(0, 10), "Retries of what was surely not sent, 429 and 5xx.")
    upstream_max_connections: int = _setting(1000, _integer(1, 100_000), "Open connections to the upstream.")
    capabilities: Path | None = _setting(None, _optional_path, "YAML file that extends the model capability table.")
    policy: Path | None = _setting(None, _optional_path, "Policy file; empty means the packaged policy.")
    policy_require_proof: bool = _setting(
        False, _switch, "true refuses every policy that is not proved; false refuses what is refuted."
    )
    policy_proof_timeout_s: float = _setting(
        60.0, _seconds(0, 3600), "Longest time for proving a new policy; 0 tries no proof."
    )
    shadow_policy: Path | None = _setting(
        None, _optional_path, "Policy file that decides beside the one in force: recorded, never applied."
    )
    mode: str = _setting("enforce", _choice("enforce", "shadow"), "enforce applies decisions; shadow only records.")
    moderation_rules: Path | None = _setting(
        None, _optional_path, "YAML file of moderation rules that extends and overrides the packaged ones."
    )
    moderation_preset: str = _setting(
        "standard", _choice("standard", "high"), "Preset of the rules; a style of the policy may ask for high."
    )
    moderation_url: str = _setting(
        "", _optional_url, "An OpenAI-compatible API up to and with /v1 whose /moderations is asked too."
    )
    moderation_api_key: Secret | None = _setting(None, _secret, "Bearer key for the moderation API.", secret=True)
    moderation_model: str = _setting("omni-moderation-latest", _text, "Model that the moderation API is asked for.")
    moderation_timeout_s: float = _setting(3.0, _seconds(0.01, 600), "Deadline for one question to the moderation API.")
    moderation_required: bool = _setting(
        True, _switch, "true: where the moderation API fails, calls fail; false: they pass, and their records say so."
    )
    moderation_stream: str = _setting(
        "window", _choice("buffer", "window"), "Streams under a moderation API: checked whole, or in windows."
    )
    moderation_window_chars: int = _setting(400, _integer(20, 1_000_000), "Characters of one checked window.")
    on_unmoderated: str = _setting(
        "block", _choice("block", "record"), "What becomes of media that no moderator can read."
    )
    tools: Path | None = _setting(None, _optional_path, "YAML registry of your own tools; see `lukhas tools learn`.")
    sensors: tuple[str, ...] = _setting(
        (),
        _names,
        "Sensors that run: stress, urgency, ambiguity, novelty, trust, or a plug-in's name; comma-separated.",
    )
    limit_output_tokens: int = _setting(
        4096, _integer(1, 10_000_000), "Tokens reserved, and the limit set, for a call under a budget that names none."
    )
    auth: str = _setting("on", _choice("on", "off"), "off is allowed on loopback only.")
    admin_key: Secret | None = _setting(None, _admin_key, "Admin key; else one is made at first run.", secret=True)
    max_body_bytes: int = _setting(10_000_000, _integer(1_000, 1_000_000_000), "Largest request body, in bytes.")
    max_response_bytes: int = _setting(
        64_000_000, _integer(1_000, 1_000_000_000), "Largest upstream answer, in bytes, plain or streamed."
    )
    writer_queue_rows: int = _setting(
        20_000, _integer(10, 10_000_000), "Rows that may wait for the database before calls get 503."
    )
    writer_deadline_s: float = _setting(5.0, _seconds(0.05, 600), "Longest wait for a durable record.")
    signal_entries_per_key: int = _setting(
        10_000, _integer(10, 10_000_000), "Signal emissions that one API key may hold alive."
    )
    audit_origin: str = _setting(
        "", _origin, "Name of this log in its checkpoints, such as example.com/audit; empty makes one at first start."
    )
    audit_key: Secret | None = _setting(
        None, _secret, "Ed25519 key that signs checkpoints (PEM, or 32 bytes as hex or base64).", secret=True
    )
    audit_checkpoint_every_s: float = _setting(10.0, _seconds(0.1, 3600), "Time between signed checkpoints.")
    audit_ship: str = _setting(
        "", _place, "Where checkpoints and tiles are shipped to: file:///folder or s3://bucket/prefix."
    )
    audit_on_failure: str = _setting(
        "closed",
        _choice("closed", "open"),
        "closed refuses calls that cannot be recorded; open lets them pass, counts them, and records that later.",
    )
    audit_reserve_bytes: int = _setting(
        16_000_000,
        _integer(0, 10_000_000_000),
        "Size of a file that is freed on a full disk, so that the last records of a shutdown fit.",
    )
    audit_jsonl: str = _setting(
        "best_effort",
        _choice("off", "best_effort", "required"),
        "Whether records are also appended to audit.jsonl; required: a call waits for that too.",
    )
    audit_jsonl_path: Path | None = _setting(
        None, _optional_path, "The JSONL file; empty means audit.jsonl in the data directory."
    )
    audit_jsonl_fsync: bool = _setting(False, _switch, "true: each batch of lines is synced to the disk.")
    audit_jsonl_max_bytes: int = _setting(
        256_000_000, _integer(10_000, 1_000_000_000_000), "Size at which the JSONL file is rotated."
    )
    audit_jsonl_keep: int = _setting(8, _integer(0, 1_000_000), "Rotated JSONL files that are kept; 0 keeps all.")
    audit_search: bool = _setting(True, _switch, "Whether records are indexed for search.")
    audit_content: bool = _setting(
        False, _switch, "true: texts of calls are kept, redacted and encrypted under their subjects' keys."
    )
    audit_content_max_bytes: int = _setting(
        64_000, _integer(100, 10_000_000), "Most bytes of one request or answer that are kept."
    )
    audit_archive: str = _setting(
        "", _place, "Where sealed months are archived to: file:///folder or s3://bucket/prefix."
    )
    audit_retention_months: int = _setting(
        0, _integer(0, 1200), "Months after which archived records are pruned from the database; 0 keeps all."
    )
    audit_retention_min_months: int = _setting(
        6, _integer(1, 1200), "Months that no retention setting or prune may undercut."
    )
    redaction: Path | None = _setting(
        None, _optional_path, "YAML file that extends what is redacted before records are made."
    )
    drain_timeout_s: float = _setting(30.0, _seconds(0, 3600), "Time that calls in flight get at shutdown.")
    log_level: str = _setting("info", _choice("debug", "info", "warning", "error"), "Least severe log line written.")
    log_format: str = _setting("auto", _choice("auto", "console", "json"), "auto: console on a terminal, else JSON.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_dir", self.data_dir.expanduser())

    @property
    def sqlalchemy_url(self) -> str:
        """The main database's URL: what was set, else SQLite in the data directory."""
        return self.database_url or f"sqlite:///{self.data_dir / 'lukhas.db'}"

    @property
    def is_loopback(self) -> bool:
        """Whether the gateway listens on loopback only."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with where each value came from: 'default', 'file', 'environment' or 'argument'."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One setting as the reference documents it."""

    name: str
    variable: str
    default: object
    doc: str
    secret: bool


def describe_settings() -> tuple[SettingDoc, ...]:
    """Return every setting with its variable, default and one line of documentation."""
    return tuple(
        SettingDoc(f.name, PREFIX + f.name.upper(), f.default, f.metadata["doc"], f.metadata["secret"])
        for f in fields(Settings)
    )


def load_settings(
    environ: Mapping[str, str] | None = None,
    *,
    config_path: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Loaded:
    """Read settings from arguments, the environment and a file, strongest first.

    Args:
        environ: variables by name; the process's own when None.
        config_path: a TOML or YAML file; else `LUKHAS_CONFIG`, else none.
        overrides: values by setting name, as text, from command-line arguments.

    Raises:
        SettingsError: an unknown name (with its nearest right one) or a wrong value. Values are never shown.
    """
    env = os.environ if environ is None else environ
    known = {f.name: f for f in fields(Settings)}
    raw: dict[str, tuple[str, str]] = {}
    path = config_path or (Path(env["LUKHAS_CONFIG"]).expanduser() if env.get("LUKHAS_CONFIG") else None)
    if path is not None:
        for name, value in _read_file(path).items():
            if name not in known:
                _refuse_name(name, f"setting in {path}", list(known))
            raw[name] = (value, "file")
    raw |= {name: (value, "environment") for name, value in _read_environment(env).items()}
    raw |= {name: (value, "argument") for name, value in (overrides or {}).items()}
    values: dict[str, object] = {}
    for name, (value, origin) in raw.items():
        shown = PREFIX + name.upper() if origin == "environment" else name
        try:
            values[name] = known[name].metadata["parse"](value)
        except ValueError as wrong:
            raise SettingsError(f"{shown} {wrong}.", param=shown) from None
    settings = Settings(**cast(Any, values))
    if settings.auth == "off" and not settings.is_loopback:
        raise SettingsError(
            "LUKHAS_AUTH=off is refused unless the gateway listens on loopback.",
            hint="Set LUKHAS_HOST=127.0.0.1, or leave LUKHAS_AUTH on.",
            param="LUKHAS_AUTH",
        )
    if 0 < settings.audit_retention_months < settings.audit_retention_min_months:
        raise SettingsError(
            f"LUKHAS_AUDIT_RETENTION_MONTHS is under the minimum of {settings.audit_retention_min_months}.",
            hint="Raise it, or lower LUKHAS_AUDIT_RETENTION_MIN_MONTHS where the law that binds you allows it.",
            param="LUKHAS_AUDIT_RETENTION_MONTHS",
        )
    origins = {name: raw[name][1] if name in raw else "default" for name in known}
    return Loaded(settings, origins, path)


def _read_environment(env: Mapping[str, str]) -> dict[str, str]:
    by_variable = {PREFIX + f.name.upper(): f for f in fields(Settings)}
    file_variables = {f"{v}_FILE": v for v, f in by_variable.items() if f.metadata["secret"]}
    found: dict[str, str] = {}
    for variable, value in env.items():
        if not variable.startswith(PREFIX) or variable in FOREIGN_NAMES or variable.startswith(FOREIGN_PREFIXES):
            continue
        if variable in by_variable:
            if value:  # an empty variable is an unset one, as compose files write it
                found[by_variable[variable].name] = value
        elif variable in file_variables:
            name = by_variable[file_variables[variable]].name
            if env.get(file_variables[variable]):
                raise SettingsError(f"{variable} and {file_variables[variable]} are both set; keep one.")
            if value:
                found[name] = _read_secret(variable, value)
        else:
            _refuse_name(variable, "environment variable", [*by_variable, *file_variables, *FOREIGN_NAMES])
    return found


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{variable} names a file that cannot be read: {reason}.", param=variable) from failure


def _refuse_name(name: str, what: str, known: list[str]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"Did you mean {near[0]}?" if near else ""
    raise SettingsError(f"Unknown {what} '{name}'.", hint=hint, param=name)


def _read_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"The settings file {path} cannot be read: {reason}.") from failure
    data = _parse_file(path, text)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"The settings file {path} must be a table of settings.")
    found: dict[str, str] = {}
    for key, value in cast(dict[object, object], data).items():
        name = str(key).lower().removeprefix("lukhas_")
        if isinstance(value, (dict, list)) or value is None:
            raise SettingsError(f"The setting '{name}' in {path} must be a plain value.", param=name)
        if name in found:
            raise SettingsError(f"The setting '{name}' stands twice in {path}.", param=name)
        # YAML 1.1 reads a bare on or off as a boolean, and `auth: off` means the word.
        found[name] = ("on" if value else "off") if isinstance(value, bool) else str(value)
    return found


def _parse_file(path: Path, text: str) -> object:
    if path.suffix == ".toml":
        import tomllib

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as wrong:
            raise SettingsError(f"The settings file {path} is not valid TOML: {wrong}.") from None
    if path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as wrong:
            mark = getattr(wrong, "problem_mark", None)
            place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            raise SettingsError(f"The settings file {path} is not valid YAML{place}.") from None
    raise SettingsError(f"The settings file {path} must end in .toml, .yaml or .yml.")
