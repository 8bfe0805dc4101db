"""Secrets are found wherever they would be sent, and are never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.cluster.errors import ClusterError
from mien.cluster.leaks import refuse_secrets, secret_values

ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
    "MLFLOW_TRACKING_PASSWORD": "correct horse",
    "RAY_AUTH_TOKEN": "0123456789abcdef",
    "RAY_AUTH_TOKEN_PATH": "/run/secrets/token",
    "HF_TOKEN": "short",
    "LANG": "C.UTF-8-and-long",
    "TOKENIZERS_PARALLELISM": "false-and-long",
}


def test_names_say_what_is_secret() -> None:
    assert set(secret_values(ENVIRONMENT)) == {
        "AWS_SECRET_ACCESS_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "RAY_AUTH_TOKEN",
    }


@given(st.text(max_size=40), st.text(max_size=40))
def test_value_is_found_anywhere_and_not_shown(before: str, after: str) -> None:
    text = before + ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] + after
    with pytest.raises(ClusterError, match=r"the value of \$AWS_SECRET_ACCESS_KEY") as caught:
        refuse_secrets(text, ENVIRONMENT, "the manifest")
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_password_in_a_url_is_found() -> None:
    for url in ("postgresql://mlflow:pw@db/mlflow", "http://u:p@h:5000", "redis://:pw@h"):
        with pytest.raises(ClusterError, match="a URL with a password"):
            refuse_secrets(f"track.uri={url} x", {}, "arguments")
    for url in ("http://h:5000/a@b", "s3://bucket/x:y", "user@host", "img@sha256:" + "a" * 64):
        refuse_secrets(url, ENVIRONMENT, "arguments")
