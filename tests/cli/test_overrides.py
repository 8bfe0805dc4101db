"""Dotted overrides: what they set, what they refuse, in which words."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_jobs.overrides import (
    OverrideError,
    apply_overrides,
    diff,
    flatten,
    from_json,
    to_json,
)
from mien_jobs.typed_values import TypedValueError, format_text, parse_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Audio:
    num_mels: int = 128
    gain_db: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapt:
    epochs: int = 5
    lr: float = 1e-3
    warmup: int = 1

    def __post_init__(self) -> None:
        if self.warmup > self.epochs:
            raise ValueError(f"warmup={self.warmup} is longer than epochs={self.epochs}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    adapt: Adapt = Adapt()
    fused: Literal["all", "none"] | None = "all"
    grid: tuple[int, int] = (8, 8)
    layers: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    num_frames: int = 16
    audio: Audio | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    name: str = "run"
    seed: int = 0
    is_fast: bool = False
    scale: float | None = None
    folder: Path = Path("runs")
    tags: tuple[str, ...] = ()
    method: Any = Method()
    views: tuple[View, ...] = (View(), View(num_frames=4))
    streams: Mapping[str, View] = field(default_factory=lambda: {"train": View(), "val": View()})
    weights: Mapping[str, float] = field(default_factory=lambda: {"fear": 1.0})


def test_sets_nested_settings_and_nothing_else() -> None:
    changed = apply_overrides(Recipe(), ["method.adapt.lr=3e-4", "seed=7", "views.1.num_frames=8"])
    assert changed == Recipe(
        seed=7,
        method=Method(adapt=Adapt(lr=3e-4)),
        views=(View(), View(num_frames=8)),
    )
    assert diff(changed, Recipe()) == [
        "seed: 0 -> 7",
        "method.adapt.lr: 0.001 -> 0.0003",
        "views.1.num_frames: 4 -> 8",
    ]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("is_fast=true", "is_fast", True),
        ("is_fast=False", "is_fast", False),
        ("scale=2", "scale", 2.0),
        ("scale=none", "scale", None),
        ("scale=-inf", "scale", -math.inf),
        ("name=true", "name", "true"),
        ("name=a=b", "name", "a=b"),
        ('name="x"', "name", "x"),
        ("tags=a,b", "tags", ("a", "b")),
        ("tags=a", "tags", ("a",)),
        ("tags=", "tags", ()),
        ('tags=["a,b", "c"]', "tags", ("a,b", "c")),
        ("method.fused=none", "method.fused", None),
        ('method.fused="none"', "method.fused", "none"),
        ("method.grid=(4, 6)", "method.grid", (4, 6)),
        ("method.layers=[3]", "method.layers", (3,)),
        ("streams.val.num_frames=2", "streams.val.num_frames", 2),
        ("weights.fear=2", "weights.fear", 2.0),
        ('weights={"fear": 1, "anger": 3}', "weights.anger", 3.0),
        ("folder=a/b", "folder", Path("a/b")),
        ('views.0.audio={"num_mels": 64}', "views.0.audio.num_mels", 64),
        ('views.0.audio={"num_mels": 64}', "views.0.audio.gain_db", 0.0),
    ],
)
def test_values_are_read_by_annotation(override: str, key: str, value: object) -> None:
    found = flatten(apply_overrides(Recipe(), [override]))[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sed=1", ["unknown key sed", "did you mean seed?", "name, seed, is_fast"]),
        ("lr=1", ["unknown key lr", "did you mean method.adapt.lr?", "at the top"]),
        ("method.adapt.epoch=1", ["did you mean method.adapt.epochs?", "epochs, lr, warmup"]),
        ("views.2.num_frames=1", ["unknown key views.2", "Known in views: 0, 1"]),
        ("streams.test.num_frames=1", ["unknown key streams.test", "train, val"]),
        ("seed=1.5", ["a whole number", "'1.5'", "for example seed=8"]),
        ("scale=big", ["a number or none", "'big'", "scale=3e-4"]),
        ("scale=nan", ["a number or none"]),
        ("is_fast=1", ["true or false", "is_fast=true"]),
        ("method.fused=some", ["one of all, none", "method.fused=all"]),
        ("method.grid=1,2,3", ["2 comma-separated values", "method.grid=8,8"]),
        ("method.layers=1,x", ["a whole number", "method.layers=8,8"]),
        ("method.adapt=3", ["is a group of settings", "method.adapt.epochs=..."]),
        ("seed.x=3", ["seed is a value (0)", "has no keys"]),
        ("views.0.audio.num_mels=3", ["views.0.audio is none", 'views.0.audio=\'{"num_mels"']),
        ('views.0.audio={"mels": 64}', ["unknown key mels", "num_mels, gain_db"]),
        ("seed", ["'seed' is no override", "KEY=VALUE"]),
        ("=3", ["no override"]),
        ("method..lr=3", ["no override"]),
    ],
)
def test_refusals_say_what_would_fit(override: str, words: list[str]) -> None:
    with pytest.raises(OverrideError) as caught:
        apply_overrides(Recipe(), [override])
    for word in [override, *words]:
        assert word in str(caught.value)


def test_checks_of_the_recipe_pass_through_with_the_overrides_named() -> None:
    with pytest.raises(OverrideError) as caught:
        apply_overrides(Recipe(), ["seed=1", "method.adapt.epochs=2", "method.adapt.warmup=3"])
    assert str(caught.value) == (
        "method.adapt.epochs=2 method.adapt.warmup=3: warmup=3 is longer than epochs=2"
    )


def test_settings_that_are_only_valid_together_can_be_given_together() -> None:
    changed = apply_overrides(Recipe(), ["method.adapt.warmup=9", "method.adapt.epochs=10"])
    assert changed.method.adapt == Adapt(epochs=10, warmup=9)


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=1", "seed=2"],
        ['views.0.audio={"num_mels": 64}', "views.0.audio.gain_db=1"],
        ["views.0.audio.gain_db=1", "views.0.audio=none"],
    ],
)
def test_contradicting_overrides_are_refused(overrides: list[str]) -> None:
    with pytest.raises(OverrideError, match="contradict"):
        apply_overrides(Recipe(), overrides)


def test_no_override_changes_nothing() -> None:
    assert apply_overrides(Recipe(), []) == Recipe()
    assert diff(Recipe(), Recipe()) == []


def test_diff_names_settings_of_groups_that_come_and_go() -> None:
    with_audio = apply_overrides(Recipe(), ['views.0.audio={"num_mels": 64}'])
    assert diff(with_audio, Recipe()) == [
        "views.0.audio: none -> (absent)",
        "views.0.audio.num_mels: (absent) -> 64",
        "views.0.audio.gain_db: (absent) -> 0.0",
    ]


numbers = st.floats(allow_nan=False)
texts = st.text(max_size=8)
names = st.text(alphabet="abcxyz_", min_size=1, max_size=5)
audios = st.builds(Audio, num_mels=st.integers(), gain_db=numbers)
views = st.builds(View, num_frames=st.integers(), audio=st.none() | audios)
adapts = st.builds(
    lambda lr, lengths: Adapt(lr=lr, epochs=max(lengths), warmup=min(lengths)),
    numbers,
    st.tuples(st.integers(), st.integers()),
)
methods = st.builds(
    Method,
    adapt=adapts,
    fused=st.sampled_from(["all", "none", None]),
    grid=st.tuples(st.integers(), st.integers()),
    layers=st.lists(st.integers(), max_size=3).map(tuple),
)
recipes = st.builds(
    Recipe,
    name=texts,
    seed=st.integers(),
    is_fast=st.booleans(),
    scale=st.none() | numbers,
    folder=texts.filter(lambda text: "\0" not in text).map(Path),
    tags=st.lists(texts, max_size=3).map(tuple),
    method=methods,
    views=st.lists(views, max_size=3).map(tuple),
    streams=st.dictionaries(names, views, max_size=2),
    weights=st.dictionaries(names, numbers, max_size=2),
)


@given(recipes)
def test_json_round_trip(recipe: Recipe) -> None:
    text = to_json(recipe)
    assert from_json(Recipe(), text) == recipe
    assert to_json(from_json(Recipe(), text)) == text


@given(recipes)
def test_every_setting_can_be_given_as_an_override(recipe: Recipe) -> None:
    """Wherever two recipes have the same shape, overrides of all leaves turn one into the other."""
    blank = dataclasses.replace(
        recipe, name="?", seed=-1, is_fast=not recipe.is_fast, scale=None, folder=Path("?"), tags=()
    )
    overrides = [f"{key}={format_text(value)}" for key, value in flatten(recipe).items()]
    assert apply_overrides(blank, overrides) == recipe


@given(recipes, recipes)
def test_diff_is_empty_exactly_for_equal_recipes(one: Recipe, other: Recipe) -> None:
    assert (diff(one, other) == []) == (to_json(one) == to_json(other))


@given(texts)
def test_any_text_survives_as_text_and_as_member_of_a_tuple(text: str) -> None:
    assert parse_text(str, format_text(text)) == text
    assert parse_text(str | None, format_text(text)) == text
    assert parse_text(int | float | bool | str | None, format_text(text)) == text
    assert parse_text(tuple[str, ...], format_text((text, text))) == (text, text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.pop("seed"), "missing seed"),
        (lambda data: data.update(sede=1), "unknown key sede; did you mean seed?"),
        (lambda data: data.update(seed="1"), "seed: expected a whole number, not '1'"),
        (lambda data: data.update(seed=True), "seed: expected a whole number, not True"),
        (lambda data: data.update(seed=1.0), "seed: expected a whole number, not 1.0"),
        (lambda data: data.update(scale="x"), "scale: expected a number"),
        (lambda data: data.update(tags="ab"), "tags: expected a comma-separated list"),
        (lambda data: data["method"].update(grid=[1]), "method.grid: expected 2"),
        (lambda data: data["views"][1].pop("num_frames"), "views.1: missing num_frames"),
        (lambda data: data["method"]["adapt"].update(warmup=99), "warmup=99 is longer"),
    ],
)
def test_strict_json_names_the_place(change: Any, words: str) -> None:
    data = json.loads(to_json(Recipe()))
    change(data)
    with pytest.raises(OverrideError) as caught:
        from_json(Recipe(), json.dumps(data))
    assert words in str(caught.value)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(OverrideError, match="not JSON"):
        from_json(Recipe, "{")


def test_what_an_older_mien_wrote_takes_defaults_for_what_it_did_not_know() -> None:
    data = json.loads(to_json(Recipe()))
    data["views"][1].pop("num_frames")
    found = from_json(Recipe(), json.dumps(data), complete=False)
    assert found.views[1].num_frames == View().num_frames
    data["views"][1]["num_framse"] = 3
    with pytest.raises(OverrideError, match="num_framse"):
        from_json(Recipe(), json.dumps(data), complete=False)


def test_class_suffices_where_annotations_are_concrete() -> None:
    assert from_json(Method, to_json(Method())) == Method()


def test_what_a_configuration_may_not_hold_is_refused() -> None:
    with pytest.raises(TypedValueError, match="NaN"):
        to_json(Recipe(scale=math.nan))
    with pytest.raises(TypedValueError, match="object"):
        to_json(Recipe(method=object()))


def test_an_empty_mapping_takes_any_name_and_a_filled_one_only_its_own() -> None:
    @dataclasses.dataclass(frozen=True)
    class Files:
        weights: Mapping[str, str] = dataclasses.field(default_factory=dict)

    filled = apply_overrides(Files(), ["weights.eye=a.bin", "weights.ear=b.bin"])

    assert filled.weights == {"eye": "a.bin", "ear": "b.bin"}
    with pytest.raises(OverrideError, match=r"unknown key weights.nose"):
        apply_overrides(filled, ["weights.nose=c.bin"])
