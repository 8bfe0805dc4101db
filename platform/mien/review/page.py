"""A self-contained HTML page to step through a queue: one file, nothing is fetched or sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from mien.review.decisions import KEEP, NONE
from mien.review.items import ReviewItem
from mien.review.pictures import ClipPictures, as_data_uri

_DATA = "__REVIEW_DATA__"
_TITLE = "__REVIEW_TITLE__"


def review_page(
    items: Sequence[ReviewItem],
    pictures: Mapping[str, ClipPictures],
    *,
    title: str,
    classes: Sequence[str],
    notes: Sequence[str] = (),
) -> str:
    """The page as HTML.

    Decisions stay in the browser's own storage until they are downloaded as CSV, which
    :func:`mien.review.decisions.read_decisions` reads.

    Args:
        items: the queue, most doubtful first.
        pictures: of clips, by id; clips without show no picture.
        title: shown on top, and the name under which the browser keeps decisions.
        classes: what may be chosen, in the order of the keys 1 to 9.
        notes: lines shown below the title.
    """
    data = {
        "title": title,
        "notes": list(notes),
        "classes": list(classes),
        "keep": KEEP,
        "none": NONE,
        "items": [_entry(item, pictures.get(item.clip_id)) for item in items],
    }
    template = resources.files("mien.review").joinpath("page.html").read_text(encoding="utf-8")
    # A clip's name may hold "</script>"; in JSON "<" may be written as an escape.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    escaped = title.replace("&", "&amp;").replace("<", "&lt;")
    return template.replace(_TITLE, escaped).replace(_DATA, text)


def _entry(item: ReviewItem, pictures: ClipPictures | None) -> dict[str, Any]:
    shown = (
        [] if pictures is None else list(zip(pictures.faces_NSSC, pictures.times_s, strict=True))
    )
    return {
        "clip_id": item.clip_id,
        "given": item.given or "",
        "suggested": item.suggested,
        "reason": item.reason,
        "facts": dict(item.facts),
        "probabilities": {name: round(value, 4) for name, value in item.probabilities.items()},
        "history": [dict(entry) for entry in item.history],
        "pictures": [{"src": as_data_uri(face), "time": round(time, 2)} for face, time in shown],
        "problem": "" if pictures is None else pictures.problem,
    }
