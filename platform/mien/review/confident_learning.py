"""Confident learning (cleanlab) on given predictions, to compare other findings with.

Shapes: N clips, K classes.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

INSTALL = "pip install 'mien[audit]'"


def is_available() -> bool:
    """Whether cleanlab is installed."""
    return find_spec("cleanlab") is not None


def doubted_by_cleanlab(
    label_N: NDArray[np.int64], probability_NK: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Rows whose label cleanlab takes for an error, the most doubtful first.

    Args:
        label_N: given classes.
        probability_NK: of a network; best of one that was not trained on these clips.

    Raises:
        ValueError: cleanlab is not installed, or a class has no clip.
    """
    if not is_available():
        raise ValueError(f"cleanlab is not installed; {INSTALL}")
    from cleanlab.filter import find_label_issues

    used = np.unique(label_N)
    if len(used) < 2:
        raise ValueError("confident learning needs clips of at least two classes")
    # cleanlab wants every class to occur: columns of classes without a clip are left out.
    known_NK = probability_NK[:, used]
    known_NK = known_NK / known_NK.sum(axis=1, keepdims=True).clip(min=1e-12)
    ranked: Any = find_label_issues(
        np.searchsorted(used, label_N),
        known_NK,
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return np.asarray(ranked, dtype=np.int64)
