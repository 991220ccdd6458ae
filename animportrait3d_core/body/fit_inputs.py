"""What a fit begins with: inputs that are checked, and the views whose silhouettes it looks at."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import yaw_of
from ..errors import InvalidInput, check_finite, check_shape
from ..meshes import Mesh
from ..views import Views
from .landmarks import Landmarks

_MIN_FACES = 100


def check_inputs(views: Views, mesh: Mesh | None, covering: Tensor | None, landmarks: Landmarks | None) -> None:
    """Raise `InvalidInput` for what no fit can begin with; see `fit.fit_body`."""
    check_finite("fit_body", "views.masks", views.masks)
    if landmarks is not None:
        # Asked here, because what the fit itself finds wrong with landmarks only leaves them out.
        landmarks.cameras_beside(views)
    if mesh is not None:
        check_finite("fit_body", "mesh.vertices", mesh.vertices)
        if len(mesh.faces) < _MIN_FACES:
            raise InvalidInput(
                f"fit_body: the mesh has {len(mesh.faces)} faces, expected a head with at least {_MIN_FACES}."
            )
    if covering is not None:
        check_shape("fit_body", "covering", covering, [0 if mesh is None else len(mesh.faces)])
        bare = int((~covering).sum())
        if bare < _MIN_FACES:
            raise InvalidInput(
                f"fit_body: {bare} of the mesh's {len(covering)} faces are skin, the others hair or clothes; expected "
                f"at least {_MIN_FACES} of skin. Correct the parts of the mesh, or fit to the mesh without them."
            )
    is_empty = ~(views.masks > 0.5).flatten(1).any(1)
    if bool(is_empty.any()):
        numbers = torch.nonzero(is_empty).squeeze(1).tolist()
        listed = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
        raise InvalidInput(
            f"fit_body: {len(numbers)} of {len(views)} views show no foreground (numbers {listed}, counted from 0): no "
            "mask value there is above 0.5. Mend their masks, or leave these views out."
        )


def few_views(views: Views, most: int, most_pixels: int) -> Views:
    """At most so many views evenly from all around, of at most so many pixels a side: silhouettes need no more."""
    heights = views.cameras.camera_centers[:, 1].tolist()
    places = [(round(yaw, 3), round(height, 4)) for yaw, height in zip(yaw_of(views.cameras).tolist(), heights)]
    around = torch.tensor(sorted(range(len(views)), key=places.__getitem__))  # whatever order the views come in
    count = min(most, len(views))
    chosen = views[around[torch.arange(count) * len(views) // count]]
    height, width = chosen.masks.shape[1:]
    shrink = min(1.0, most_pixels / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    resize = torch.nn.functional.adaptive_avg_pool2d
    return Views(
        images=resize(chosen.images.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1),
        masks=resize(chosen.masks[:, None], size)[:, 0],
        cameras=chosen.cameras.resized(size[1], size[0]),
        background=chosen.background,
    )
