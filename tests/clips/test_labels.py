"""Label sets."""

from __future__ import annotations

import pytest

from mien.clips.labels import (
    DFEW7,
    FERV39K7,
    KNOWN_LABEL_SETS,
    MAFW11,
    LabelError,
    LabelSet,
)


def test_logits_are_in_the_given_order() -> None:
    assert [DFEW7.index(name) for name in ("happiness", "neutral", "fear")] == [0, 2, 6]
    assert MAFW11.classes[:7] == DFEW7.classes == FERV39K7.classes
    assert (len(MAFW11), "contempt" in MAFW11, "contempt" in DFEW7) == (11, True, False)


def test_known_label_sets_go_by_their_names() -> None:
    assert {name: s.name for name, s in KNOWN_LABEL_SETS.items()} == {
        name: name for name in KNOWN_LABEL_SETS
    }


def test_an_unknown_label_names_the_nearest_and_all() -> None:
    with pytest.raises(LabelError, match=r"Did you mean 'happiness'\?.*sadness.*fear"):
        DFEW7.index("Hapiness")


@pytest.mark.parametrize("classes", [(), ("a", " "), ("a", "b", "a"), (1, 2)])
def test_what_is_no_label_set_is_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(LabelError):
        LabelSet(name="x", classes=classes)


def test_json_keeps_the_order() -> None:
    reverse = LabelSet(name="reverse", classes=DFEW7.classes[::-1])
    assert LabelSet.from_json(reverse.to_json()) == reverse


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x"}', '{"name": "x", "classes": 3}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(LabelError, match="not a label set"):
        LabelSet.from_json(text)


def test_labels_that_occur_are_sorted_and_nulls_skipped() -> None:
    assert LabelSet.from_labels("mine", ["b", None, "a", "b"]).classes == ("a", "b")
