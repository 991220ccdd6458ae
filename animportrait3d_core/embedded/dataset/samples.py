"""The samples of one person: drawn, rendered and packed as a shard holds them.

What is drawn depends on the data set's seed, the person's index and the image's index alone, so that neither the number
of processes nor an interruption changes a byte.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ...body.parameters import BodyParameters
from ...cameras import Cameras, view_word
from ...conditioning import neutral_state, region_prompt, sample_state, state_parameters
from ...depths import normals_of_depth
from ...landmarks import LEFT_PUPIL
from ...parts import FIGURE_PARTS
from ...regions import IMAGE_REGIONS
from ...training.shards import BODY_WIDTHS, FIELDS, TEXTS, encode_colors, encode_normals
from ..identities import (
    IdentityImage,
    IdentityRenderSettings,
    PreparedIdentity,
    pose_identity,
    render_posed,
    true_parameters,
)
from ..identities.shading import Lighting, default_lighting
from ..traits import (
    TONES,
    Traits,
    prepare_with_traits,
    sample_identity_with_traits,
    sample_traits,
    state_with_traits,
    toned,
)
from .framing import sample_view, view_camera
from .presets import Preset

IDENTITY_SEEDS = 900_000  # the seeds from here on belong to shipped portraits and exported identities
VISIBILITY_TOLERANCE = 0.012  # world units, 4 mm: what lies this much behind another surface is hidden
MERGED_SAMPLES = (
    2.5  # see `IdentityRenderSettings.merge`; against shading each sample: 46 dB over the figure on average
)
_LIGHT = 1_000_000  # an image index that no image has: the draw of a person's light
_TRAITS = 1_000_001  # the same for traits


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """What decides the bytes of a sample. size: side of the pictures in pixels."""

    preset: Preset
    size: int
    images_per_identity: int
    seed: int


def identity_seeds(seed: int, count: int) -> np.ndarray:
    """Seeds [count] int64 of the people of a data set, all different; a longer list begins with a shorter one."""
    return np.random.default_rng(seed).permutation(IDENTITY_SEEDS)[:count]


def varied_lighting(generator: np.random.Generator) -> Lighting:
    """The default light, turned by some degrees and a little brighter or darker; the same in all views of a person."""
    light = default_lighting()
    directions = light.directions + 0.14 * generator.uniform(-1, 1, light.directions.shape)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    colors = light.colors * generator.uniform(0.9, 1.1, (len(light.colors), 1))
    ambient = generator.uniform(0.93, 1.07)
    return Lighting(directions, colors, light.sky * ambient, light.ground * ambient)


def render_samples(
    settings: SampleSettings, index: int, identity_seed: int
) -> tuple[list[dict[str, Tensor]], list[dict[str, str]]]:
    """Tensors (of `training.FIELDS`) and texts of all images of the person with position `index` in the data set."""
    preset = settings.preset
    traits = sample_traits(np.random.default_rng([settings.seed, index, _TRAITS]), preset.traits_share)
    identity = sample_identity_with_traits(int(identity_seed), traits)
    lighting = varied_lighting(np.random.default_rng([settings.seed, index, _LIGHT]))
    prepared, lighting = prepare_with_traits(identity, traits, preset.texture_size, lighting, preset.sky_directions)
    drawing = IdentityRenderSettings(
        texture_size=preset.texture_size, lighting=lighting, condition=preset.condition, merge=MERGED_SAMPLES
    )
    tensors, texts = [], []
    for image in range(settings.images_per_identity):
        position = (index * settings.images_per_identity + image) % len(preset.regions)
        generator = np.random.default_rng([settings.seed, index, image])
        person = (prepared, traits)
        sample, text = _render_sample(person, drawing, settings, preset.regions[position], generator)
        if preset.traits_share > 0:
            sample["traits"] = torch.tensor(traits.bits, dtype=torch.int32)
        tensors.append({**sample, "identity": torch.tensor(int(identity_seed), dtype=torch.int32)})
        texts.append(text)
    return tensors, texts


def _render_sample(
    person: tuple[PreparedIdentity, Traits],
    drawing: IdentityRenderSettings,
    settings: SampleSettings,
    region: str,
    generator: np.random.Generator,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    prepared, traits = person
    state = sample_state(region, generator)
    if generator.random() < settings.preset.neutral_share:
        state = neutral_state()
    view = sample_view(region, settings.preset.framings[region], generator)
    # What traits draw comes last, so that people without any are as they would be without traits in the data set.
    state = state_with_traits(state, traits, generator)
    parameters = state_parameters(true_parameters(prepared.identity), state)
    posed = pose_identity(prepared, parameters)
    camera = view_camera(view, posed.landmarks, settings.size)
    image = render_posed(posed, camera, drawing)
    tensors = {
        "rgb": encode_colors(_toned_picture(image, traits)),
        "alpha": encode_colors(image.alpha[0]),
        "parts": image.parts[0],
        "normals": encode_normals(image.normals[0]),
        "landmarks": image.landmarks[0],
        "visible": landmark_visibility(image, camera),
        "region": torch.tensor(IMAGE_REGIONS.index(region), dtype=torch.uint8),
        "world_to_camera": camera.world_to_camera[0],
        "K": camera.K[0],
        "body": body_vector(parameters),
    }
    if settings.preset.traits_share > 0:
        tensors["surface"] = encode_normals(_seen_surface(image, camera))
    if image.condition is not None:
        tensors["condition"] = encode_colors(image.condition[0])
    full, abstract = prepared.identity.prompt, prepared.identity.abstract_prompt
    texts = (region_prompt(view.region, full, abstract), full, abstract, view_word(view.yaw))
    return tensors, dict(zip(TEXTS, texts))


def _toned_picture(image: IdentityImage, traits: Traits) -> Tensor:
    """The picture [S, S, 3] of a view through the person's tone curve."""
    tone = traits.one_of(TONES)
    if tone is None:
        return image.rgb[0]
    return toned(image.rgb[0], image.alpha[0], tone, traits.generator(tone))


def _seen_surface(image: IdentityImage, camera: Cameras) -> Tensor:
    """Normals [S, S, 3] of the depth of a view, as views of portraits have them: where a pixel is mostly covered."""
    return normals_of_depth(torch.where(image.alpha > 0.5, image.depth, 0.0), camera)[0]


def body_vector(parameters: BodyParameters) -> Tensor:
    """The `body` tensor [27] of a sample: the fields of BODY_WIDTHS of a state [1] side by side."""
    return torch.cat([getattr(parameters, name)[0] for name in BODY_WIDTHS])


def landmark_visibility(image: IdentityImage, camera: Cameras) -> Tensor:
    """Which landmarks [70] uint8 of a view are in the picture and not behind another surface.

    The depth of the nine pixels around a landmark is asked, because lashes and lips are thinner than a pixel. A pupil
    is visible where the pixel shows the eye: a lid is thinner than the tolerance.
    """
    matrix = camera.world_to_camera[0].double()
    points = image.landmarks_3d[0].double()
    distance = (points @ matrix[2, :3] + matrix[2, 3]).numpy()
    pixels = image.landmarks[0].double().numpy()
    inside = ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(axis=1) & (distance > 0)
    x, y = (np.clip(np.floor(pixels[:, k]), 0, image.depth.shape[2 - k] - 1).astype(np.int64) for k in (0, 1))
    around = np.pad(image.depth[0].numpy(), 1)
    depth = np.max([around[y + dy, x + dx] for dy in range(3) for dx in range(3)], axis=0)
    visible = inside & (distance <= depth + VISIBILITY_TOLERANCE)
    visible[LEFT_PUPIL:] &= image.parts[0].numpy()[y, x][LEFT_PUPIL:] == FIGURE_PARTS.index("eyes")
    return torch.from_numpy(visible.astype(np.uint8))


def stack_samples(
    tensors: list[dict[str, Tensor]], texts: list[dict[str, str]]
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Samples side by side, as `training.write_shard` wants them."""
    names = [name for name in FIELDS if name in tensors[0]]
    stacked = {name: torch.stack([sample[name] for sample in tensors]) for name in names}
    return stacked, {name: [text[name] for text in texts] for name in TEXTS}
