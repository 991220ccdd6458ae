"""What face revoting says about its work: a value for programs, a few lines for people."""

from __future__ import annotations

import dataclasses

from ..errors import InvalidInput

MIN_SKIN = 0.02
STRAY_PIECE = 0.01


@dataclasses.dataclass(frozen=True)
class RevoteReport:
    """What was seen, left out and changed.

    faces: of the mesh.  piece_shares: share of the area of each connected piece, largest first.  unseen_faces: in no
    view that counted.  part_shares: share of the seen area by part name.  agreement: per view, share of its weight that
    agrees with the vote (empty for `legacy`).  left_out: reason by number of the views that did not count.
    island_faces, painted_faces: changed as islands, corrected by hand.  remarks: what else is worth reading.
    """

    faces: int
    piece_shares: tuple[float, ...]
    unseen_faces: int
    part_shares: dict[str, float]
    agreement: tuple[float, ...]
    left_out: dict[int, str]
    island_faces: int = 0
    painted_faces: int = 0
    remarks: tuple[str, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """What a user should know even where nobody looks at the node: views left out, parts that are missing."""
        lines = []
        for reason in sorted(set(self.left_out.values())):
            views = [str(view) for view, why in sorted(self.left_out.items()) if why == reason]
            lines.append(f"Left out, view{'s' if len(views) > 1 else ''} {', '.join(views)}: {reason}.")
        lines += [f"No {part} found." for part in ("hair", "clothes") if self.part_shares[part] == 0]
        return tuple(lines)

    def summary(self) -> str:
        """A few lines for the node."""
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.part_shares.items())
        lines = [f"{self.faces} faces: {shares} of the seen surface; {self.unseen_faces} faces were not seen."]
        if self.agreement:
            worst = min(range(len(self.agreement)), key=self.agreement.__getitem__)
            mean = sum(self.agreement) / len(self.agreement)
            least = f"view {worst} on {100 * self.agreement[worst]:.1f} %"
            lines.append(f"The views agree with the vote on {100 * mean:.1f} % of what they show, {least}.")
        if self.painted_faces or self.island_faces:
            lines.append(f"{self.painted_faces} faces painted by hand; {self.island_faces} faces of islands joined.")
        if len(self.piece_shares) > 1:
            large = [f"{100 * share:.0f} %" for share in self.piece_shares if share >= STRAY_PIECE]
            small = len(self.piece_shares) - len(large)
            lines.append(
                f"The mesh is in {len(self.piece_shares)} pieces: {', '.join(large[:6])} of its area, {small} smaller."
            )
        return "\n".join([*lines, *self.warnings(), *self.remarks])


def check_skin(where: str, report: RevoteReport) -> None:
    """Raise `InvalidInput` if hardly anything of the visible surface is face."""
    shares = report.part_shares
    if shares["skin"] < MIN_SKIN:
        raise InvalidInput(
            f"{where}: only {100 * shares['skin']:.1f} % of the visible surface is face, expected at least "
            f"{100 * MIN_SKIN:.0f} % (hair {100 * shares['hair']:.1f} %, clothes {100 * shares['clothes']:.1f} %); "
            "paint the face in the front views as a correction, or take a portrait whose hair leaves the face free."
        )
