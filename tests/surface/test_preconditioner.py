"""The preconditioner against a dense solve in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.surface.preconditioner import SmoothSteps, UniformAdam

SOLID = trimesh.creation.icosphere(subdivisions=2)
FACES = torch.tensor(np.array(SOLID.faces, dtype=np.int64))
VERTICES = torch.tensor(np.array(SOLID.vertices))
COUNT = len(VERTICES)


def dense_matrix(smoothness: float) -> torch.Tensor:
    """I + lambda L, by the definition: L u = sum over neighbours of (u_i - u_j)."""
    matrix = torch.eye(COUNT, dtype=torch.float64)
    sides = torch.cat([FACES[:, [0, 1]], FACES[:, [1, 2]], FACES[:, [2, 0]]])
    for a, b in {tuple(sorted(pair)) for pair in sides.tolist()}:
        matrix[a, a] += smoothness
        matrix[b, b] += smoothness
        matrix[a, b] -= smoothness
        matrix[b, a] -= smoothness
    return matrix


@pytest.mark.parametrize("smoothness", [0.0, 1.0, 19.0])
def test_both_directions_are_those_of_the_dense_matrix(smoothness: float) -> None:
    system, matrix = SmoothSteps(FACES, COUNT, smoothness), dense_matrix(smoothness)
    right = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(system.solve(right), torch.linalg.solve(matrix, right), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(system.variables(VERTICES), matrix @ VERTICES, rtol=1e-12, atol=1e-12)
    single = VERTICES.float()
    torch.testing.assert_close(system.solve(system.variables(single)), single, rtol=0, atol=1e-5)


def test_the_step_of_a_single_gradient_spreads_and_keeps_its_sum() -> None:
    spike = torch.zeros(COUNT, 3, dtype=torch.float64)
    spike[7, 1] = 1.0
    spread = SmoothSteps(FACES, COUNT, 10.0).solve(spike)
    assert spread.sum().item() == pytest.approx(1.0)
    assert 0 < spread[7, 1] < 0.2 and int((spread[:, 1] > 1e-3).sum()) > 20


def test_adam_moves_all_coordinates_by_one_scale() -> None:
    """Its first step is the gradient over its largest entry, times the rate: the direction stays."""
    variables = torch.zeros(4, 3)
    gradient = torch.tensor([[1.0, 0, 0], [0, -4.0, 0], [0, 0, 2.0], [0, 0, 0]])
    optimizer = UniformAdam(variables, 0.5)
    optimizer.step(gradient)
    torch.testing.assert_close(variables, -0.5 * gradient / 4)
    optimizer.step(torch.zeros(4, 3))
    first, second = 0.9 * 0.1 * gradient / (1 - 0.9**2), (0.999 * 0.001 * 16 / (1 - 0.999**2)) ** 0.5
    torch.testing.assert_close(variables, -0.5 * gradient / 4 - 0.5 * first / second)


def test_adam_finds_a_minimum() -> None:
    system = SmoothSteps(FACES, COUNT, 5.0)
    goal = VERTICES * torch.tensor([1.0, 1.3, 0.8])
    variables = system.variables(VERTICES)
    optimizer = UniformAdam(variables, 0.05)
    for step in range(400):
        optimizer.lr = 0.05 * (1 - step / 400)
        optimizer.step(system.solve(system.solve(variables) - goal))
    torch.testing.assert_close(system.solve(variables), goal, rtol=0, atol=5e-3)


def test_wrong_input_is_named() -> None:
    with pytest.raises(InvalidInput, match="smoothness is -1"):
        SmoothSteps(FACES, COUNT, -1.0)
    with pytest.raises(ShapeMismatch, match="variables"):
        SmoothSteps(FACES, COUNT, 1.0).variables(VERTICES[:5])
