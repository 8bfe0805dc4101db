"""Secrets where they must not be: arguments, manifests, uploaded files.

Secrets come from the environment of the cluster's nodes or from Kubernetes secrets. Whatever is
sent is searched for the values that this terminal's environment holds under names such as
``AWS_SECRET_ACCESS_KEY``, and for credentials written into a URL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mien.cluster.errors import ClusterError

_SECRET_NAME = re.compile(
    r"(?i)(^|_)(secret|token|password|passwd|pgpassword|api_?key|access_key|private_key|"
    r"credentials?)(_|$)"
)
_NO_SECRET_NAME = re.compile(r"(?i)_(path|file|dir|mode|url|uri|expiration)$")
_LEAST_CHARACTERS = 8
_URL_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s:@]+@")
_SECRET_FILE = re.compile(
    r"(?i)(^|/)(\.env(\..*)?|\.netrc|\.pgpass|id_(rsa|dsa|ecdsa|ed25519)|credentials(\.json)?|"
    r"kubeconfig|.*\.(pem|key|p12|pfx|kdbx))$"
)


def secret_values(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables whose names say that they hold a secret, by name."""
    return {
        name: value
        for name, value in environ.items()
        if _SECRET_NAME.search(name)
        and not _NO_SECRET_NAME.search(name)
        and len(value) >= _LEAST_CHARACTERS
    }


def looks_secret(path: str) -> bool:
    """Whether a file's name says that it holds keys."""
    return _SECRET_FILE.search(path) is not None


def secrets_in(data: bytes, environ: Mapping[str, str]) -> list[str]:
    """Names of the environment's secrets whose values are in the data."""
    return [name for name, value in secret_values(environ).items() if value.encode() in data]


def refuse_secrets(text: str, environ: Mapping[str, str], where: str) -> None:
    """Stops a text with secrets from being sent.

    Args:
        text: what would be sent.
        environ: the environment whose secrets are looked for.
        where: what the text is, for the message.

    Raises:
        ClusterError: names the variable or the kind; never the value.
    """
    found = [f"the value of ${name}" for name in secrets_in(text.encode(), environ)]
    if _URL_WITH_PASSWORD.search(text):
        found.append("a URL with a password")
    if found:
        raise ClusterError(
            f"{where} would hold {' and '.join(found)}, which everybody who sees the job could "
            "read. Set it in the environment of the cluster's nodes (mien submit --needs-env NAME "
            "checks that it is there) or in a Kubernetes secret"
        )
