"""`animportrait3d evaluate --ablation`: the table of the second stage's parts, in the embedded world."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..workflow.report import LOGGER_NAME
from .common import EXIT_DONE, to_path

if TYPE_CHECKING:
    from ..body.landmarks import Detector
    from ..evaluation.ablation import Person
    from ..progress import Stages

WORDS = {
    "in_words_1": ("an old man, short white hair, blue eyes, pale skin, navy shirt", 101),
    "in_words_2": ("a young woman, long black hair, brown eyes, tan skin, red sweater", 102),
}
"""Of the people who are no shipped portraits: what is said of them, and a seed for what is not."""


def add_ablation_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate` that go with --ablation."""
    group = parser.add_argument_group("the ablation table")
    group.add_argument("--ablation", type=to_path, metavar="FOLDER", help="make the table there, or go on with it")
    group.add_argument("--people", nargs="+", help="some of the people (default: all five)")
    group.add_argument("--rows", nargs="+", help="some of the rows (default: all; a wrong name lists them)")
    group.add_argument("--preset", default="standard", help="of the dynamic stages (default: standard)")
    group.add_argument("--length", type=float, default=1.0, help="steps as a multiple of the preset's (default: 1)")
    group.add_argument("--prior", type=to_path, help="pipeline folder (default: the embedded prior)")
    group.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")


def run_table(options: argparse.Namespace, detector: Detector | None, stages: Stages | None) -> int:
    """Make the cells that are missing; write `ablation.md`, `ablation.json` and a picture per person."""
    from ..body.model import load_body_model
    from ..embedded.mannequin import mannequin_body_files
    from ..embedded.weights import embedded_network_folder, embedded_prior_folder
    from ..evaluation.ablation import (
        ROWS,
        Ablation,
        AblationSettings,
        ablation_sheet,
        run_ablation,
    )
    from ..evaluation.ablation_report import ablation_report
    from ..files import atomic_write, write_json
    from ..initialization import Networks
    from ..previews import write_png

    if not options.length > 0:
        raise InvalidInput(f"evaluate: --length {options.length}, expected more than 0.")
    rows = tuple(options.rows or (row.name for row in ROWS))
    settings = AblationSettings(rows, options.preset, options.length, options.seed)
    prior = options.prior or embedded_prior_folder()
    parts, normals, landmarks = (embedded_network_folder(role) for role in ("parts", "normals", "landmarks"))
    networks = Networks.load(parts, normals, landmarks)
    folder: Path = options.ablation
    body = load_body_model(*mannequin_body_files())
    ablation = Ablation(folder, prior, body, networks, settings, detector, stages)
    people = _people(options.people, stages)
    logger = logging.getLogger(LOGGER_NAME)
    cells = run_ablation(ablation, people, rows, lambda row, person: logger.info("ablation: %s, %s", row, person))
    write_json(folder / "ablation.json", cells)
    report = ablation_report(cells)
    with atomic_write(folder / "ablation.md") as temporary:
        temporary.write_text(report + "\n", encoding="utf-8")
    for person in people:
        shown = [name for name, found in cells.items() if person.name in found]
        here = [name for name in shown if ablation.has_avatar(person, name)]
        if len(here) < len(shown):
            missing = ", ".join(name for name in shown if name not in here)
            logger.warning(
                "ablation: %s, no picture of rows whose avatars are not in the folder: %s", person.name, missing
            )
        write_png(
            ablation_sheet({name: ablation.avatar(person, name) for name in here}, person),
            folder / f"{person.name}.png",
        )
    if not options.quiet:
        print(report)
    return EXIT_DONE


def _people(names: list[str] | None, stages: Stages | None) -> list[Person]:
    from ..embedded.identities import identity_from_prompt
    from ..embedded.portraits import (
        SHIPPED_PORTRAITS,
        portrait_from_prompt,
        portrait_identity,
        shipped_portrait_file,
    )
    from ..evaluation.ablation import Person

    known = [*SHIPPED_PORTRAITS, *WORDS]
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise InvalidInput(f"evaluate: people {', '.join(unknown)}, expected some of {', '.join(known)}.")
    people = []
    for name in names or known:
        if name in WORDS:
            text, seed = WORDS[name]
            made = portrait_from_prompt(text, seed, stages=stages)
            people.append(Person(name, identity_from_prompt(text, seed)[0], made.path))
        else:
            people.append(Person(name, portrait_identity(name), shipped_portrait_file(name)))
    return people
