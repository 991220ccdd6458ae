"""Fixtures that several packages' tests share."""

from __future__ import annotations

import pytest

from animportrait3d_core.body.model import BodyModel, load_body_model


@pytest.fixture(scope="session")
def mannequin_body() -> BodyModel:
    """The embedded mannequin as a posable body; its files are built once per machine and cached."""
    from animportrait3d_core.embedded.mannequin import mannequin_body_files

    return load_body_model(*mannequin_body_files())
