"""What a method is: data needs and maths.

A method sees batches and ``torch.distributed`` collectives, nothing else: no optimiser, no device
code, no files. The loop in ``mien.train.loop`` asks it for stages, streams what they name, wraps
the module once per stage in DDP and calls it, so that every gradient goes through the wrapper::

    for index in count():
        stage = method.stage(index)              # None: done
        method.begin_stage(index)                # may change the network (a wider head)
        ... optimiser and DDP are built here ...
        for epoch in range(stage.epochs):
            for batches in streams:
                output = method(batches, progress)      # forward and losses
                ... backward, step ...
                method.after_step()                     # teachers, queues
            method.end_epoch(scan)                      # thresholds, agreement
        method.end_stage(scan)                          # exemplars
    method.finish()                                     # lets go what only training needs

``docs/contract.md`` writes the five methods' stages and streams down against this contract.

Shape suffixes used here and in the methods: B clips of a batch, V views, T video frames, C colour
channels, H W pixels, F audio frames, M mel bands, K classes, U action units, D features, N tokens.
"""

from mien_models.contract.batch import (
    UNLABELLED,
    ClipBatch,
    View,
    plain_batch,
    without_audio,
    without_video,
)
from mien_models.contract.method import (
    InnerWeights,
    JsonState,
    Method,
    PictureLayer,
    Prediction,
    Scan,
    TensorPredictor,
    effect_of,
)
from mien_models.contract.stages import (
    EpochNotes,
    OptimPlan,
    Progress,
    Range,
    Stage,
    StageReport,
    StepOutput,
)
from mien_models.contract.streams import (
    AudioSpec,
    Augmentation,
    StreamSpec,
    ViewSpec,
)

__all__ = [
    "UNLABELLED",
    "AudioSpec",
    "Augmentation",
    "ClipBatch",
    "EpochNotes",
    "InnerWeights",
    "JsonState",
    "Method",
    "OptimPlan",
    "PictureLayer",
    "Prediction",
    "Progress",
    "Range",
    "Scan",
    "Stage",
    "StageReport",
    "StepOutput",
    "StreamSpec",
    "TensorPredictor",
    "View",
    "ViewSpec",
    "effect_of",
    "plain_batch",
    "without_audio",
    "without_video",
]
