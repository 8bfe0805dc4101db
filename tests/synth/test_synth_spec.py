"""What a SynthSpec accepts, refuses and says."""

import pytest

from mien.synth import COMPOUNDS, SynthSpec, describe


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"num_subjects": 0}, "at least one person"),
        ({"num_subjects": -1}, "may not be negative"),
        ({"clips_per_class": 0}, "clips_per_class must be at least 1, not 0"),
        ({"size_px": 127}, "even number from 32 to 1024"),
        ({"size_px": 16}, "even number from 32 to 1024"),
        ({"fps": 0}, "fps must be from 1 to 120"),
        ({"duration_s": 0.0}, "duration_s must be from 0.2"),
        ({"duration_s": 0.2, "fps": 5}, "less than two frames"),
        ({"label_noise": 1.5}, r"label_noise is a share .* not 1.5"),
        ({"missing_audio": -0.1}, "missing_audio is a share"),
        ({"missing_audio": 0.7, "silent_audio": 0.6}, "exclude each other"),
        ({"ambiguous": 0.7, "multi_expression": 0.6}, "exclude each other"),
        ({"min_intensity": 1.2}, "min_intensity must be in"),
        ({"nuisance": -0.5}, "nuisance must be in"),
        ({"classes": ()}, "classes is empty"),
        ({"classes": ("hapiness",)}, "did you mean 'happiness'"),
        ({"classes": ("fear", "fear")}, "names a class twice"),
        ({"compounds": ("happily_suprised",)}, "did you mean 'happily_surprised'"),
        ({"classes": ("fear",), "label_noise": 0.1}, "at least two classes"),
        ({"subject_prefix": "a/b"}, "subject_prefix names folders"),
        ({"subject_prefix": ""}, "subject_prefix names folders"),
    ],
)
def test_bad_knobs_are_refused_with_words(knobs, words):
    with pytest.raises(ValueError, match=words):
        SynthSpec(**knobs)


def test_counts_follow_from_the_knobs():
    spec = SynthSpec(
        num_subjects=3,
        unlabelled_subjects=2,
        clips_per_class=2,
        classes=("fear", "anger"),
        compounds=("fearfully_angry",),
        duration_s=1.5,
        fps=30,
    )
    assert spec.num_clips == (3 + 2) * 2 * 3
    assert spec.num_frames == 45
    assert spec.all_classes == ("fear", "anger", "fearfully_angry")


def test_every_compound_unites_two_different_basic_emotions():
    for name, (first, second) in COMPOUNDS.items():
        SynthSpec(compounds=(name,))
        assert first != second
        assert {first, second} <= set(SynthSpec().classes)


def test_describe_names_the_size_and_what_is_planted():
    spec = SynthSpec(num_subjects=2, unlabelled_subjects=1, label_noise=0.2)
    text = describe(spec)
    assert "21 clips of 3 people" in text
    assert "label_noise 20%" in text
    assert "1 people without labels" in text
    assert "ambiguous" not in text
