"""What a failure of a storage means: this file, the storage as a whole, or only this moment.

Object-store clients raise dozens of unrelated types (botocore, aiohttp, google.api_core, azure).
They agree on what is told apart here: an error code of the S3 API or an HTTP status somewhere in
the chain of causes, and names of types.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Scope = Literal["file", "moment", "storage"]


class StorageError(ValueError):
    """A location that cannot be reached; `reason` is a short code such as `missing_file`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


class StorageUnusableError(StorageError):
    """The storage as a whole fails (credentials, bucket, endpoint): every other file would too.

    Whoever meets it stops; no clip is to blame and none is quarantined.
    """


class StorageUnreachableError(StorageUnusableError):
    """A failure that may pass: nobody answers, or the server is overloaded."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a failure means and what to do about it."""

    scope: Scope
    reason: str
    message: str

    def as_error(self) -> StorageError:
        """The error to raise."""
        if self.scope == "file":
            return StorageError(self.reason, self.message)
        if self.scope == "moment":
            return StorageUnreachableError(self.reason, self.message)
        return StorageUnusableError(self.reason, self.message)


_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or "
    "AZURE_STORAGE_CONNECTION_STRING",
}
_KEYS |= {"s3a": _KEYS["s3"], "gcs": _KEYS["gs"], "abfs": _KEYS["az"], "abfss": _KEYS["az"]}
_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "s3a": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_PACKAGES |= dict.fromkeys(("az", "abfs", "abfss"), "adlfs")

_AZURE_KEY = (
    "the key or token in AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or "
    "AZURE_STORAGE_CONNECTION_STRING does not belong to the account, or does not allow this"
)
# Error codes of the S3 API and of Azure that say what is wrong with the credentials themselves.
_REFUSED = {
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
    "InvalidAccessKeyId": "the server does not know the key in AWS_ACCESS_KEY_ID",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired; fetch new credentials",
    "InvalidToken": "AWS_SESSION_TOKEN is not valid; fetch new credentials or unset it",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "AuthorizationHeaderMalformed": "AWS_DEFAULT_REGION names another region than the bucket's",
    "AuthenticationFailed": _AZURE_KEY,
    "AuthorizationFailure": _AZURE_KEY,
}
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "DefaultCredentialsError",
    "RefreshError",
    "ClientAuthenticationError",
    "AzureSigningError",
)
# adlfs tells by this text alone that it has no credentials, or a malformed connection string.
_NO_AZURE_ACCOUNT = "unable to connect to account for"
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "ResourceNotFound")
"""Azure's ``ResourceNotFound``: there is no such account."""
_RIGHTS = {
    "read": ("GetObject",),
    "list": ("List",),
    "write": ("Put", "Copy", "CreateMultipart", "UploadPart", "CompleteMultipart"),
    "delete": ("Delete",),
}
"""Rights of an S3 key, and how the operations begin that need them."""
# Answers about one object that another try would get again.
_ABOUT_THE_OBJECT = ("InvalidObjectState", "InvalidRange", "KeyTooLongError", "InvalidURI")


def fault_of(location: str, error: BaseException) -> Fault:
    """What an exception that a file system raised about a location means."""
    chain = list(_chain(error))
    codes = {code for link in chain if (code := _code(link))}
    if isinstance(error, ImportError):
        return _missing_package(location, error)
    if "://" not in location:
        return _local_fault(location, error)
    if codes & set(_NO_BUCKET):
        return missing_bucket(location)
    if isinstance(error, FileNotFoundError):
        return _missing_file(location)
    if codes & set(_ABOUT_THE_OBJECT) or _is_unknown_scheme(error):
        return _unreadable(location, error)
    return _refusal(location, chain, codes) or _unreachable(location, error)


def missing_bucket(location: str) -> Fault:
    """There is no bucket (Azure: container) of a remote location."""
    bucket = "/".join(location.split("/")[:3])
    return Fault(
        "storage",
        "missing_bucket",
        f"there is no bucket {bucket}{_at(location)}. Check its spelling, or create it.",
    )


def _refusal(location: str, chain: list[BaseException], codes: set[str]) -> Fault | None:
    keys = _KEYS.get(_scheme(location), "the credentials")
    for code in sorted(codes & set(_REFUSED)):
        return Fault(
            "storage", "wrong_credentials", f"{location} is refused ({code}): {_REFUSED[code]}."
        )
    names = {type(link).__name__ for link in chain}
    if names & set(_NO_CREDENTIALS) or _NO_AZURE_ACCOUNT in str(chain[0]):
        return Fault(
            "storage",
            "no_credentials",
            f"no usable credentials for {location} ({_line(chain[0])}). Set {keys}.",
        )
    if any("Invalid endpoint" in str(link) for link in chain):
        return Fault(
            "storage",
            "bad_endpoint",
            f"cannot read {location}: {chain[0]}. AWS_ENDPOINT_URL must be a whole address such as "
            "http://HOST:PORT.",
        )
    if any(isinstance(link, PermissionError) or _status(link) in (401, 403) for link in chain):
        lacking = _lacking_right(location, chain)
        if lacking is not None:
            return lacking
        return Fault(
            "storage",
            "no_permission",
            f"access to {location} is denied ({_line(chain[0])}). Check {keys}, and that the "
            "bucket's policy lets this key list, read and (for runs) write; a key that may not "
            "list is also denied files that do not exist.",
        )
    return None


def _lacking_right(location: str, chain: list[BaseException]) -> Fault | None:
    """Which right of an S3 key is missing; None for HEAD requests, whose denial says too little."""
    operations = (str(getattr(link, "operation_name", "")) for link in chain)
    operation = next((name for name in operations if name), "")
    right = next((right for right, starts in _RIGHTS.items() if operation.startswith(starts)), None)
    if right is None:
        return None
    key = os.environ.get("AWS_ACCESS_KEY_ID")
    return Fault(
        "storage",
        "no_permission",
        f"the key {f'AWS_ACCESS_KEY_ID={key}' if key else 'in use'} may not {right} {location} "
        f"({operation} is denied). Let the bucket's policy give it the right to {right}, or use "
        "another key.",
    )


def _unreachable(location: str, error: BaseException) -> Fault:
    variable = _ENDPOINTS.get(_scheme(location))
    address = f"the address ({variable}{_value(variable)}), " if variable else "the address, "
    return Fault(
        "moment",
        "unreachable",
        f"cannot reach {location}: {type(error).__name__}: {_line(error)}. Check {address}the "
        "network and the server.",
    )


def _local_fault(location: str, error: BaseException) -> Fault:
    if isinstance(error, FileNotFoundError):
        return _missing_file(location)
    if isinstance(error, PermissionError):
        return Fault(
            "file",
            "no_permission",
            f"not allowed to read {location}: {error}. Check the file's mode and owner.",
        )
    return _unreadable(location, error)


def _missing_file(location: str) -> Fault:
    return Fault(
        "file",
        "missing_file",
        f"there is no {location}. Check the spelling, and whether it was moved.",
    )


def _unreadable(location: str, error: BaseException) -> Fault:
    return Fault(
        "file",
        "storage_unreadable",
        f"cannot read {location}: {type(error).__name__}: {error}. Check its uri and the disk or "
        "bucket that it is on.",
    )


def _missing_package(location: str, error: ImportError) -> Fault:
    package = _PACKAGES.get(_scheme(location), "the fsspec package of this scheme")
    return Fault(
        "storage",
        "missing_package",
        f"cannot read {location}: {error}. Type `pip install {package}`.",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    """The first line of an error's text; Azure's goes on with the whole answer."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def _code(error: BaseException) -> str:
    """The S3 API's or Azure's name for what is wrong."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _status(error: BaseException) -> int | None:
    """HTTP status, as boto, gcsfs, aiohttp or Azure hold it."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    # One after the other: aiohttp's `code` warns whoever looks at it.
    held = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    status = next((status for status in held if isinstance(status, int)), None)
    return metadata.get("HTTPStatusCode") if status is None else status


def _is_unknown_scheme(error: BaseException) -> bool:
    return isinstance(error, ValueError) and "Protocol not known" in str(error)


def _scheme(location: str) -> str:
    return location.split("://", 1)[0]


def _at(location: str) -> str:
    variable = _ENDPOINTS.get(_scheme(location))
    value = os.environ.get(variable) if variable else None
    return f" at {value}" if value else ""


def _value(variable: str) -> str:
    value = os.environ.get(variable)
    return f"={value}" if value else " is not set"
