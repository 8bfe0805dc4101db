"""The queue as tasks of Label Studio, with the model's suggestion as prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from mien.review.decisions import NONE
from mien.review.items import ReviewItem


def label_studio_tasks(
    items: Sequence[ReviewItem], strips: Sequence[str], *, model: str
) -> list[dict[str, Any]]:
    """One task a clip, for "Import" of a project with :func:`label_studio_config`.

    Args:
        items: the queue.
        strips: of each clip, its faces as one picture (a data URI).
        model: shown as the prediction's version.
    """
    return [
        {
            "data": {
                "clip_id": item.clip_id,
                "faces": picture,
                "given": item.given or "",
                "suggested": item.suggested,
                "question": _question(item),
            },
            "predictions": [
                {
                    "model_version": model,
                    "score": round(float(item.probabilities.get(item.suggested, 0.0)), 4),
                    "result": [
                        {
                            "from_name": "label",
                            "to_name": "faces",
                            "type": "choices",
                            "value": {"choices": [item.suggested]},
                        }
                    ],
                }
            ],
        }
        for item, picture in zip(items, strips, strict=True)
    ]


def _question(item: ReviewItem) -> str:
    given = f"label {item.given}" if item.given else "no label"
    return f"{item.clip_id}: {given}, model suggests {item.suggested} ({item.reason})"


def label_studio_config(classes: Sequence[str]) -> str:
    """The labelling interface (XML) of a project for these tasks."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in (*classes, NONE))
    return (
        "<View>\n"
        '  <Text name="question" value="$question"/>\n'
        '  <Image name="faces" value="$faces" zoom="true"/>\n'
        '  <Choices name="label" toName="faces" choice="single" showInLine="true">\n'
        f"{choices}\n"
        "  </Choices>\n"
        "</View>\n"
    )
