"""CLP (arXiv 2403.03400): action units learnt without labels and without identity.

``README.md`` in this folder is the method's card.
"""

from mien_models.clp.config import ClpConfig
from mien_models.clp.method import Clp

__all__ = ["Clp", "ClpConfig"]
