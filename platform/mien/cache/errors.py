"""What can be wrong with a clip cache."""

from __future__ import annotations


class CacheError(ValueError):
    """A cache that cannot be used: what is wrong with which file, and what to type."""
