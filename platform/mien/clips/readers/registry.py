"""Every reader by the name that `mien ingest` knows it by."""

from __future__ import annotations

from mien.clips.readers import (
    affectnet,
    affwild2,
    bp4d,
    cfee,
    crema_d,
    dfew,
    disfa,
    ferv39k,
    gft,
    mafw,
    rafdb,
    voxceleb2,
)
from mien.clips.readers.reading import Reader

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        dfew.READER,
        ferv39k.READER,
        mafw.READER,
        mafw.COMPOUND_READER,
        affectnet.READER,
        rafdb.READER,
        rafdb.COMPOUND_READER,
        affwild2.EXPR_READER,
        affwild2.AU_READER,
        bp4d.READER,
        disfa.READER,
        gft.READER,
        cfee.READER,
        voxceleb2.READER,
        crema_d.READER,
    )
}
