"""Shipping to S3, or to anything that speaks its protocol."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from hashlib import md5
from importlib import import_module
from typing import Any, Final, TypeVar

from lukhas.audit.ship_target import LARGEST_BYTES, refuse_other
from lukhas.errors import ConfigurationError, StorageUnavailable

T = TypeVar("T")

# Two attempts of eight seconds at the most: a call ends in bounded time, and the next ship tries again anyway.
_CONNECT_S: Final = 3
_READ_S: Final = 5
_ATTEMPTS: Final = 2
_GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_TAKEN: Final = frozenset({"PreconditionFailed", "412"})
# What services answer that know no conditional writes.
_UNKNOWN: Final = frozenset({"NotImplemented", "501"})


class S3Target:
    """A prefix in a bucket. Credentials, region and endpoint come from the standard AWS_* environment and files.

    What is immutable is written only where nothing is (`If-None-Match`), as far as the service knows that. A bucket
    with Object Lock works, and keeps the shipped state even from whoever has these credentials.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        """Prepare a client; nothing is sent.

        Raises:
            ConfigurationError: boto3 is not installed, or the AWS_* settings cannot be used.
        """
        try:
            boto3, config, errors = map(import_module, ("boto3", "botocore.config", "botocore.exceptions"))
        except ImportError as missing:
            raise ConfigurationError(
                "Shipping to S3 needs boto3, which is not installed.", hint="Run: pip install 'lukhas-pwm[backup]'"
            ) from missing
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client_error: Any = errors.ClientError
        # botocore follows a redirect that leads nowhere until it runs out of stack.
        self._failures: tuple[Any, ...] = (errors.BotoCoreError, errors.ClientError, OSError, RecursionError)
        try:
            self._client = _make_client(boto3, config)
        except (*self._failures, ValueError) as wrong:
            raise ConfigurationError(f"The AWS_* settings cannot be used: {wrong}") from wrong

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, path: str, data: bytes, immutable: bool) -> None:
        """Store bytes under the prefix.

        Raises:
            IntegrityError: something else is there, and it is immutable.
            StorageUnavailable: the service cannot be reached, or refuses.
        """
        # Required by buckets with Object Lock, and known to every service, which newer checksums are not.
        digest = base64.b64encode(md5(data, usedforsecurity=False).digest()).decode()
        arguments: dict[str, Any] = {"Body": data, "ContentMD5": digest, "ContentType": _guess_type(path)}
        conditions: tuple[dict[str, Any], ...] = ({"IfNoneMatch": "*"}, {}) if immutable else ({},)
        for condition in conditions:
            code = self._ask(lambda given=condition: self._put(path, arguments | given), "written")
            if code is None:
                return
            if code in _TAKEN and self.get(path) != data:
                raise refuse_other(self, path)
            if code in _TAKEN:
                return

    def get(self, path: str) -> bytes | None:
        """Return an object's bytes; None where there is none.

        Raises:
            StorageUnavailable: the service cannot be reached, or refuses.
        """

        def read() -> bytes | None:
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)
            except self._client_error as failure:
                if _code(failure) in _GONE:
                    return None
                raise
            with answer["Body"] as body:
                data = bytes(body.read(LARGEST_BYTES + 1))
            # A limited read does not notice that the answer was cut, and half a checkpoint would raise an alarm.
            if len(data) < min(int(answer["ContentLength"]), LARGEST_BYTES + 1):
                raise OSError("the answer was cut off")
            return data

        return self._ask(read, "read")

    def _put(self, path: str, arguments: dict[str, Any]) -> str | None:
        """Return None where it was stored, else why a condition kept it from being."""
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + path, **arguments)
        except self._client_error as failure:
            code = _code(failure)
            if "IfNoneMatch" in arguments and code in _TAKEN | _UNKNOWN:
                return code
            raise
        return None

    def _ask(self, work: Callable[[], T], done: str) -> T:
        try:
            return work()
        except self._failures as failure:
            raise StorageUnavailable(f"{self} cannot be {done}.", hint=_explain(failure)) from failure


def _make_client(boto3: Any, config: Any) -> Any:
    session = boto3.session.Session()
    has_endpoint = bool(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))
    # Other services than Amazon's seldom have a host name for each bucket.
    style = {"addressing_style": "path"} if has_endpoint else {}
    region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    options = config.Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3=style,
    )
    return session.client("s3", region_name=region, config=options)


def _guess_type(path: str) -> str:
    return "text/plain; charset=utf-8" if path.startswith("checkpoint") else "application/octet-stream"


def _code(failure: Any) -> str:
    return str(failure.response.get("Error", {}).get("Code", ""))


def _explain(failure: Any) -> str:
    response = getattr(failure, "response", None)
    if response is None:
        return f"{type(failure).__name__}: {failure}"
    return f"It says: {_code(failure)} {response.get('Error', {}).get('Message', '')}".strip()
