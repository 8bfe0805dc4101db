"""A picture of faces: a row for each class (or person, or split), a column for each clip."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import local
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mien.clips.manifest import ClipRef, Manifest
from mien.clips.schema import ManifestError
from mien.media.decode import decode_clip
from mien.media.errors import ClipError
from mien.media.faces import FaceDetector, align_clip
from mien.media.sampling import uniform_segments
from mien.seeds import derive_seed

GroupBy = Literal["label", "subject", "split"]
COLUMN_OF = {"label": "label", "subject": "subject_id", "split": "split"}
NUM_FRAMES = 5
"""Frames of a clip among which the middle-most with a face is shown."""
MAX_ROWS = 60
"""Groups on a sheet, the largest ones."""
_GAP, _HEADER, _CAPTION = 6, 190, 18
_INK, _PALE, _PAPER, _ALARM = "#1a1a1a", "#666666", "#ffffff", "#c62828"


@dataclass(frozen=True, slots=True)
class Cell:
    """One clip on the sheet."""

    clip_id: str
    caption: str
    face_SSC: npt.NDArray[np.uint8] | None
    """None: the clip can't be decoded."""
    problem: str = ""
    """What is wrong with it: no face, or why it can't be decoded."""


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """A sheet as PNG, and what is on it."""

    png: bytes
    rows: dict[str, list[Cell]]
    groups_left_out: int

    @property
    def problems(self) -> list[str]:
        """A line for each clip that shows no face."""
        cells = [cell for row in self.rows.values() for cell in row if cell.problem]
        return [f"{cell.clip_id}: {cell.problem}" for cell in cells]


def make_contact_sheet(
    manifest: Manifest,
    *,
    by: GroupBy = "label",
    per_group: int = 10,
    seed: int = 0,
    face_px: int = 112,
    num_threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ContactSheet:
    """Draws aligned faces of some clips of each group.

    Which clips depends on their ids and the seed only; as many people as can be are shown.

    Args:
        manifest: clips that may be opened (see `mien.clips.person_data.usable_clips`).
        by: what a row is.
        per_group: columns.
        seed: another seed shows other clips.
        face_px: side of a face in pixels.
        num_threads: clips that are decoded at a time.
        progress: called after each clip.

    Raises:
        ManifestError: no clip has a value in that column.
    """
    groups, left_out = _groups(manifest, by)
    chosen = {name: _choose(manifest, rows, per_group, seed) for name, rows in groups.items()}
    refs = [manifest.ref(row) for rows in chosen.values() for row in rows]
    cells: list[Cell] = []
    caption_column = "label" if by == "subject" else "subject_id"
    with ThreadPoolExecutor(num_threads) as pool:
        look = partial(_cell, face_px=face_px, caption_column=caption_column)
        for cell in pool.map(look, refs):
            cells.append(cell)
            if progress is not None:
                progress(len(cells), len(refs))
    remaining = iter(cells)
    drawn = {name: [next(remaining) for _ in rows] for name, rows in chosen.items()}
    headers = {name: _header(manifest, name, rows) for name, rows in groups.items()}
    return ContactSheet(
        png=_draw(drawn, headers, per_group, face_px), rows=drawn, groups_left_out=left_out
    )


def _groups(manifest: Manifest, by: GroupBy) -> tuple[dict[str, list[int]], int]:
    """Rows of each group that fits on the sheet, in order of name, and how many don't fit."""
    values = manifest.column(COLUMN_OF[by])
    sizes = Counter(value for value in values if value is not None)
    if not sizes:
        others = [name for name, column in COLUMN_OF.items() if any(manifest.column(column))]
        raise ManifestError(
            f"no clip has a {COLUMN_OF[by]}, so there is nothing to group by"
            + (f"; try --by {others[0]}" if others else "; fill one of label, subject_id, split")
        )
    shown = sorted(
        name for name, _ in sorted(sizes.items(), key=lambda s: (-s[1], s[0]))[:MAX_ROWS]
    )
    groups: dict[str, list[int]] = {name: [] for name in shown}
    for row, value in enumerate(values):
        if value in groups:
            groups[value].append(row)
    return groups, len(sizes) - len(shown)


def _choose(manifest: Manifest, rows: Sequence[int], count: int, seed: int) -> list[int]:
    """Rows drawn by seed and clip id; nobody a second time before everybody was there once."""
    ids, people = manifest.table["clip_id"], manifest.table["subject_id"]
    drawn = sorted(rows, key=lambda row: derive_seed(seed, ids[row].as_py()))
    seen: Counter[str | None] = Counter()
    turn = {}
    for row in drawn:
        person = people[row].as_py()
        turn[row] = seen[person] if person is not None else 0
        seen[person] += 1
    return sorted(drawn, key=lambda row: turn[row])[:count]


def _header(manifest: Manifest, name: str, rows: Sequence[int]) -> list[str]:
    people = {manifest.table["subject_id"][row].as_py() for row in rows} - {None}
    clips = f"{len(rows)} clip{'s' if len(rows) != 1 else ''}"
    return [name, clips, *([f"{len(people)} people"] if len(people) > 1 else [])]


_own = local()


def _cell(ref: ClipRef, *, face_px: int, caption_column: str) -> Cell:
    caption = getattr(ref, caption_column) or ref.clip_id
    try:
        clip = decode_clip(
            ref.uri,
            choose_frames=lambda number: uniform_segments(number, NUM_FRAMES).tolist(),
            start_s=ref.start_s,
            end_s=ref.end_s,
            with_audio=False,
        )
    except ClipError as error:
        return Cell(ref.clip_id, caption, None, error.reason.replace("_", " "))
    if not hasattr(_own, "detector"):
        _own.detector = FaceDetector()
    aligned = align_clip(
        clip.frames_THWC,
        size_px=face_px,
        detector=_own.detector,
        rule="largest" if ref.face_box is None else "given_box",
        given_box=ref.face_box,
    )
    found = np.flatnonzero(aligned.has_face_T)
    middle = NUM_FRAMES // 2
    best = int(found[np.argmin(np.abs(found - middle))]) if found.size else middle
    return Cell(ref.clip_id, caption, aligned.crops_TSSC[best], "" if found.size else "no face")


def _draw(
    rows: dict[str, list[Cell]], headers: dict[str, list[str]], columns: int, face_px: int
) -> bytes:
    columns = max((len(cells) for cells in rows.values()), default=columns)
    line = face_px + _CAPTION + _GAP
    size = (_HEADER + columns * (face_px + _GAP) + _GAP, len(rows) * line + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = _font(18), _font(12)
    for number, (name, cells) in enumerate(rows.items()):
        top = _GAP + number * line
        title, *lines = headers[name]
        draw.text((_GAP, top + face_px // 2 - 26), _fit(title, large, _HEADER), _INK, large)
        for offset, text in enumerate(lines):
            place = (_GAP, top + face_px // 2 + 16 * offset)
            draw.text(place, _fit(text, small, _HEADER), _PALE, small)
        for column, cell in enumerate(cells):
            _draw_cell(sheet, draw, cell, (_HEADER + column * (face_px + _GAP), top), face_px)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, place: tuple[int, int], face_px: int
) -> None:
    left, top = place
    frame = (left, top, left + face_px - 1, top + face_px - 1)
    small = _font(12)
    if cell.face_SSC is None:
        draw.rectangle(frame, "#eeeeee")
    else:
        sheet.paste(Image.fromarray(cell.face_SSC), place)
    if cell.problem:
        draw.rectangle(frame, outline=_ALARM, width=3)
        words = _fit(cell.problem, small, face_px - 6)
        box = draw.textbbox((left + 5, top + 4), words, font=small)
        draw.rectangle((box[0] - 2, box[1] - 1, box[2] + 2, box[3] + 2), _PAPER)
        draw.text((left + 5, top + 4), words, _ALARM, small)
    draw.text((left, top + face_px + 1), _fit(cell.caption, small, face_px), _PALE, small)


def _fit(text: str, font: Any, width: int) -> str:
    """The text, cut in the middle so that it is not wider than that."""
    if font.getlength(text) <= width - _GAP:
        return text
    for keep in range(len(text) - 1, 1, -1):
        shorter = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
        if font.getlength(shorter) <= width - _GAP:
            return shorter
    return "…"


def _font(size: int) -> Any:
    # DejaVu comes with matplotlib and knows far more scripts than Pillow's own font.
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)
