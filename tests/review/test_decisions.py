"""A queue written as a table, a person's decisions read back, laid over a manifest."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.clips.manifest import Manifest
from mien.review.decisions import Decision, ReviewError, read_decisions, write_table
from mien.review.items import ReviewItem
from mien.review.label_studio import label_studio_config, label_studio_tasks
from mien.review.overlay import apply_decisions

ITEMS = [
    ReviewItem(
        clip_id='a,"1"',
        given="anger",
        suggested="fear",
        reason="noisy",
        facts={"margin": 0.51234, "rank_of_other": None},
        probabilities={"anger": 0.2, "fear": 0.7},
        history=({"epoch": 1, "suggested": "fear", "margin": 0.25},),
    ),
    ReviewItem(clip_id="b", given=None, suggested="anger", reason="doubtful"),
]


def manifest(**soft) -> Manifest:
    rows = [
        {"clip_id": "a", "uri": "/a.mp4", "label": "anger", "soft_label": {"anger": 1.0}},
        {"clip_id": "b", "uri": "/b.mp4", "label": None},
        {"clip_id": "c", "uri": "/c.mp4", "label": "fear"},
    ]
    return Manifest.from_rows(rows, base="/")


def decided(clip_id: str, seen: str | None, decision: str) -> Decision:
    return Decision(clip_id=clip_id, given=seen, decision=decision)


def test_table_is_filled_in_and_read_back(tmp_path: Path) -> None:
    place = str(tmp_path / "ranked.csv")
    write_table(place, ITEMS)
    with open(place, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["clip_id"] for row in rows] == ['a,"1"', "b"]
    assert rows[0]["margin"] == "0.5123"
    assert rows[0]["history"] == "1 fear 0.25"
    assert rows[1]["given"] == rows[1]["margin"] == ""
    assert read_decisions(place) == []
    rows[1]["decision"] = " anger "
    with open(place, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    assert read_decisions(place) == [decided("b", None, "anger")]


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1).filter(lambda text: "\x00" not in text), st.sampled_from(["x", "keep"]))
def test_any_clip_id_survives(tmp_path_factory, clip_id: str, decision: str) -> None:
    place = tmp_path_factory.mktemp("csv") / "decisions.csv"
    with open(place, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["clip_id", "given", "decision"], [clip_id, "", decision]])
    assert read_decisions(str(place)) == [decided(clip_id, None, decision)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("clip,decision\na,b\n", "no column clip_id, given"),
        ("clip_id,given,decision\na,x,fear\na,x,anger\n", "'a' is decided as 'fear' and as"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, told: str) -> None:
    place = tmp_path / "d.csv"
    place.write_text(text)
    with pytest.raises(ReviewError, match=told):
        read_decisions(str(place))


def test_label_studio_there_and_back(tmp_path: Path) -> None:
    tasks = label_studio_tasks(ITEMS, ["data:image/jpeg;base64,AA==", ""], model="run 1")
    first = tasks[0]["predictions"][0]
    assert first["result"][0]["value"] == {"choices": ["fear"]}
    assert first["score"] == 0.7
    # Label Studio hands tasks back with what people chose.
    chosen = {"type": "choices", "from_name": "label", "value": {"choices": ["anger"]}}
    tasks[0]["annotations"] = [
        {"result": [chosen], "was_cancelled": False},
        {"result": [chosen | {"value": {"choices": ["fear"]}}], "was_cancelled": True},
    ]
    place = tmp_path / "export.json"
    place.write_text(json.dumps(tasks))
    assert read_decisions(str(place)) == [decided('a,"1"', "anger", "anger")]
    names = [tasks[0]["predictions"][0]["result"][0][key] for key in ("from_name", "to_name")]
    config = label_studio_config(('<"x">', "fear"))
    assert all(f'name="{name}"' in config for name in names)
    assert "&lt;" in config


def test_a_label_studio_file_without_our_tasks(tmp_path: Path) -> None:
    place = tmp_path / "export.json"
    place.write_text('[{"data": {"image": "x"}}]')
    with pytest.raises(ReviewError, match="lacks 'clip_id'"):
        read_decisions(str(place))
    place.write_text("{")
    with pytest.raises(ReviewError, match="can't be read"):
        read_decisions(str(place))


def test_decisions_make_a_new_manifest() -> None:
    old = manifest()
    found = apply_decisions(
        old,
        [decided("a", "anger", "fear"), decided("b", None, "anger"), decided("c", "fear", "none")],
    )
    assert (found.changed, found.labelled, found.removed, found.kept) == (1, 1, 1, 0)
    assert found.manifest.column("label") == ["fear", "anger", None]
    assert found.manifest.column("label_before_review") == ["anger", None, "fear"]
    assert found.manifest.column("reviewed") == [True, True, True]
    assert found.manifest.column("soft_label") == [None, None, None]
    assert old.column("label") == ["anger", None, "fear"]


def test_kept_labels_and_a_second_review() -> None:
    once = apply_decisions(manifest(), [decided("a", "anger", "keep")])
    assert once.kept == 1
    assert once.manifest.column("soft_label")[0] == {"anger": 1.0}
    assert once.manifest.column("reviewed") == [True, False, False]
    twice = apply_decisions(once.manifest, [decided("c", "fear", "anger")])
    again = apply_decisions(twice.manifest, [decided("c", "anger", "fear")])
    assert again.manifest.column("label") == ["anger", None, "fear"]
    # The first label is the one that is remembered.
    assert again.manifest.column("label_before_review") == [None, None, "fear"]
    assert again.manifest.column("reviewed") == [True, False, True]


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (decided("aa", "anger", "fear"), "'aa' is decided about but not in the manifest.*'a'"),
        (decided("a", "fear", "anger"), "looked at as fear but is anger"),
        (decided("a", None, "anger"), "looked at as unlabelled but is anger"),
        (decided("a", "anger", "feer"), "'feer' is no class.*Did you mean 'fear'"),
    ],
)
def test_decisions_that_do_not_fit(decision: Decision, told: str) -> None:
    with pytest.raises(ReviewError, match=told):
        apply_decisions(manifest(), [decision])


def test_a_new_class_on_request() -> None:
    found = apply_decisions(manifest(), [decided("a", "anger", "contempt")], new_classes=True)
    assert found.manifest.column("label")[0] == "contempt"
