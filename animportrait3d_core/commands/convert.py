"""The commands `animportrait3d convert ...`: files of others into ours."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .common import EXIT_DONE, to_path


def add_convert(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add `convert` and its actions. common: options of every command."""
    convert = commands.add_parser("convert", parents=[common], help="make our files from those of others")
    actions = convert.add_subparsers(title="actions", required=True, metavar="ACTION")
    words = "make the body assets of a SMPL-X file (crop, lids, landmarks, regions, labels) from the file itself"
    assets = actions.add_parser("body-assets", parents=[common], help=words)
    assets.add_argument("body", type=to_path, help="SMPLX_NEUTRAL.npz, .pkl, or the official .zip")
    assets.add_argument("--output", type=to_path, help="file to write (default: beside the body, .safetensors)")
    words = "make them from the authors' folder smplx_model/assets instead: their crop and numbering, their teeth"
    assets.add_argument("--authors-assets", type=to_path, metavar="FOLDER", help=words)
    assets.set_defaults(command=_body_assets)


def _body_assets(options: argparse.Namespace) -> int:
    from ..body.assets import TEETH_WORDS, save_body_assets
    from ..body.reader import read_body_file

    output: Path = options.output or options.body.with_suffix(".safetensors")
    arrays = read_body_file(options.body)
    if options.authors_assets is None:
        from ..body.asset_making import make_body_assets

        assets = make_body_assets(arrays)
    else:
        from ..body.authors_assets import authors_body_assets

        assets = authors_body_assets(arrays, options.authors_assets)
    save_body_assets(assets, output)
    regions = {name: int(mask.sum()) for name, mask in assets.face_regions.items()}
    made = {
        "file": str(output),
        "vertices": len(assets.vertex_ids),
        "faces": len(assets.faces),
        "regions": regions,
        "teeth": assets.teeth_origin,
    }
    if options.json:
        print(json.dumps(made))
    elif not options.quiet:
        print(f"{output}: {made['vertices']} vertices, {made['faces']} faces")
        print("faces by region: " + ", ".join(f"{name} {count}" for name, count in regions.items()))
        print(TEETH_WORDS[assets.teeth_origin])
    return EXIT_DONE
