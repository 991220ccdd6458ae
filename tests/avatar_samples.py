"""Small avatars on the mannequin: anisotropic, locally rotated Gaussians in the head frame of the world."""

from __future__ import annotations

import torch

from animportrait3d_core.avatar import RiggedAvatar
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.body.personal import PersonalOffsets
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.parts import part_of_faces


def fitted_parameters(body: BodyModel) -> BodyParameters:
    """A fit as the real one: placed in the world, with some shape and a slightly bent neck."""
    parameters = body.neutral_parameters()
    betas = 0.5 * torch.randn(parameters.betas.shape, generator=torch.Generator().manual_seed(1))
    return parameters.replace(
        betas=betas,
        scale=torch.tensor([[2.78]]),
        translation=torch.tensor([[0.0, -0.32, 0.0]]),
        neck_pose=torch.tensor([[0.05, 0.02, 0.0]]),
        head_pose=torch.tensor([[-0.04, 0.03, 0.02]]),
    )


def random_avatar(body: BodyModel, rest: BodyParameters, count: int, sh_degree: int = 0, seed: int = 0) -> RiggedAvatar:
    """Gaussians near random faces of the body, long in a random direction."""
    generator = torch.Generator().manual_seed(seed)
    binding = torch.randint(len(body.faces), (count,), generator=generator)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    with torch.no_grad():
        corners = body(rest).vertices[0][body.faces[binding]]
    size = (corners[:, 1] - corners[:, 0]).norm(dim=-1).clamp_min(1e-3)
    log_scales = torch.log(0.02 / size)[:, None] + torch.tensor([0.7, -0.9, 0.0]) + 0.2 * normal(count, 3)
    sh = 0.3 * normal(count, (sh_degree + 1) ** 2, 3)
    gaussians = Gaussians(0.2 * normal(count, 3), normal(count, 4), log_scales, 1.0 + normal(count), sh)
    part_id = part_of_faces(body.assets.face_regions)[binding]
    return RiggedAvatar(gaussians, binding, part_id, body, rest, prompt="a test", metadata={"seed": str(seed)})


def personal_offsets(body: BodyModel) -> PersonalOffsets:
    """Offsets of a person whose skin, lids, jaw and eyes are nowhere where the body has them."""
    vertices, joints = torch.zeros(body.num_vertices, 3), torch.zeros(55, 3)
    x, y, _ = body.to_tensors()[0]["template"].unbind(1)
    vertices[:, 0], vertices[:, 1] = 0.01 * torch.sin(30 * y), 0.008 * torch.cos(25 * x + 10 * y)
    joints[22] = torch.tensor([0.001, 0.012, 0.004])  # jaw
    joints[23], joints[24] = torch.tensor([0.005, -0.003, 0.002]), torch.tensor([-0.004, 0.002, 0.003])  # eyes
    return PersonalOffsets(vertices, joints, 0.3 * body.assets.eyelid_offsets, body.fingerprint)


def sleeping_person(body: BodyModel, count: int, sh_degree: int = 0) -> RiggedAvatar:
    """The avatar of somebody with personal offsets whose left eye is closed at rest."""
    rest = fitted_parameters(body).replace(eyelids=torch.tensor([[1.0, 0.0]]))
    return random_avatar(body.personalized(personal_offsets(body)), rest, count, sh_degree)
