"""Smooth steps for vertices: the preconditioner of "Large Steps in Inverse Rendering of Geometry" (Nicolet 2021).

Instead of the vertices v the optimiser moves u = (I + lambda L) v with the combinatorial Laplacian L. A step of u
spreads over a neighbourhood of about sqrt(lambda) edges, so that the sparse gradients of silhouettes and noisy normals
do not tear the surface. The matrix is factorised once per set of faces (sparse Cholesky of libigl); a solve costs
milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput, check_shape
from .edges import neighbour_matrix


class SmoothSteps:
    """The linear map between vertices v and the variables u = (I + smoothness L) v of one set of faces."""

    def __init__(self, faces: Tensor, count: int, smoothness: float) -> None:
        """faces: [F, 3] int64 over `count` vertices.  smoothness: lambda, at least 0."""
        if not smoothness >= 0:
            raise InvalidInput(f"SmoothSteps: smoothness is {smoothness}, expected at least 0.")
        import igl
        from scipy import sparse

        neighbours = neighbour_matrix(faces.numpy(), count)
        degrees = np.asarray(neighbours.sum(axis=1)).reshape(-1)
        self._count = count
        self._matrix = (sparse.diags(1 + smoothness * degrees) - smoothness * neighbours).tocsc()
        self._factors = igl.min_quad_with_fixed_data()
        nothing = np.zeros(0, dtype=np.int64)
        igl.min_quad_with_fixed_precompute(self._matrix, nothing, sparse.csc_matrix((0, count)), True, self._factors)

    def variables(self, vertices: Tensor) -> Tensor:
        """u [V, 3] of vertices [V, 3]; in their type, computed in float64. No gradient."""
        check_shape("SmoothSteps.variables", "vertices", vertices, [self._count, 3])
        return torch.from_numpy(self._matrix @ vertices.detach().double().numpy()).to(vertices.dtype)

    def solve(self, right: Tensor) -> Tensor:
        """(I + lambda L)^-1 right, for right [V, 3]: the vertices of u, and, the matrix being symmetric, the gradient
        with respect to u of a gradient with respect to the vertices. In the type given, computed in float64."""
        check_shape("SmoothSteps.solve", "right", right, [self._count, 3])
        import igl

        # libigl minimises x^T A x / 2 + x^T b, hence the sign.
        target = -np.ascontiguousarray(right.detach().double().numpy())
        nothing = np.zeros((0, right.shape[1]))
        solution = igl.min_quad_with_fixed_solve(self._factors, target, nothing, nothing)
        return torch.from_numpy(solution).to(right.dtype)


class UniformAdam:
    """Adam whose second moment is one number, the largest of all (Nicolet 2021, section 4.3).

    The usual one number per coordinate would undo the smoothness of preconditioned gradients.
    """

    def __init__(self, parameter: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.parameter, self.lr, self.betas = parameter, lr, betas
        self._first = torch.zeros_like(parameter)
        self._second = 0.0
        self._steps = 0

    def step(self, gradient: Tensor) -> None:
        """Move the parameter against a gradient of its shape."""
        slow, fast = self.betas
        self._steps += 1
        self._first = slow * self._first + (1 - slow) * gradient
        self._second = fast * self._second + (1 - fast) * float(gradient.abs().max()) ** 2
        mean = self._first / (1 - slow**self._steps)
        size = (self._second / (1 - fast**self._steps)) ** 0.5
        with torch.no_grad():
            self.parameter -= self.lr * mean / max(size, 1e-30)

    def state_dict(self) -> dict[str, Tensor]:
        """Both moments and the step count."""
        second = torch.tensor(self._second, dtype=torch.float64)
        return {"first": self._first.clone(), "second": second, "steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        self._first, self._second, self._steps = state["first"], float(state["second"]), int(state["steps"])
