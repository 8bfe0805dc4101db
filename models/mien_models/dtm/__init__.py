"""DTM (arXiv 2303.08617): unlabelled faces, accepted by thresholds that move.

``README.md`` in this folder is the method's card.
"""

from mien_models.dtm.config import DtmConfig
from mien_models.dtm.method import Dtm

__all__ = ["Dtm", "DtmConfig"]
