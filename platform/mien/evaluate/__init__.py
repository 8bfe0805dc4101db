"""Evaluation: per-clip predictions first, then every score, table and picture from those."""
