"""What a head is aligned to: the neutral surface of a body in the head frame, with its landmarks and regions."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..body.model import BodyModel
from ..body.parameters import BodyParameters
from ..errors import InvalidInput, check_shape
from ..head_frame import EYE_HEIGHT, HEAD_SCALE
from ..landmarks import CHIN, EYES, NUM_BODY_LANDMARKS
from ..meshes import Mesh
from ..regions import INNER_REGIONS

FACE_WEIGHT, OTHER_WEIGHT, SCALP_WEIGHT = 1.0, 0.05, 0.05


@dataclasses.dataclass(frozen=True)
class HeadTarget:
    """A neutral head in the head frame.

    mesh: its outer surface.  landmarks: [70, 3], 68 iBUG landmarks and the centres of the left and right eye.
    weights: [F] importance of each face for alignment, not negative: 1 on the face, little where hair and clothes are.
    """

    mesh: Mesh
    landmarks: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        check_shape("HeadTarget", "landmarks", self.landmarks, [NUM_BODY_LANDMARKS, 3])
        check_shape("HeadTarget", "weights", self.weights, [len(self.mesh.faces)])
        if not bool((self.weights >= 0).all()) or not bool((self.weights > 0).any()):
            raise InvalidInput("HeadTarget: `weights` must not be negative and some must be more than 0.")

    @property
    def chin(self) -> float:
        """y of the chin."""
        return float(self.landmarks[CHIN, 1])

    @property
    def height(self) -> float:
        """From chin to crown, about 0.65."""
        return float(self.mesh.vertices[:, 1].max()) - self.chin


def standard_placement(body: BodyModel) -> BodyParameters:
    """Neutral parameters that put the body into the head frame: scale 2.78, eyes at y = 0.42, the face at x = 0.

    The z of the template is kept: its head stands above the origin.
    """
    neutral = BodyParameters.neutral(1, body.num_betas, body.num_expression)
    eyes = body(neutral.replace(scale=torch.tensor([[HEAD_SCALE]]))).landmarks[0, EYES].mean(0)
    translation = torch.tensor([[-float(eyes[0]), EYE_HEIGHT - float(eyes[1]), 0.0]])
    return neutral.replace(scale=torch.tensor([[HEAD_SCALE]]), translation=translation)


def head_target(body: BodyModel, parameters: BodyParameters | None = None) -> HeadTarget:
    """The target of a body, at its standard placement or as `parameters` (batch 1) put it."""
    with torch.no_grad():
        output = body(standard_placement(body) if parameters is None else parameters)
    regions = body.assets.face_regions
    hidden = torch.stack([regions[name] for name in INNER_REGIONS]).any(0)
    weights = torch.full((len(body.faces),), OTHER_WEIGHT)
    weights[regions["scalp"]] = SCALP_WEIGHT
    weights[regions["face"] | regions["eye_region"] | regions["lips"]] = FACE_WEIGHT
    outside = Mesh(output.vertices[0].detach().clone(), body.faces_outward[~hidden])
    return HeadTarget(outside, output.landmarks[0].detach().clone(), weights[~hidden])
