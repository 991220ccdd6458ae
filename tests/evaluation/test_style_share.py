"""How far a face took on a style: closed forms, and a body whose colours are known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from animportrait3d_core.cli import main
from animportrait3d_core.embedded.identities import sample_identity
from animportrait3d_core.evaluation import style as measured
from animportrait3d_core.evaluation.heldout import held_out_frames
from animportrait3d_core.evaluation.style import color_statistics, measure_style, style_share
from animportrait3d_core.evaluation.truth import FramePair


@given(st.floats(-2, 2), st.integers(0, 1000))
def test_a_share_of_the_way_is_found_again(share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    plain, styled = torch.rand(2, 2, 3, generator=generator, dtype=torch.float64)
    aside = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    way = styled - plain
    aside -= way * (aside * way).sum() / way.square().sum()
    assert style_share(plain + share * way + aside, plain, styled) == pytest.approx(share, abs=1e-5)


def test_statistics_see_nothing_outside_of_the_masks() -> None:
    images = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    before = color_statistics(images, masks)
    changed = torch.where(masks[:, None], images, torch.full_like(images, 7.0))
    assert torch.equal(color_statistics(changed, masks), before)
    assert before[0, 1] == pytest.approx(float(images[:, 1][masks].mean()))
    assert before[1, 2] == pytest.approx(float(images[:, 2][masks].std(correction=0)))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_face_between_the_two_looks(monkeypatch, share: float) -> None:
    """The share is of the face alone: the rest of the pictures is noise."""
    generator = torch.Generator().manual_seed(5)
    frames = [frame for frame in held_out_frames() if frame.close][:2]
    face = torch.zeros(3, 16, 16, dtype=torch.bool)
    face[0, 4:12, 4:12] = True

    def restyle(images: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return images + alpha * (0.2 - 0.5 * images)

    def pairs(*arguments, **named):
        for _ in frames:
            truth = torch.rand(16, 16, 3, generator=generator)
            image = truth + share * (0.2 - 0.5 * truth)
            image = torch.where(face[0, ..., None], image, torch.rand(16, 16, 3, generator=generator))
            nothing = torch.zeros(0)
            yield FramePair(image, truth, face, nothing, nothing, nothing, nothing, nothing)

    monkeypatch.setattr(measured, "frame_pairs", pairs)
    found = measure_style(None, sample_identity(1), restyle, frames)
    assert found["style_share"] == pytest.approx(share, abs=1e-4)
    assert (found["color_error_plain"] < 1e-6) == (share == 0)
    assert (found["color_error_styled"] < 1e-6) == (share == 1)


def test_a_style_is_measured_against_a_person(tmp_path, capsys) -> None:
    assert main(["evaluate", str(tmp_path / "avatar.safetensors"), "--style", "painted"]) == 2
    assert "--identity" in capsys.readouterr().err
