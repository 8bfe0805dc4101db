"""Looking at a manifest before training on it: figures, faults of its files, a sheet of faces."""
