"""RDFER (arXiv 2502.16129): noisy labels and hard clips, told apart by agreement.

``README.md`` in this folder is the method's card.
"""

from mien_models.rdfer.config import RdferConfig
from mien_models.rdfer.method import Rdfer

__all__ = ["Rdfer", "RdferConfig"]
