"""Training: data sets of pictures with their maps, one training loop, and what is trained by it.

Here live the file format of data sets, the loop with its resumable states, and the tasks of the 2D networks (their
augmentation, losses, metrics, recipes and model cards). How the embedded world makes such a data set lives in
`embedded.dataset`, the networks' files and use in `networks`; nothing here may import `embedded`.
"""

from .shards import (
    BODY_WIDTHS,
    FIELDS,
    Manifest,
    Sample,
    ShardDataset,
    ShardEntry,
    decode_normals,
    encode_colors,
    encode_normals,
    finished_shards,
    open_dataset,
    read_manifest,
    write_manifest,
    write_shard,
)

__all__ = [
    "BODY_WIDTHS",
    "FIELDS",
    "Manifest",
    "Sample",
    "ShardDataset",
    "ShardEntry",
    "decode_normals",
    "encode_colors",
    "encode_normals",
    "finished_shards",
    "open_dataset",
    "read_manifest",
    "write_manifest",
    "write_shard",
]
