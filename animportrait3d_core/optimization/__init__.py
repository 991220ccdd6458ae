"""The one loop that trains an avatar, and what it is trained on.

Here: `Stage` (what is done, as data), `Scenes` (poses and cameras of each step), `Objective` (what the pictures should
be), the loop, and the objectives themselves: `fit_views` (pictures at rest), `score_matching` (what a guidance asks
for) and `edits` (what it made of a frozen copy), the latter two on `region_scenes`. An objective gets rendered crops
and gives losses; it knows nothing of rigs, optimisers, densification or saved states. Not here: the Gaussians and their
tables (`avatar`), score rules (`diffusion`), networks that are trained (`training`).
"""

from .fit_views import FitViewsSettings, fit_to_views, views_optimizer
from .loop import AvatarOptimizer, Crops, Objective, optimize_avatar
from .scenes import Scene, Scenes, ViewScenes
from .stage import LearningRates, Stage

__all__ = [
    "AvatarOptimizer",
    "Crops",
    "FitViewsSettings",
    "LearningRates",
    "Objective",
    "Scene",
    "Scenes",
    "Stage",
    "ViewScenes",
    "fit_to_views",
    "optimize_avatar",
    "views_optimizer",
]
