"""Data sets in a bucket of a real S3 server."""

from __future__ import annotations

import fsspec
import pytest
from s3_server import BUCKET

from mien.clips.ingest_dataset import ingest_dataset
from mien.clips.readers.reading import DatasetError
from mien.media.decode import decode_clip


@pytest.mark.slow
def test_a_bucket_is_read_as_a_folder_is(tree, s3_server) -> None:
    header = "0," + ",".join(str(n) for n in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24))
    for number in (7, 8):
        rows = "".join(f"{frame}," + ",".join(["1"] * 12) + "\n" for frame in (1, 2, 3))
        tree.text(f"AUCoding/AU_OCC/F00{number}_T1.csv", f"{header}\n{rows}")
        tree.frames(f"F00{number}/T1", ["0001.jpg", "0002.jpg"])
    s3 = fsspec.filesystem("s3", use_listings_cache=False)
    s3.put(f"{tree.root}/", f"{BUCKET}/sets/BP4D", recursive=True)
    local = tree.ingest("bp4d", window_frames=2)
    remote = ingest_dataset("bp4d", f"s3://{BUCKET}/sets/BP4D", window_frames=2)
    assert len(remote.manifest) == 2
    assert remote.manifest.content_hash() == local.manifest.content_hash()
    assert remote.summary() == local.summary()
    ref = remote.manifest.ref(1)
    assert decode_clip(ref.uri, choose_frames=range).num_source_frames == 2
    with pytest.raises(DatasetError, match=f"Did you mean --root s3://{BUCKET}/sets/BP4D"):
        ingest_dataset("bp4d", f"s3://{BUCKET}/sets")
    with pytest.raises(DatasetError, match="there is no folder s3://"):
        ingest_dataset("bp4d", f"s3://{BUCKET}/nothing")
