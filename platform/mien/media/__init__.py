"""Pure functions from files to arrays: decoding, frame sampling, audio features, faces.

Import from the modules (`mien.media.decode`, `mien.media.faces`, ...); this package imports none
of them, so that a process which only decodes does not load torch or OpenCV. No Ray here.
"""
