"""What ``mien doctor`` looks at: the machine, torch, media libraries, Ray, MLflow, storage.

Each check is a function that returns one :class:`~mien_jobs.checks.result.Check`, tries the real
thing where that is possible, and says what to type where it is not well.
"""
