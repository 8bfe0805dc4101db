"""The platform of Mien: clips, media, streams, the training loop, tracking, evaluation, inference.

It knows Ray, MLflow and object storage, and no method: those live in ``mien_models``.
"""

from mien_models import companions

companions.install()

__version__ = "0.1.0"
