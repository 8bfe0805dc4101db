"""Forgetting a person: out of manifests, caches and memories; and naming what can't be undone.

The manifests say which clips are a person's, so they change last: a forgetting that was interrupted
can simply be started again.
"""
