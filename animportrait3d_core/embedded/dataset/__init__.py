"""Data sets of the embedded world: which pictures are drawn of which people, and the processes that render them.

Here live the sampling of cameras and the builder. Regions, states of the body, prompts and condition maps are those of
the method (`conditioning`), the file format lives in `training.shards`, the people in `identities`. Nothing of the
method may import this package.
"""

from .builder import BuildReport, DatasetSettings, build_dataset, dataset_settings
from .presets import PRESETS, Preset
from .samples import identity_seeds, render_samples
from .sheet import dataset_sheet

__all__ = [
    "PRESETS",
    "BuildReport",
    "DatasetSettings",
    "Preset",
    "build_dataset",
    "dataset_settings",
    "dataset_sheet",
    "identity_seeds",
    "render_samples",
]
