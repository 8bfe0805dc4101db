"""A temperature for windows with sound, another for those without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from infer.colour_method import RED, ColourMethod

from mien.infer.film_reading import FilmReading
from mien.infer.network import BatchedNetwork


def probabilities(film: Path, temperatures: dict[str, float], **options: bool) -> np.ndarray:
    method = ColourMethod(align_faces=False, **options)
    with BatchedNetwork(method, method.prediction_stream(), temperatures=temperatures) as network:
        parts = FilmReading(str(film), network).parts()
        (window,) = (row for part in parts for row in part.windows)
    return np.array(window.probabilities)


@pytest.mark.parametrize(("tone", "temperature"), [(True, 2.0), (False, 4.0)])
def test_windows_without_sound_have_their_own(
    film: Callable[..., Path], tone: bool, temperature: float
) -> None:
    one = film([RED, RED], tone=tone)
    raw = probabilities(one, {})
    found = probabilities(one, {"video+audio": 2.0, "video": 4.0})
    by_hand = raw ** (1 / temperature)
    np.testing.assert_allclose(found, by_hand / by_hand.sum(), rtol=1e-9)
    # What was not fitted stays as it is.
    np.testing.assert_array_equal(probabilities(one, {"audio": 3.0}), raw)


def test_models_that_do_not_hear_use_that_of_pictures(film: Callable[..., Path]) -> None:
    one = film([RED, RED])
    raw = probabilities(one, {}, with_audio=False)
    found = probabilities(one, {"video+audio": 9.0, "video": 0.5}, with_audio=False)
    np.testing.assert_allclose(found, raw**2 / (raw**2).sum(), rtol=1e-9)
