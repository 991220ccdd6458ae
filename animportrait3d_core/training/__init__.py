"""Training: data sets of pictures with their maps, and the training of the ControlNet on them.

Here live the file format of data sets and what trains on it. How the embedded world makes such a data set lives in
`embedded.dataset`; nothing here may import `embedded`.
"""

from .shards import (
    BODY_WIDTHS,
    FIELDS,
    REGIONS,
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
    "REGIONS",
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
