"""A guidance that is asked about regions of one person: in which words, with the ControlNet or without, how many."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..conditioning import Prompts
from ..diffusion import Guidance, TextEmbedding
from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..randomness import generator_at
from .region_scenes import RegionUse
from .scenes import Scene

MOST_CROPS = 16
_CPU_PIXELS = MOST_CROPS * 128**2
"""Of all crops of a call on a CPU, where more pixels at once are not faster."""
_GPU_BYTES_PER_PIXEL = 8_000
"""Of a guided call with the ControlNet and of the encoder's way back, in half precision: 2 GB for 512 x 512."""


def crops_per_call(guidance: Guidance) -> int:
    """How many crops go into a call: on a GPU what its free memory holds, asked once, before a run begins."""
    pixels = guidance.image_size**2
    if guidance.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(guidance.device)
        bytes_per_crop = pixels * _GPU_BYTES_PER_PIXEL * (2 if guidance.dtype == torch.float32 else 1)
        return max(1, min(MOST_CROPS, free // bytes_per_crop))
    return max(1, min(MOST_CROPS, _CPU_PIXELS // pixels))


class RegionGuidance:
    """The guidance with the prompts of a person, for crops of `RegionScenes`; texts are encoded once."""

    def __init__(
        self, guidance: Guidance, prompts: Prompts, uses: tuple[RegionUse, ...], micro_batch: int | None = None
    ) -> None:
        """micro_batch: crops per call, what the memory allows if None (`crops_per_call`)."""
        micro_batch = crops_per_call(guidance) if micro_batch is None else micro_batch
        if micro_batch < 1:
            raise InvalidInput(f"RegionGuidance: {micro_batch} crops per call, expected at least 1.")
        self.guidance, self.uses = guidance, uses
        self.micro_batch = micro_batch
        """Crops per call."""
        self._prompts = prompts
        self.negative, self.empty = (guidance.encode_prompt([text]) for text in (prompts.negative_prompt, ""))
        self._embedded: dict[str, TextEmbedding] = {}
        self.fingerprint = fingerprint((guidance.fingerprint, prompts, uses))

    def text(self, rows: list[int], yaws: list[float] | None = None) -> TextEmbedding:
        """What crops of the uses `rows` are told; with the yaws of their cameras, under their view words."""
        seen: list[float | None] = [None] * len(rows) if yaws is None else [*yaws]
        texts = [self._prompts.text(self.uses[row].region, yaw) for row, yaw in zip(rows, seen, strict=True)]
        for text in texts:
            if text not in self._embedded:
                self._embedded[text] = self.guidance.encode_prompt([text])
        return TextEmbedding(torch.cat([self._embedded[text].hidden_states for text in texts]))

    def parts(self, rows: list[int]) -> Iterator[tuple[Tensor, bool]]:
        """(positions of crops that are asked about together, whether with the ControlNet)."""
        for controlled in (True, False):
            chosen = [k for k, row in enumerate(rows) if self.uses[row].controlled == controlled]
            for first in range(0, len(chosen), self.micro_batch):
                yield torch.tensor(chosen[first : first + self.micro_batch]), controlled

    def noise(self, scene: Scene, seed: int, *place: str | int) -> Tensor:
        """Noise [C, channels, h, w] for all crops of a scene at once: a micro-batch changes nothing."""
        guidance, cameras = self.guidance, scene.cameras
        height, width = cameras.height // guidance.latent_factor, cameras.width // guidance.latent_factor
        shape = (len(cameras), guidance.latent_channels, height, width)
        return torch.randn(shape, generator=generator_at(seed, *place)).to(guidance.device)
