"""``mien clips WHAT MANIFEST``: look at the clips of a manifest, or make copies for sharing."""

from __future__ import annotations

import argparse
from importlib import import_module

ACTIONS: dict[str, tuple[str, str]] = {
    "show": ("clips_show", "list clips, or show all that is known of one"),
    "stats": ("clips_stats", "balance of classes and people, lengths, sound, consent; warnings"),
    "check": ("clips_check", "open every file: broken ones, duplicates, leaks, silence, no face"),
    "contact-sheet": ("clips_contact_sheet", "a picture of faces, a row for each class"),
    "correct": ("clips_correct", "lay a person's decisions about labels over a manifest"),
    "hide-labels": ("clips_hide_labels", "keep so many labels a class, for semi-supervision"),
    "merge": (
        "clips_merge",
        "several manifests as one: labelled and unlabelled, basic and compound",
    ),
    "anonymise": ("clips_anonymise", "copies fit for sharing: one face, no tags, new names"),
}
"""Action: its module in ``mien_jobs.verbs``, and what it does."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions with their own options."""
    actions = parser.add_subparsers(dest="action", metavar="WHAT", required=True)
    for name, (module, summary) in ACTIONS.items():
        sub = actions.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        import_module(f"mien_jobs.verbs.{module}").add_arguments(sub)


def run(args: argparse.Namespace) -> int:
    """Does what was asked for."""
    return int(import_module(f"mien_jobs.verbs.{ACTIONS[args.action][0]}").run(args))
