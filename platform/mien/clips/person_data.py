"""Which clips may be used: people's consent and the clips' licences, before any media is read."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mien.clips.manifest import Manifest
from mien.clips.schema import ManifestError


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableClips:
    """The clips that may be used, and how many may not."""

    manifest: Manifest
    without_consent: int
    """Clips that were left out because their person does not consent."""
    other_licence: int
    """Clips with consent that were left out because of their licence, or because they have none."""

    def summary(self) -> str:
        """One line about what was left out; empty where nothing was."""
        reasons = []
        if self.without_consent:
            reasons.append(f"{self.without_consent} without consent")
        if self.other_licence:
            reasons.append(f"{self.other_licence} under no licence that is allowed")
        total = len(self.manifest) + self.without_consent + self.other_licence
        return f"left out unread, of {total} clips: {', '.join(reasons)}" if reasons else ""


def usable_clips(manifest: Manifest, licences: Collection[str] = ()) -> UsableClips:
    """The clips with consent and an allowed licence; nothing of the others is opened.

    Args:
        manifest: all clips.
        licences: values of the column `licence` that are allowed; empty allows all, and clips
            without a licence too.

    Raises:
        ManifestError: a licence that no clip has (names the nearest), or no clip is left.
    """
    consented = manifest.consented()
    allowed = consented
    if licences:
        _refuse_unknown(manifest, licences)
        column = consented.table["licence"]
        allowed = consented.filter(pc.is_in(column, value_set=pa.array(sorted(licences))))
    found = UsableClips(
        manifest=allowed,
        without_consent=len(manifest) - len(consented),
        other_licence=len(consented) - len(allowed),
    )
    if len(manifest) and not len(allowed):
        raise ManifestError(
            f"no clip may be used: {found.summary()}. The columns `consent` and `licence` say what "
            "people agreed to; only they can change it"
        )
    return found


def _refuse_unknown(manifest: Manifest, licences: Collection[str]) -> None:
    known = sorted(pc.unique(manifest.table["licence"]).drop_null().to_pylist())
    for licence in licences:
        if licence in known:
            continue
        folded = {name.casefold(): name for name in known}
        near = difflib.get_close_matches(licence.casefold(), folded, n=1)
        hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
        raise ManifestError(
            f"no clip has the licence {licence!r}.{hint} There are: "
            f"{', '.join(known) or 'none, the column `licence` is empty'}"
        )
