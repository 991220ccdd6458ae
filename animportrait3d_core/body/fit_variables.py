"""The unknowns of a fit as one vector, the posed body with its derivatives, and residual terms as normal equations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..meshes import vertex_normals
from .model import BodyModel
from .parameters import BodyParameters

Column = tuple[str, int]  # a parameter's name and the index within it
_STEP = 1e-3  # forward differences in float32: rounding 1e-4, curvature 1e-3 of a derivative


@dataclasses.dataclass(frozen=True)
class LinearizedBody:
    """A posed body and its derivatives by P unknowns.

    vertices, normals: [V', 3]; the normals of outer skin only.  landmarks: [70, 3].  d_vertices: [V', 3, P].
    d_landmarks: [70, 3, P].
    """

    vertices: Tensor
    normals: Tensor
    landmarks: Tensor
    d_vertices: Tensor
    d_landmarks: Tensor


def columns_of(**counts: int) -> list[Column]:
    """The first `count` entries of each named parameter."""
    return [(name, index) for name, count in counts.items() for index in range(count)]


def get_values(parameters: BodyParameters, columns: Sequence[Column]) -> Tensor:
    """The unknowns [P] of a batch of one."""
    return torch.stack([getattr(parameters, name)[0, index] for name, index in columns])


def set_values(parameters: BodyParameters, columns: Sequence[Column], values: Tensor) -> BodyParameters:
    """The parameters with the unknowns set to values [P], or [N, P] for a batch of N."""
    rows = values.reshape(-1, len(columns))
    changed = {name: getattr(parameters, name).expand(len(rows), -1).clone() for name in {n for n, _ in columns}}
    for position, (name, index) in enumerate(columns):
        changed[name][:, index] = rows[:, position]
    return parameters.replace(**changed)


def pose_with_derivatives(
    body: BodyModel,
    parameters: BodyParameters,
    columns: Sequence[Column],
    outer_faces: Tensor,
    nearby: LinearizedBody | None = None,
) -> LinearizedBody:
    """Pose a batch of one and differentiate by the unknowns, all in one batched forward pass.

    outer_faces: [F, 3] int64, wound outward.
    nearby: take the derivatives of this body instead, which are almost the same after a small step and cost most.
    """
    if nearby is not None:
        output = body(parameters)
        vertices = output.vertices[0]
        return dataclasses.replace(
            nearby, vertices=vertices, normals=vertex_normals(vertices, outer_faces), landmarks=output.landmarks[0]
        )
    values = get_values(parameters, columns)
    rows = torch.cat([values[None], values + _STEP * torch.eye(len(columns))])
    output = body(set_values(parameters, columns, rows))
    # Unknowns last: one vertex's derivatives lie together, and choosing vertices copies whole rows.
    d_vertices = (output.vertices[1:] - output.vertices[:1]).permute(1, 2, 0).contiguous() / _STEP
    d_landmarks = (output.landmarks[1:] - output.landmarks[:1]).permute(1, 2, 0) / _STEP
    vertices = output.vertices[0]
    return LinearizedBody(vertices, vertex_normals(vertices, outer_faces), output.landmarks[0], d_vertices, d_landmarks)


@dataclasses.dataclass
class NormalEquations:
    """Sum of Gauss-Newton systems: (J^T W J) step = -J^T W r.  hessian: [P, P], gradient: [P], float64."""

    hessian: Tensor
    gradient: Tensor
    energy: float = 0.0

    @classmethod
    def of_size(cls, count: int) -> NormalEquations:
        """An empty system of `count` unknowns."""
        return cls(torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64))

    def add(self, residuals: Tensor, jacobian: Tensor, weights: Tensor) -> None:
        """Residuals [N], their derivatives [N, P] and weights [N]."""
        weighted = (jacobian * weights[:, None]).T
        self.hessian += (weighted @ jacobian).double()
        self.gradient += (weighted @ residuals).double()
        self.energy += float((weights * residuals**2).sum())

    def step(self, damping: float) -> Tensor:
        """The damped Gauss-Newton step [P]; each unknown is damped in proportion to its own curvature."""
        diagonal = self.hessian.diagonal()
        floor = 1e-9 * float(diagonal.max().clamp(min=1e-30))
        system = self.hessian + torch.diag(damping * diagonal + floor)
        return -torch.linalg.solve(system, self.gradient).float()


def geman_mcclure_weights(residuals: Tensor, width: float) -> Tensor:
    """Weights [...] in 0..1 of residuals [...] by the Geman-McClure loss r^2 / (1 + r^2 / width^2): those far above
    `width` count no more."""
    return (1 + (residuals / width) ** 2) ** -2


def project_to_directions(derivatives: Tensor, directions: Tensor) -> Tensor:
    """Derivatives [N, C, P] of points along directions [N, C]: [N, P]."""
    return (directions[:, None, :] @ derivatives).squeeze(1)
