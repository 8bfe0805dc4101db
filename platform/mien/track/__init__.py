"""Tracking: one MLflow run a training, its artifacts, and the model registry.

MLflow reports usage to the internet unless told otherwise before its first import; these settings
are made here because every module of this package is imported after it.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
