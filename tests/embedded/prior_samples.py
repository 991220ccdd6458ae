"""A small data set of drawn heads with condition maps, as `embedded build-dataset --preset prior` writes them."""

from __future__ import annotations

import torch

from animportrait3d_core.training import Manifest, encode_colors, encode_normals, write_manifest, write_shard
from animportrait3d_core.training.shards import BODY_WIDTH

SIZE, PERSONS = 32, 24
COLORS = {"red": (0.85, 0.15, 0.1), "blue": (0.1, 0.2, 0.85), "black": (0.08, 0.08, 0.08)}


def drawn_sample(person, region):
    """A disc of skin under hair of the colour that the prompt says, over white."""
    draw = torch.Generator().manual_seed(7 * person + region)
    steps = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x, y = steps[None].expand(SIZE, SIZE), steps[:, None].expand(SIZE, SIZE)
    center = 0.3 * (torch.rand(2, generator=draw) - 0.5)
    dx, dy = (x - center[0]) / 0.75, (y - center[1]) / 0.75
    head = dx**2 + dy**2 < 1
    color = list(COLORS)[person % 3]
    colors = torch.ones(SIZE, SIZE, 3)
    colors[head] = torch.tensor([0.9, 0.7, 0.6])
    colors[head & (dy < -0.2)] = torch.tensor(COLORS[color])
    normals = torch.nn.functional.normalize(
        torch.stack([dx, -dy, (1 - dx**2 - dy**2).clamp_min(0.04).sqrt()], -1), dim=-1
    )
    condition = torch.full((SIZE, SIZE, 4), 255, dtype=torch.uint8)
    condition[..., 3] = 0
    condition[..., :3][head] = encode_normals(normals)[head]
    tensors = {
        "rgb": encode_colors(colors), "alpha": head.to(torch.uint8) * 255, "condition": condition,
        "parts": head.to(torch.uint8), "normals": encode_normals(normals), "landmarks": torch.zeros(70, 2),
        "visible": torch.zeros(70, dtype=torch.uint8), "region": torch.tensor(region, dtype=torch.uint8),
        "identity": torch.tensor(person, dtype=torch.int32), "world_to_camera": torch.eye(4), "K": torch.eye(3),
        "body": torch.zeros(BODY_WIDTH),
    }  # fmt: skip
    abstract = "a young man, fair skin"
    full = f"a young man, short {color} hair, brown eyes, fair skin"
    return tensors, {
        "prompt": full if region < 2 else f"{'eyes' if region == 2 else 'mouth'} region, {abstract}",
        "full_prompt": full, "abstract_prompt": abstract, "view_word": "front view",
    }  # fmt: skip


def write_drawn(folder, condition=True, spoiled=()):
    """The data set's folder. spoiled: persons whose pictures are noise."""
    samples = [drawn_sample(person, region) for person in range(PERSONS) for region in range(4)]
    for person in spoiled:
        for region in range(4):
            picture = samples[4 * person + region][0]["rgb"]
            picture.random_(256, generator=torch.Generator().manual_seed(person))
    names = [name for name in samples[0][0] if condition or name != "condition"]
    tensors = {name: torch.stack([tensors[name] for tensors, _ in samples]) for name in names}
    texts = {name: [words[name] for _, words in samples] for name in samples[0][1]}
    entry = write_shard(folder, 0, tensors, texts)
    write_manifest(folder, Manifest(SIZE, ("background", "skin"), 1, len(samples), {"drawn": True}, (entry,)))
    return folder


def save_untrained_prior(folder):
    """A pipeline folder as the prior's training leaves it, with random weights; its ControlNet is heard. The folder."""
    from animportrait3d_core.embedded.prior.codec import PATCH_CHANNELS, codec_of_basis, fit_patch_basis
    from animportrait3d_core.embedded.prior.networks import PriorNetworks
    from animportrait3d_core.embedded.prior.pipeline import save_codec, save_pipeline
    from animportrait3d_core.embedded.prior.vocabulary import build_tokenizer

    tokenizer, draw = build_tokenizer(), torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = PriorNetworks(len(tokenizer))
        # A ControlNet begins with zero convolutions.
        for layer in (*networks.controlnet.controlnet_down_blocks, networks.controlnet.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight, std=0.2)
        codec = codec_of_basis(fit_patch_basis(torch.rand(200, PATCH_CHANNELS, generator=draw) * 2 - 1))
    save_codec(codec, folder / "vae")
    save_pipeline(networks, folder / "vae", tokenizer, folder)
    return folder
