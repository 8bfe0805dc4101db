"""Everything a person needs to review a queue, in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mien.clips.manifest import Manifest
from mien.media.faces import FaceRule
from mien.media.storage import join, write_bytes_atomically
from mien.review.decisions import write_table
from mien.review.items import ReviewItem
from mien.review.label_studio import label_studio_config, label_studio_tasks
from mien.review.page import review_page
from mien.review.pictures import ClipPictures, clip_pictures, strip

TABLE, PAGE = "ranked.csv", "review.html"
TASKS, CONFIG = "label_studio.json", "label_studio.xml"


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSettings:
    """How much of a queue is shown with faces."""

    title: str
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    pages: int = 200
    """Clips of the queue that get faces and are on the page; the table holds them all."""
    face_px: int = 128
    face_rule: FaceRule = "largest"
    model: str = "mien"


def write_review(
    folder: str,
    items: Sequence[ReviewItem],
    manifest: Manifest,
    settings: PageSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, str]:
    """Writes table, page and Label Studio's files; each whole or not at all.

    Args:
        folder: path or URI.
        items: the queue, most doubtful first.
        manifest: holds every clip of the queue; those that may be opened.
        settings: what is shown.
        progress: called after each clip whose faces were made.

    Returns:
        File name to location.

    Raises:
        ManifestError: a clip of the queue is not in the manifest.
        StorageError: the folder can't be written to.
    """
    shown = list(items[: settings.pages])
    pictures = _pictures(shown, manifest, settings, progress)
    page = review_page(
        shown, pictures, title=settings.title, classes=settings.classes, notes=settings.notes
    )
    strips = [strip(pictures[item.clip_id]) for item in shown]
    tasks = label_studio_tasks(shown, strips, model=settings.model)
    places = {name: join(folder, name) for name in (TABLE, PAGE, TASKS, CONFIG)}
    write_table(places[TABLE], items)
    write_bytes_atomically(places[PAGE], page.encode())
    write_bytes_atomically(places[TASKS], json.dumps(tasks).encode())
    write_bytes_atomically(places[CONFIG], label_studio_config(settings.classes).encode())
    return places


def _pictures(
    items: Sequence[ReviewItem],
    manifest: Manifest,
    settings: PageSettings,
    progress: Callable[[int, int], None],
) -> dict[str, ClipPictures]:
    found: dict[str, ClipPictures] = {}
    refs = manifest.by_ids([item.clip_id for item in items])
    for ref, item in zip(refs, items, strict=True):
        found[item.clip_id] = clip_pictures(
            ref, item.moments, face_px=settings.face_px, face_rule=settings.face_rule
        )
        progress(len(found), len(items))
    return found
