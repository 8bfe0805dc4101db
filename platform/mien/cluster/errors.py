"""What goes wrong between this terminal and a cluster."""

from __future__ import annotations


class ClusterError(ValueError):
    """A cluster that can't be reached or refuses, or a job that can't be submitted as given."""
