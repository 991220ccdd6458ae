"""Writes the list of core's packages and modules into docs/architecture.md, from the first lines of their docstrings.

python scripts/list_modules.py            # writes it
python scripts/list_modules.py --check    # says whether it is up to date
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "animportrait3d_core"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: written by scripts/list_modules.py -->\n", "<!-- end of modules -->\n"


def first_sentence(file: Path) -> str:
    """The first line of a file's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).removesuffix(".").replace("|", "\\|")


def module_list() -> str:
    """Two tables: the packages with the names of their modules, and the modules that stand directly under core."""
    lines = ["| package | what lives there | modules |", "|---|---|---|"]
    for init in sorted(CORE.rglob("__init__.py")):
        folder = init.parent
        if folder != CORE:
            modules = ", ".join(f"`{file.stem}`" for file in sorted(folder.glob("*.py")) if file != init)
            lines.append(f"| `{folder.relative_to(CORE).as_posix()}/` | {first_sentence(init)} | {modules} |")
    lines += ["", "| module | what it is |", "|---|---|"]
    for file in sorted(CORE.glob("*.py")):
        if file.name != "__init__.py":
            lines.append(f"| `{file.stem}` | {first_sentence(file)} |")
    return "\n".join(lines) + "\n"


def page_with_list(page: str) -> str:
    """The page with the list as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + module_list() + "\n" + END + rest.partition(END)[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the list is out of date")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    wanted = page_with_list(page)
    if wanted == page:
        return 0
    if options.check:
        print("docs/architecture.md: the list of modules is out of date; run scripts/list_modules.py", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
