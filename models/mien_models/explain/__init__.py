"""What a prediction rests on, for any method that names its ``picture_layer``.

``heat``: Grad-CAM maps and what each modality adds. ``checks``: whether such maps can be believed.
"""

from mien_models.explain.checks import (
    Deletion,
    deletion,
    overlap,
    randomisation_similarity,
    share_inside,
)
from mien_models.explain.heat import Heat, grad_cam, heat_maps, on_picture

__all__ = [
    "Deletion",
    "Heat",
    "deletion",
    "grad_cam",
    "heat_maps",
    "on_picture",
    "overlap",
    "randomisation_similarity",
    "share_inside",
]
