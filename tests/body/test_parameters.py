from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load, save

from animportrait3d_core.body.parameters import PARAMETER_WIDTHS, BodyParameters, stack_parameters
from animportrait3d_core.errors import InvalidInput, ShapeMismatch


def random_parameters(batch: int, generator: torch.Generator) -> BodyParameters:
    neutral = BodyParameters.neutral(batch, 10, 10)
    return BodyParameters(
        **{name: value + 0.1 * torch.rand(value.shape, generator=generator) for name, value in neutral.items()}
    )


def test_round_trip_through_safetensors_is_exact():
    parameters = random_parameters(3, torch.Generator().manual_seed(1)).expand(3)
    back = BodyParameters.from_tensors(load(save(parameters.to_tensors())))
    assert all(torch.equal(getattr(back, name), value) for name, value in parameters.items())


def test_broadcast_state_can_be_saved():
    parameters = BodyParameters.neutral().replace(eyelids=torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert parameters.betas.shape == (2, 10)
    assert load(save(parameters.to_tensors()))["betas"].shape == (2, 10)


def test_index_and_stack_are_inverse():
    parameters = random_parameters(4, torch.Generator().manual_seed(2))
    again = stack_parameters([parameters[i] for i in range(4)])
    assert all(torch.equal(getattr(again, name), value) for name, value in parameters.items())
    assert len(parameters[1:3]) == 2
    assert torch.equal(parameters[-1].betas, parameters.betas[3:])


@pytest.mark.parametrize("name", [n for n, width in PARAMETER_WIDTHS.items() if width])
def test_wrong_width_is_named(name):
    with pytest.raises(ShapeMismatch, match=name):
        BodyParameters.neutral().replace(**{name: torch.ones(1, 7)})


def test_disagreeing_batches_are_refused():
    with pytest.raises(ShapeMismatch, match=r"\[1, 2, 3\]"):
        BodyParameters.neutral().replace(eyelids=torch.zeros(2, 2), translation=torch.zeros(3, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jaw_pose": torch.tensor([[float("nan"), 0, 0]])}, "jaw_pose"),
        ({"scale": torch.zeros(1, 1)}, "scale"),
        ({"eyelids": torch.zeros(1, 2, dtype=torch.int64)}, "int64"),
        ({"tail_pose": torch.zeros(1, 3)}, "tail_pose"),
    ],
)
def test_bad_values_are_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        BodyParameters.neutral().replace(**change)


def test_frozen_and_index_out_of_range():
    parameters = BodyParameters.neutral(2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        parameters.scale = torch.ones(1, 1)
    with pytest.raises(InvalidInput, match="state 2 of 2"):
        parameters[2]


def test_missing_tensor_is_named():
    tensors = BodyParameters.neutral().to_tensors()
    del tensors["eyelids"]
    with pytest.raises(InvalidInput, match="eyelids"):
        BodyParameters.from_tensors(tensors)
