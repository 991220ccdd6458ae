"""Identities: the people of the embedded world, from words to ground truth.

Here live attributes and their prompts, an identity's shape beyond the mannequin's, hair, clothes, lashes, procedural
texture, the ground-truth renderer and the export of mesh files. The bare body lives in `mannequin`; what trains on the
renders lives elsewhere. Nothing of the method may import this package.
"""

from .attributes import Attributes, sample_attributes
from .export import (
    PORTRAIT_NAMES,
    embedded_portrait_files,
    export_identities,
    exported_identity,
    identity_mesh,
)
from .identity import Identity, identity_from_prompt, sample_identity, true_parameters
from .prompts import ParsedPrompt, parse_prompt
from .rendering import (
    IdentityImage,
    IdentityRenderSettings,
    PosedIdentity,
    PreparedIdentity,
    pose_identity,
    prepare_identity,
    render_identity,
    render_posed,
)

__all__ = [
    "PORTRAIT_NAMES",
    "Attributes",
    "Identity",
    "IdentityImage",
    "ParsedPrompt",
    "PosedIdentity",
    "PreparedIdentity",
    "IdentityRenderSettings",
    "embedded_portrait_files",
    "export_identities",
    "exported_identity",
    "identity_from_prompt",
    "identity_mesh",
    "parse_prompt",
    "pose_identity",
    "prepare_identity",
    "render_identity",
    "render_posed",
    "sample_attributes",
    "sample_identity",
    "true_parameters",
]
