"""Compound expressions learnt one after another and remembered (arXiv 2308.06197).

``README.md`` in this folder is the method's card.
"""

from mien_models.complex_fer.config import ComplexFerConfig
from mien_models.complex_fer.method import ComplexFer

__all__ = ["ComplexFer", "ComplexFerConfig"]
