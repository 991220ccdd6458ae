"""What the method and the training of its networks share, so that the two cannot differ.

Here live the regions of the picture with their crop cameras (`crops`), the condition map of any posed body (`maps`),
random states of a body (`states`) and the words of regions and views (`prompts`). All randomness comes from generators
that are handed in. Not here: networks, losses and the loop that use it (`diffusion`, `optimization`), which pictures a
data set holds and how people look (`embedded`). Nothing here knows the mannequin: a body is its `BodyAssets`.
"""

from .crops import CROP_REGIONS, FRAME_SIZE, CropRegion, crop_boxes, crop_cameras
from .maps import ConditionAssets, condition_assets, condition_map, inside_condition, posed_condition_map
from .prompts import Prompts, region_prompt, with_view_word
from .states import BodyState, StateRanges, neutral_state, sample_eyes, sample_state, state_parameters

__all__ = [
    "FRAME_SIZE",
    "CROP_REGIONS",
    "BodyState",
    "ConditionAssets",
    "CropRegion",
    "Prompts",
    "StateRanges",
    "condition_assets",
    "condition_map",
    "crop_boxes",
    "crop_cameras",
    "neutral_state",
    "inside_condition",
    "posed_condition_map",
    "region_prompt",
    "sample_eyes",
    "sample_state",
    "state_parameters",
    "with_view_word",
]
