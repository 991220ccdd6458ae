"""Reads SMPL-X body files (.npz, .pkl, or the official .zip) into plain arrays, running nothing in them.

The `smplx` package opens its files with pickles allowed. Every body file is therefore read and checked here, and
`smplx` is handed a clean copy (see `model`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..archives import open_archive, read_member
from ..errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput
from ..files import require_file
from ..npy_arrays import arrays_of_npz
from ..pickles import NUMPY_BUILDERS, Builder, Record, restricted_unpickle

BODY_FILE_HINT = (
    "Expected SMPL-X (SMPLX_NEUTRAL.npz, version 1.1: 10,475 vertices, 55 joints), from https://smpl-x.is.tue.mpg.de "
    "after registration, under a non-commercial licence. Without it the embedded mannequin works."
)
MIN_VERTICES = 9930  # the smplx package indexes vertices up to 9929
NUM_JOINTS = 55
JOINTS = {"pelvis": 0, "spine": 9, "neck": 12, "head": 15, "jaw": 22, "left_eye": 23, "right_eye": 24}
SHOULDERS = {16: -1.0, 17: 1.0}  # joint -> sign of the A-pose angle about z: the arms sink
NUM_POSE_FEATURES = 9 * (NUM_JOINTS - 1)
MAX_DENSE = 1 << 24  # numbers of a sparse matrix made dense: 55 joints x 10,475 vertices are 576,125
SHAPE_FLAVOURS = {20: (10, 10), 400: (300, 100)}  # columns of shapedirs -> (betas, expression coefficients)
MAX_UNPACKED_BYTES = 1 << 30  # of an archive; the largest official file has half of it
_OTHER_MODELS = {778: "MANO (a hand)", 5023: "FLAME (a head)", 6890: "SMPL or SMPL+H"}

# name -> shape; V vertices, F faces, N shape columns
BODY_ARRAYS: dict[str, tuple[int | str, ...]] = {
    "v_template": ("V", 3),
    "f": ("F", 3),
    "weights": ("V", NUM_JOINTS),
    "kintree_table": (2, NUM_JOINTS),
    "J_regressor": (NUM_JOINTS, "V"),
    "shapedirs": ("V", 3, "N"),
    "posedirs": ("V", 3, NUM_POSE_FEATURES),
    "lmk_faces_idx": ("L",),
    "lmk_bary_coords": ("L", 3),
    "dynamic_lmk_faces_idx": ("A", "D"),
    "dynamic_lmk_bary_coords": ("A", "D", 3),
    "hands_componentsl": ("P", 45),
    "hands_componentsr": ("P", 45),
    "hands_meanl": (45,),
    "hands_meanr": (45,),
}


def read_body_file(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of `BODY_ARRAYS` of a SMPL-X body file, checked; floats as stored, sparse matrices made dense.

    Accepts .npz, .pkl (also those with chumpy and scipy objects, neither of which is needed) and a .zip that contains
    one of them. Both flavours of SMPL-X are known: 10 + 10 and 300 + 100 shape and expression columns.

    Raises `MissingModelFile` (no such file), `InvalidInput` (damaged, NaN), `IncompatibleCheckpoint` (another model or
    flavour, missing arrays, wrong shapes, or a pickle that names anything but arrays).
    """
    path = require_file("read_body_file", path, BODY_FILE_HINT)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"read_body_file: cannot read '{path}' ({error.strerror}).") from error
    try:
        contents = _read_any(data, path.name)
    except (IncompatibleCheckpoint, InvalidInput) as error:
        raise type(error)(f"read_body_file: '{path}': {error} {BODY_FILE_HINT}") from error
    arrays = {name: value for name, value in contents.items() if isinstance(value, np.ndarray)}
    return _checked(arrays, str(path))


def _read_any(data: bytes, name: str, inside: bool = False) -> dict[str, Any]:
    """Contents of a file by its first bytes, since users rename files. inside: it comes out of an archive."""
    if data[:4] == b"PK\x03\x04":
        return _read_zip(data, name, inside)
    if data[:1] == b"\x80" or name.lower().endswith((".pkl", ".pickle")):
        contents = restricted_unpickle(data, BODY_BUILDERS, name)
        if not isinstance(contents, dict):
            raise IncompatibleCheckpoint(f"holds a {type(contents).__name__}, expected a dictionary of arrays.")
        return contents
    raise InvalidInput(f"is no .npz, .pkl or .zip: it begins with {data[:8]!r}.")


def _read_zip(data: bytes, name: str, inside: bool) -> dict[str, Any]:
    with open_archive(data) as archive:
        members = [member for member in archive.namelist() if not member.endswith("/")]
        arrays = arrays_of_npz(archive, BODY_BUILDERS, MAX_UNPACKED_BYTES)
        if arrays:
            return arrays
        if inside:
            raise InvalidInput(f"is an archive without arrays in an archive: it holds {members[:6]}.")
        chosen = _choose_member(members)
        return _read_any(read_member(archive, chosen, MAX_UNPACKED_BYTES), f"{name}/{chosen}", inside=True)


def _choose_member(members: list[str]) -> str:
    """The neutral SMPL-X file among those of an archive, .npz before .pkl."""
    bodies = [m for m in members if m.lower().endswith((".npz", ".pkl")) and "__macosx" not in m.lower()]
    neutral = [m for m in bodies if "neutral" in m.lower()]
    ranked = sorted(neutral or bodies, key=lambda m: (not m.lower().endswith(".npz"), m))
    if not ranked or (len(ranked) > 1 and not neutral):
        raise InvalidInput(f"contains {bodies[:6] or members[:6]}; expected one SMPLX_NEUTRAL.npz or .pkl.")
    return ranked[0]


def _build_chumpy(record: Record) -> Any:
    """A chumpy constant is its array `x`."""
    state = record.state if isinstance(record.state, dict) else {}
    if not isinstance(state.get("x"), np.ndarray):
        raise InvalidInput(f"restricted_unpickle: a '{record.name}' without its array.")
    return state["x"]


def _build_chumpy_select(record: Record) -> Any:
    """A chumpy selection: elements `idxs` of the array `a`, in `preferred_shape`."""
    state = record.state if isinstance(record.state, dict) else {}
    source, chosen = state.get("a"), state.get("idxs")
    if not isinstance(source, np.ndarray) or not isinstance(chosen, np.ndarray):
        raise InvalidInput(f"restricted_unpickle: a '{record.name}' without its arrays.")
    return source.ravel()[chosen.astype(np.int64).ravel()].reshape(state.get("preferred_shape", (-1,)))


def _build_sparse(record: Record) -> Any:
    """A compressed sparse matrix, made dense."""
    state = record.state if isinstance(record.state, dict) else {}
    rows, columns = state["_shape"]
    if not 0 < rows * columns <= MAX_DENSE:
        raise InvalidInput(f"restricted_unpickle: a sparse matrix of {rows} x {columns} is refused.")
    by_column = "csc" in record.name
    starts = np.asarray(state["indptr"], dtype=np.int64)
    outer_count = columns if by_column else rows
    if len(starts) != outer_count + 1 or (np.diff(starts) < 0).any() or len(state["data"]) != starts[-1]:
        raise InvalidInput("restricted_unpickle: a sparse matrix whose index does not fit its contents.")
    outer = np.repeat(np.arange(outer_count), np.diff(starts))
    inner = np.asarray(state["indices"], dtype=np.int64)
    if len(inner) and not 0 <= inner.min() <= inner.max() < (rows if by_column else columns):
        raise InvalidInput("restricted_unpickle: a sparse matrix whose index leaves its shape.")
    dense = np.zeros((rows, columns), dtype=np.float64)
    np.add.at(dense, (inner, outer) if by_column else (outer, inner), state["data"])
    return dense


def _build_set(record: Record) -> list[Any]:
    """Bookkeeping of chumpy; kept as a list, since nothing needs it."""
    return list(record.arguments[0]) if record.arguments else []


BODY_BUILDERS: dict[str, Builder] = {
    **NUMPY_BUILDERS,
    "builtins.set": _build_set,
    "chumpy.ch.Ch": _build_chumpy,
    "chumpy.reordering.Select": _build_chumpy_select,
    **{
        f"scipy.sparse.{module}.{form}_matrix": _build_sparse
        for form in ("csc", "csr")
        for module in (form, f"_{form}")
    },
}


def _checked(arrays: dict[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    template = arrays.get("v_template")
    _check_is_smplx(arrays, template, path)
    missing = [name for name in BODY_ARRAYS if name not in arrays]
    if missing:
        raise IncompatibleCheckpoint(
            f"read_body_file: '{path}' lacks {missing}, expected {len(BODY_ARRAYS)} arrays. {BODY_FILE_HINT}"
        )
    chosen = {name: arrays[name] for name in BODY_ARRAYS}
    _check_shapes(chosen, path)
    try:
        _check_values(chosen)
    except AnimPortraitError as error:
        raise type(error)(f"read_body_file: '{path}': {error} {BODY_FILE_HINT}") from error
    return chosen


def _check_is_smplx(arrays: dict[str, np.ndarray], template: np.ndarray | None, path: str) -> None:
    if template is None or template.ndim != 2 or template.shape[1] != 3:
        found = sorted(map(str, arrays))[:8] if template is None else f"v_template {list(template.shape)}"
        raise IncompatibleCheckpoint(
            f"read_body_file: '{path}' is no body model: found {found}, expected v_template [V, 3]. {BODY_FILE_HINT}"
        )
    count = len(template)
    if count < MIN_VERTICES:
        raise IncompatibleCheckpoint(
            f"read_body_file: '{path}' is {_OTHER_MODELS.get(count, 'another model')}: {count} vertices, expected "
            f"10475 (at least {MIN_VERTICES}). {BODY_FILE_HINT}"
        )
    weights = arrays.get("weights")
    if weights is not None and weights.ndim == 2 and weights.shape[1] != NUM_JOINTS:
        raise IncompatibleCheckpoint(
            f"read_body_file: '{path}' has {weights.shape[1]} joints, expected {NUM_JOINTS}. {BODY_FILE_HINT}"
        )
    directions = arrays.get("shapedirs")
    if directions is not None and directions.ndim == 3 and directions.shape[2] not in SHAPE_FLAVOURS:
        raise IncompatibleCheckpoint(
            f"read_body_file: '{path}' has {directions.shape[2]} shape columns, expected 20 (10 betas + 10 expression) "
            f"or 400 (300 + 100). {BODY_FILE_HINT}"
        )


def _check_shapes(arrays: dict[str, np.ndarray], path: str) -> None:
    sizes: dict[str, int] = {}
    for name, pattern in BODY_ARRAYS.items():
        shape = arrays[name].shape
        fits = len(shape) == len(pattern) and all(
            size == (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted)
            for size, wanted in zip(shape, pattern)
        )
        if not fits:
            expected = [sizes.get(wanted, wanted) if isinstance(wanted, str) else wanted for wanted in pattern]
            raise IncompatibleCheckpoint(
                f"read_body_file: '{path}' has `{name}` of shape {list(shape)}, expected {expected}. {BODY_FILE_HINT}"
            )


def _check_values(arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf":
            raise IncompatibleCheckpoint(f"`{name}` has type {array.dtype}, expected numbers.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidInput(f"`{name}` holds {int((~np.isfinite(array)).sum())} non-finite values.")
    num_vertices, num_faces = len(arrays["v_template"]), len(arrays["f"])
    for name, limit in (("f", num_vertices), ("lmk_faces_idx", num_faces), ("dynamic_lmk_faces_idx", num_faces)):
        if arrays[name].size and not 0 <= arrays[name].min() <= arrays[name].max() < limit:
            low, high = arrays[name].min(), arrays[name].max()
            raise InvalidInput(f"`{name}` ranges over {low}..{high}, expected 0..{limit - 1}.")
    sums = arrays["weights"].sum(axis=1)
    if arrays["weights"].min() < -1e-3 or np.abs(sums - 1).max() > 1e-2:
        raise InvalidInput(f"`weights` sum to {sums.min():.3g}..{sums.max():.3g} per vertex, expected 1.")
    parents = arrays["kintree_table"][0, 1:].astype(np.int64)
    if (parents < 0).any() or (parents >= np.arange(1, NUM_JOINTS)).any():
        raise InvalidInput("`kintree_table` is no tree: a joint's parent must come before it.")
