"""Writes how well the map from ARKit's 52 shapes fits a body into docs/animation.md, or shows it for another body.

python scripts/fit_arkit.py                       # the mannequin's table, written
python scripts/fit_arkit.py --check               # says whether it is up to date
python scripts/fit_arkit.py --body SMPLX_NEUTRAL.npz [--assets FILE]   # the table of that body, printed
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "animation.md"
BEGIN, END = "<!-- shapes: written by scripts/fit_arkit.py -->\n", "<!-- end of shapes -->\n"


def shape_table(body_path: Path, assets_path: Path | None) -> str:
    """The table of a body, in percent."""
    from animportrait3d_core.animation.arkit import shape_errors
    from animportrait3d_core.body.model import load_body_model

    lines = ["| shape | asked | made | error | wrong side |", "|---|---|---|---|---|"]
    for row in shape_errors(load_body_model(body_path, assets_path)):
        other = "" if row.wrong_side is None else f"{100 * row.wrong_side:.0f}"
        lines.append(
            f"| {row.name} | {100 * row.wanted:.1f} | {100 * row.reached:.0f} | {100 * row.error:.0f} | {other} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    from animportrait3d_core.embedded.mannequin import mannequin_body_files

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the table is out of date")
    parser.add_argument("--body", type=Path, help="a SMPL-X file, whose table is printed")
    parser.add_argument("--assets", type=Path, help="its body assets (default: made from the file)")
    options = parser.parse_args()
    if options.body is not None:
        print(shape_table(options.body, options.assets), end="")
        return 0
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    wanted = before + BEGIN + "\n" + shape_table(*mannequin_body_files()) + "\n" + END + rest.partition(END)[2]
    if options.check and wanted != page:
        print("docs/animation.md: the table of shapes is out of date; run scripts/fit_arkit.py", file=sys.stderr)
        return 1
    if wanted != page:
        PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
