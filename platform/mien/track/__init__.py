"""Tracking: one MLflow run a training, its artifacts, and the model registry.

MLflow reports usage to the internet unless told otherwise before its first import; these settings
are made here because every module of this package is imported after it. A server that does not
answer would hold a training up for four minutes at a time with MLflow's own seven retries; the
tracker keeps what could not be written and tries again by itself.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
