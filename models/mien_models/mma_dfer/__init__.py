"""MMA-DFER (arXiv 2404.09010): frozen video and audio encoders, adapted to each other.

``README.md`` in this folder is the method's card.
"""

from mien_models.mma_dfer.config import MmaDferConfig
from mien_models.mma_dfer.method import MmaDfer

__all__ = ["MmaDfer", "MmaDferConfig"]
