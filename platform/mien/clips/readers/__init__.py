"""Readers of published data sets: from the folder that the owners give out to manifest rows.

One module a data set or family. A reader follows the published layout, names, folds, label order
and missing codes; it opens no media. `mien.clips.ingest_dataset` runs it, checks that the media are
there and counts what was found beside what was published. docs/datasets.md describes them.
"""
