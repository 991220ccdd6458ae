"""The format of data sets: a folder of safetensors shards and a manifest that names them.

`manifest.json` holds what was asked for, the names of classes and regions, and each finished shard with its size and
SHA-256; `shard-00000.safetensors`, ... hold N samples each. Both are written in one piece, a shard before its entry in
the manifest: what the manifest names is whole, and a build that was killed goes on after it. Nothing here knows who
renders the pictures.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput, MissingModelFile, ShapeMismatch
from ..files import read_safetensors, require_file, sha256_of_file, write_json, write_safetensors
from ..landmarks import NUM_BODY_LANDMARKS
from ..regions import IMAGE_REGIONS

FORMAT = "animportrait3d-shards"
SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SHARD_STEM = "shard"
BODY_WIDTHS = {
    "expression": 10, "jaw_pose": 3, "left_eye_pose": 3, "right_eye_pose": 3, "eyelids": 2, "neck_pose": 3,
    "head_pose": 3,
}  # fmt: skip
BODY_WIDTH = sum(BODY_WIDTHS.values())

# Type and shape of one sample of each tensor; "S" is the side of the pictures.
FIELDS: dict[str, tuple[torch.dtype, tuple[int | str, ...]]] = {
    "rgb": (torch.uint8, ("S", "S", 3)),
    "alpha": (torch.uint8, ("S", "S")),
    "condition": (torch.uint8, ("S", "S", 4)),
    "parts": (torch.uint8, ("S", "S")),
    "normals": (torch.uint8, ("S", "S", 3)),
    "surface": (torch.uint8, ("S", "S", 3)),
    "landmarks": (torch.float32, (NUM_BODY_LANDMARKS, 2)),
    "visible": (torch.uint8, (NUM_BODY_LANDMARKS,)),
    "region": (torch.uint8, ()),
    "identity": (torch.int32, ()),
    "traits": (torch.int32, ()),
    "world_to_camera": (torch.float32, (4, 4)),
    "K": (torch.float32, (3, 3)),
    "body": (torch.float32, (BODY_WIDTH,)),
}
OPTIONAL_FIELDS = ("condition", "surface", "traits")
TEXTS = ("prompt", "full_prompt", "abstract_prompt", "view_word")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One picture with its maps, as stored. S is the side in pixels.

    rgb: [S, S, 3] uint8 over white.  alpha: [S, S] uint8.  condition: [S, S, 4] uint8 condition map, or None.
    parts: [S, S] uint8, positions in the manifest's `parts`.  normals: [S, S, 3] uint8, camera-space OpenGL normals
    coded n / 2 + 1 / 2 (`decode_normals`), meaningless where alpha is 0.  surface: [S, S, 3] uint8, normals of the
    depth that is seen, as networks look at them (`decode_surface`), or None.  landmarks: [70, 2] float32 pixels (68
    iBUG, left and right pupil of the subject), inside the picture or not.  visible: [70] uint8, 1 where no other
    surface hides the point.  region: position in IMAGE_REGIONS.  identity: number of the person.  traits: bit k is set
    where the sample has trait k of the manifest's, or None.  world_to_camera: [4, 4] and K: [3, 3] float32.  body: [27]
    float32, the fields of BODY_WIDTHS side by side.  prompt: what this picture is told: the full prompt, or region and
    abstract prompt for crops.  view_word: "front view", "side view" or "back view".
    """

    rgb: Tensor
    alpha: Tensor
    condition: Tensor | None
    parts: Tensor
    normals: Tensor
    surface: Tensor | None
    landmarks: Tensor
    visible: Tensor
    region: int
    identity: int
    traits: int | None
    world_to_camera: Tensor
    K: Tensor
    body: Tensor
    prompt: str
    full_prompt: str
    abstract_prompt: str
    view_word: str


def encode_colors(values: Tensor) -> Tensor:
    """Values [...] in 0..1 as uint8 [...], rounded."""
    return (values.clamp(0, 1) * 255.0).round().to(torch.uint8)


def encode_normals(normals: Tensor) -> Tensor:
    """Unit vectors [..., 3] as uint8, n / 2 + 1 / 2."""
    return encode_colors(normals * 0.5 + 0.5)


def decode_normals(coded: Tensor) -> Tensor:
    """Unit vectors [..., 3] float32 of `encode_normals`; they are within half a degree of what was coded."""
    return torch.nn.functional.normalize(coded.float() / 127.5 - 1.0, dim=-1)


def decode_surface(coded: Tensor) -> Tensor:
    """Unit vectors [..., 3] float32 of `encode_normals`, long to within 1 %, and 0 where 0 was coded."""
    vectors = coded.float() / 127.5 - 1.0
    return vectors * (vectors.square().sum(-1, keepdim=True) > 0.25)


@dataclasses.dataclass(frozen=True)
class ShardEntry:
    """A finished shard in the manifest."""

    index: int
    file: str
    samples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a data set is and which of its shards are finished.

    size: side of the pictures.  parts: class names of the label map.  num_shards, num_samples: of the complete set.
    settings: what the builder was asked for; a build goes on only with equal ones.  shards: by index.  traits: names of
    what some samples have and most people have not, by bit.
    """

    size: int
    parts: tuple[str, ...]
    num_shards: int
    num_samples: int
    settings: Mapping[str, Any]
    shards: tuple[ShardEntry, ...] = ()
    regions: tuple[str, ...] = IMAGE_REGIONS
    traits: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return len(self.shards) == self.num_shards

    def with_shard(self, entry: ShardEntry) -> Manifest:
        """The same manifest with one more finished shard."""
        others = [shard for shard in self.shards if shard.index != entry.index]
        return dataclasses.replace(self, shards=tuple(sorted([*others, entry], key=lambda shard: shard.index)))


def shard_name(index: int) -> str:
    """File name of a shard."""
    return f"{SHARD_STEM}-{index:05d}.safetensors"


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write the manifest of a data set in one piece."""
    write_json(Path(folder) / MANIFEST_NAME, {"format": FORMAT, **dataclasses.asdict(manifest)})


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a data set. Raises `MissingModelFile` or `InvalidInput` (damaged, other format or version)."""
    where = "open_dataset"
    path = require_file(where, Path(folder) / MANIFEST_NAME, "Give the folder that `embedded build-dataset` wrote.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(f"{where}: '{path}' is not a JSON document ({error}); build the data set again.") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise InvalidInput(f'{where}: \'{path}\' is not the manifest of a data set, expected "format": "{FORMAT}".')
    if content.get("schema_version") != SCHEMA_VERSION:
        raise InvalidInput(
            f"{where}: '{path}' has schema version {content.get('schema_version')}, expected {SCHEMA_VERSION}; build "
            "the data set again with this version of the pack."
        )
    try:
        shards = tuple(ShardEntry(**entry) for entry in content.pop("shards"))
        parts, regions = (tuple(content.pop(name)) for name in ("parts", "regions"))
        traits = tuple(content.pop("traits", ()))
        return Manifest(parts=parts, regions=regions, traits=traits, shards=shards, **content)
    except (TypeError, KeyError) as error:
        raise InvalidInput(f"{where}: '{path}' is damaged ({error}); build the data set again.") from error


def write_shard(
    folder: str | Path, index: int, tensors: Mapping[str, Tensor], texts: Mapping[str, Sequence[str]]
) -> ShardEntry:
    """Write one shard of N samples and return its entry for the manifest.

    tensors: those of FIELDS (the condition map may be absent), each [N, ...].  texts: those of TEXTS, N strings each.
    Raises `ShapeMismatch` or `InvalidInput` when something is missing or does not fit.
    """
    count = _check_shard("write_shard", tensors)
    for name in TEXTS:
        if len(texts[name]) != count:
            raise ShapeMismatch(f"write_shard: {len(texts[name])} texts `{name}` for {count} samples.")
    path = Path(folder) / shard_name(index)
    # One entry: safetensors writes several in an order that changes from call to call, and with it the bytes.
    metadata = {"texts": json.dumps({name: list(texts[name]) for name in TEXTS}, ensure_ascii=False)}
    write_safetensors(path, tensors, metadata)
    return ShardEntry(index, path.name, count, path.stat().st_size, sha256_of_file(path))


def _check_shard(where: str, tensors: Mapping[str, Tensor]) -> int:
    """Number of samples of a shard whose tensors all have the types and shapes of FIELDS."""
    missing = [name for name in FIELDS if name not in tensors and name not in OPTIONAL_FIELDS]
    unknown = [name for name in tensors if name not in FIELDS]
    if missing or unknown:
        raise InvalidInput(f"{where}: missing tensors {missing}, unknown ones {unknown}; expected {list(FIELDS)}.")
    count, size = len(tensors["rgb"]), tensors["rgb"].shape[1]
    for name, tensor in tensors.items():
        dtype, shape = FIELDS[name]
        expected = [count, *(size if side == "S" else side for side in shape)]
        if list(tensor.shape) != expected:
            raise ShapeMismatch(f"{where}: `{name}` has shape {list(tensor.shape)}, expected {expected}.")
        if tensor.dtype != dtype:
            raise InvalidInput(f"{where}: `{name}` has type {tensor.dtype}, expected {dtype}.")
    return count


class ShardDataset:
    """Samples of a data set by number; tensors are read from the files when they are asked for.

    Works in several processes at once; `torch.utils.data.DataLoader` takes it with `collate_fn=list`.
    """

    def __init__(self, folder: Path, manifest: Manifest, places: Tensor) -> None:
        self.folder = folder
        self.manifest = manifest
        self._places = places  # [n, 2] position in manifest.shards, sample in the shard
        self._streams: dict[int, Any] = {}
        self._texts: dict[int, dict[str, list[str]]] = {}
        self._columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": {}}

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"ShardDataset: sample {index} of {len(self)}.")
        shard, row = self._places[index].tolist()
        stream = self._stream(shard)
        values: dict[str, Any] = {}
        for name in FIELDS:
            if name in OPTIONAL_FIELDS and name not in stream.keys():
                values[name] = None
            else:
                values[name] = stream.get_slice(name)[row]
        for name in ("region", "identity", "traits"):
            values[name] = None if values[name] is None else int(values[name])
        return Sample(**values, **{name: texts[row] for name, texts in self._texts[shard].items()})

    def column(self, name: str) -> Tensor:
        """One small tensor of FIELDS (region, identity, body, landmarks, ...) for all samples [n, ...], kept."""
        if name not in self._columns:
            rows = []
            for shard in self._places[:, 0].unique(sorted=True).tolist():
                rows.append((shard, self._stream(shard).get_tensor(name)))
            whole = {shard: values for shard, values in rows}
            self._columns[name] = torch.stack([whole[shard][row] for shard, row in self._places.tolist()])
        return self._columns[name]

    def has(self, name: str) -> bool:
        """Whether all samples have one of FIELDS."""
        shards = self._places[:, 0].unique().tolist()
        return bool(shards) and all(name in self._stream(shard).keys() for shard in shards)

    @property
    def identities(self) -> tuple[int, ...]:
        """Numbers of the persons in ascending order."""
        return tuple(self.column("identity").unique(sorted=True).tolist())

    def of_region(self, *names: str) -> ShardDataset:
        """The samples of some of IMAGE_REGIONS."""
        unknown = [name for name in names if name not in IMAGE_REGIONS]
        if unknown or not names:
            raise InvalidInput(f"ShardDataset.of_region: {list(names)}, expected some of {', '.join(IMAGE_REGIONS)}.")
        wanted = torch.tensor([IMAGE_REGIONS.index(name) for name in names])
        return self.subset(torch.isin(self.column("region").long(), wanted))

    def of_trait(self, name: str | None) -> ShardDataset:
        """The samples with one of the manifest's traits; None: those without any."""
        if not self.has("traits"):
            return self.subset(torch.full((len(self),), name is None))
        if name is not None and name not in self.manifest.traits:
            known = ", ".join(self.manifest.traits)
            raise InvalidInput(f"ShardDataset.of_trait: '{name}', expected one of {known}.")
        bits = self.column("traits")
        return self.subset(bits == 0 if name is None else (bits >> self.manifest.traits.index(name)) & 1 > 0)

    def subset(self, chosen: Tensor) -> ShardDataset:
        """The samples at indices [m] or of a mask [n]."""
        return ShardDataset(self.folder, self.manifest, self._places[chosen])

    def split(self, held_out_share: float) -> tuple[ShardDataset, ShardDataset]:
        """(training, held out): about `held_out_share` of the persons, at least one, are held out with all samples.

        Who is held out depends on the person's number alone, not on what else is in the data set.
        """
        if not 0 < held_out_share < 1:
            raise InvalidInput(f"ShardDataset.split: share {held_out_share}, expected more than 0 and less than 1.")
        if len(self.identities) < 2:
            raise InvalidInput(f"ShardDataset.split: {len(self.identities)} identities, expected at least 2.")
        # Knuth's multiplicative hash spreads the numbers evenly over 0..2^32.
        spread = {number: number * 2654435761 % 2**32 for number in self.identities}
        limit = max(held_out_share * 2**32, min(spread.values()))
        held_out = torch.tensor([number for number, place in spread.items() if place <= limit])
        mask = torch.isin(self.column("identity").long(), held_out)
        return self.subset(~mask), self.subset(mask)

    def _stream(self, shard: int) -> Any:
        """The opened file of a shard, and its texts read."""
        from safetensors import safe_open

        if shard not in self._streams:
            path = self.folder / self.manifest.shards[shard].file
            stream = safe_open(str(path), framework="pt")
            self._texts[shard] = json.loads(stream.metadata()["texts"])
            self._streams[shard] = stream
        return self._streams[shard]


def open_dataset(folder: str | Path, verify: bool = False) -> ShardDataset:
    """Open the finished part of a data set; `.manifest.complete` tells whether that is all of it.

    verify: also read every shard and compare its SHA-256 (without it only the sizes are compared).
    Raises `MissingModelFile` (no manifest, or a shard is gone) or `InvalidInput` (damaged, another version), naming
    the file.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if not manifest.shards:
        raise InvalidInput(f"open_dataset: '{folder}' has no finished shard of {manifest.num_shards}; build it first.")
    for entry in manifest.shards:
        _check_file(folder, entry, verify)
        _check_header(folder, entry, manifest.size)
    places = [(k, row) for k, entry in enumerate(manifest.shards) for row in range(entry.samples)]
    return ShardDataset(folder, manifest, torch.tensor(places))


def _check_file(folder: Path, entry: ShardEntry, verify: bool) -> None:
    again = "Remove its entry from the manifest, or run the build again: it renders what is missing."
    path = folder / entry.file
    if not path.is_file():
        raise MissingModelFile(f"open_dataset: shard '{path}' does not exist, but the manifest names it. {again}")
    found = path.stat().st_size
    if found != entry.bytes:
        raise InvalidInput(f"open_dataset: shard '{path}' has {found} bytes, expected {entry.bytes}. {again}")
    if verify:
        digest = sha256_of_file(path)
        if digest != entry.sha256:
            raise InvalidInput(
                f"open_dataset: shard '{path}' has SHA-256 {digest[:12]}..., expected {entry.sha256[:12]}... {again}"
            )
        _check_shard("open_dataset", read_safetensors(path, "open_dataset")[0])


def _check_header(folder: Path, entry: ShardEntry, size: int) -> None:
    """Refuse a shard whose tensors have other shapes than the manifest says; only the file's header is read."""
    from safetensors import SafetensorError, safe_open

    path = folder / entry.file
    try:
        with safe_open(str(path), framework="pt") as stream:
            names = list(stream.keys())
            shapes = {name: stream.get_slice(name).get_shape() for name in names}
    except SafetensorError as error:
        raise InvalidInput(f"open_dataset: shard '{path}' is no whole safetensors file ({error}).") from error
    missing = sorted(FIELDS.keys() - shapes.keys() - set(OPTIONAL_FIELDS))
    if missing:
        raise InvalidInput(f"open_dataset: shard '{path}' lacks {', '.join(missing)}; build it again.")
    for name, (_, shape) in FIELDS.items():
        expected = [entry.samples, *(size if side == "S" else side for side in shape)]
        if name in shapes and list(shapes[name]) != expected:
            raise ShapeMismatch(
                f"open_dataset: shard '{path}' has `{name}` {list(shapes[name])}, by the manifest expected {expected}. "
                "It is of another data set: keep each in a folder of its own, or build this one again."
            )


def finished_shards(folder: str | Path, manifest: Manifest) -> Manifest:
    """The manifest without the shards whose file is gone or has another content: what a build need not make again."""
    whole = []
    for entry in manifest.shards:
        path = Path(folder) / entry.file
        if path.is_file() and path.stat().st_size == entry.bytes and sha256_of_file(path) == entry.sha256:
            whole.append(entry)
    return dataclasses.replace(manifest, shards=tuple(whole))
