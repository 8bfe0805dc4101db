"""Search: which settings are tried, in what order, and what was found.

Knows Optuna and Ray Tune, and neither methods nor recipes. The study in its data base is the one
truth about a search; everything that Tune keeps is of one start of the driver only.
"""
