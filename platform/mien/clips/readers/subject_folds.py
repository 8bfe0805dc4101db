"""The three subject-exclusive folds of BP4D and DISFA that the published codes share."""

from __future__ import annotations

from collections.abc import Sequence


def fold_of_subject(parts: Sequence[str], prefix: str = "") -> dict[str, int]:
    """Subject -> fold in which it is tested on.

    Args:
        parts: names of P1, P2 and P3, blank-separated: fold 1 tests on P3, 2 on P2, 3 on P1.
        prefix: put before each name.
    """
    return {
        f"{prefix}{name}": len(parts) - number
        for number, part in enumerate(parts)
        for name in part.split()
    }


def unknown_subjects(found: Sequence[str], fold_of: dict[str, int]) -> list[str]:
    """A note about subjects that are in no fold, and one about those that are missing."""
    unknown = sorted(set(found) - fold_of.keys())
    missing = sorted(fold_of.keys() - set(found))
    notes = []
    if unknown:
        notes.append(f"{len(unknown)} subjects are in no published fold: {', '.join(unknown[:5])}.")
    if missing:
        notes.append(
            f"{len(missing)} of the published {len(fold_of)} subjects are not there: "
            f"{', '.join(missing[:5])}{f' and {len(missing) - 5} more' * (len(missing) > 5)}."
        )
    return notes
