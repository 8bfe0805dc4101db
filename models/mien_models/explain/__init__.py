"""What a prediction rests on, for any method that names its ``picture_layer``.

``heat``: Grad-CAM maps. ``checks``, ``removal``: whether such maps can be believed.
"""

from mien_models.explain.checks import (
    overlap,
    randomisation_similarity,
    share_inside,
)
from mien_models.explain.heat import Heat, grad_cam, heat_maps, on_picture
from mien_models.explain.removal import Deletion, Road, deletion, fill_in, road

__all__ = [
    "Deletion",
    "Heat",
    "Road",
    "deletion",
    "fill_in",
    "grad_cam",
    "heat_maps",
    "on_picture",
    "overlap",
    "randomisation_similarity",
    "road",
    "share_inside",
]
