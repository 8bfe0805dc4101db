"""Clips that a person should look at: tables, a page to step through, decisions read back.

One way for whatever asks: doubted labels (``mien audit-labels``) and doubted pseudo-labels
(``mien review``) are lists of :class:`mien.review.items.ReviewItem`.
"""
