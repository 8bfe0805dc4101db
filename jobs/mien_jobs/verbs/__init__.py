"""One module a verb of ``mien``: ``add_arguments(parser)`` and ``run(args) -> exit code``."""
