from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import scipy.sparse

from animportrait3d_core.body.reader import BODY_ARRAYS, read_body_file
from animportrait3d_core.errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput, MissingModelFile


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def body_arrays(body_arrays):
    """The made-up body with its largest array kept small on disk."""
    return dict(body_arrays, posedirs=np.zeros(body_arrays["posedirs"].shape, np.int8))


def save(path, arrays):
    np.savez(path, **arrays)
    return path


@pytest.fixture
def chumpy_classes():
    """Classes that pickle under chumpy's names; chumpy itself is not needed, neither to write nor to read."""
    package, ch, reordering = (types.ModuleType(n) for n in ("chumpy", "chumpy.ch", "chumpy.reordering"))
    ch.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    reordering.Select = type("Select", (ch.Ch,), {"__module__": "chumpy.reordering"})
    modules = {"chumpy": package, "chumpy.ch": ch, "chumpy.reordering": reordering}
    sys.modules.update(modules)
    yield ch.Ch, reordering.Select
    for name in modules:
        del sys.modules[name]


def test_npz_gives_the_stored_arrays_and_nothing_else(body_arrays, tmp_path):
    extras = {"joint2num": np.array({"Pelvis": 0}, dtype=object), "vt": np.zeros((3, 2)), "note": np.array("text")}
    back = read_body_file(save(tmp_path / "b.npz", body_arrays | extras))
    assert set(back) == set(BODY_ARRAYS)
    assert all(np.array_equal(back[name], body_arrays[name]) for name in BODY_ARRAYS)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickle_with_chumpy_and_sparse_objects(body_arrays, tmp_path, chumpy_classes, protocol):
    constant, select = chumpy_classes
    template = constant()
    template.__dict__.update(x=body_arrays["v_template"], _dirty_vars=set(), _itr=None)
    order = np.random.default_rng(0).permutation(body_arrays["weights"].size)
    weights = select()
    weights.__dict__.update(a=constant(), idxs=order, preferred_shape=body_arrays["weights"].shape)
    weights.a.__dict__.update(x=np.empty(len(order)))
    weights.a.x[order] = body_arrays["weights"].ravel()
    sparse = dict(body_arrays, v_template=template, weights=weights)
    for form in (scipy.sparse.csc_matrix, scipy.sparse.csr_matrix):
        sparse["J_regressor"] = form(body_arrays["J_regressor"])
        path = tmp_path / f"{form.__name__}.pkl"
        path.write_bytes(pickle.dumps(sparse, protocol))
        back = read_body_file(path)
        assert all(np.array_equal(back[name], body_arrays[name]) for name in BODY_ARRAYS)


def test_python_2_pickle_of_a_chumpy_array():
    """Bytes as Python 2 with chumpy wrote them: byte strings as texts, copy_reg, numpy's old module names."""
    from animportrait3d_core.body.reader import BODY_BUILDERS
    from animportrait3d_core.pickles import restricted_unpickle

    raw = np.array([1.5, -2.0]).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"
        b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nU" + bytes([len(raw)]) + raw + b"tb"
    )
    data = b"\x80\x02ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR}(U\x01x" + array
    data += b"U\x0b_dirty_varsc__builtin__\nset\n(]tRub."
    assert restricted_unpickle(data, BODY_BUILDERS, "old.pkl").tolist() == [1.5, -2.0]


def test_sparse_matrix_inside_an_npz(body_arrays, tmp_path):
    stored = np.empty((), dtype=object)
    stored[()] = scipy.sparse.csc_matrix(body_arrays["J_regressor"])
    back = read_body_file(save(tmp_path / "b.npz", dict(body_arrays, J_regressor=stored)))
    assert np.array_equal(back["J_regressor"], body_arrays["J_regressor"])


def test_official_zip_gives_the_neutral_body(body_arrays, tmp_path):
    neutral = io.BytesIO()
    np.savez(neutral, **body_arrays)
    with zipfile.ZipFile(tmp_path / "models_smplx.zip", "w") as archive:
        archive.writestr("models/smplx/SMPLX_FEMALE.npz", b"not looked at")
        archive.writestr("models/smplx/SMPLX_NEUTRAL.pkl", b"not looked at")
        archive.writestr("__MACOSX/models/smplx/._SMPLX_NEUTRAL.npz", b"not looked at")
        archive.writestr("models/smplx/SMPLX_NEUTRAL.npz", neutral.getvalue())
    back = read_body_file(tmp_path / "models_smplx.zip")
    assert np.array_equal(back["v_template"], body_arrays["v_template"])


@pytest.mark.parametrize("names", [["a/SMPLX_MALE.npz", "a/SMPLX_FEMALE.npz"], ["readme.txt"]])
def test_zip_without_a_clear_body_lists_what_it_holds(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    with pytest.raises(InvalidInput, match=names[0]):
        read_body_file(tmp_path / "m.zip")


@pytest.mark.parametrize("suffix", ["npz", "pkl", "zip"])
def test_code_in_a_body_file_does_not_run(body_arrays, tmp_path, suffix):
    marker, path = tmp_path / "ran", tmp_path / f"body.{suffix}"
    evil = dict(body_arrays, joint2num=np.array({"Pelvis": Evil(marker)}, dtype=object))
    if suffix == "npz":
        save(path, evil)
    elif suffix == "pkl":
        path.write_bytes(pickle.dumps(evil))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("SMPLX_NEUTRAL.pkl", pickle.dumps(evil))
    with pytest.raises(IncompatibleCheckpoint, match=r"(posix|nt)\.system.*smpl-x\.is\.tue\.mpg\.de"):
        read_body_file(path)
    assert not marker.exists()


def test_unneeded_classes_are_refused(body_arrays, tmp_path):
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(dict(body_arrays, when=types.SimpleNamespace(a=1))))
    with pytest.raises(IncompatibleCheckpoint, match="types.SimpleNamespace"):
        read_body_file(tmp_path / "b.pkl")


@pytest.mark.parametrize(
    ("count", "joints", "message"),
    [(6890, 24, "SMPL or SMPL"), (5023, 5, "FLAME"), (778, 16, "MANO"), (100, 55, "another model: 100 vertices")],
)
def test_other_models_are_named(tmp_path, count, joints, message):
    path = save(tmp_path / "m.npz", {"v_template": np.zeros((count, 3)), "weights": np.ones((count, joints))})
    with pytest.raises(IncompatibleCheckpoint, match=rf"{message}.*10475.*smpl-x\.is\.tue\.mpg\.de.*mannequin"):
        read_body_file(path)


@pytest.mark.parametrize("name", sorted(BODY_ARRAYS))
def test_missing_and_misshapen_arrays_are_named(body_arrays, tmp_path, name):
    without = {key: value for key, value in body_arrays.items() if key != name}
    with pytest.raises(IncompatibleCheckpoint, match=name):
        read_body_file(save(tmp_path / "without.npz", without))
    cut = dict(body_arrays, **{name: body_arrays[name][..., :-1]})
    with pytest.raises(AnimPortraitError, match=f"{name}|joints|columns"):
        read_body_file(save(tmp_path / "cut.npz", cut))


def test_other_flavours_are_named(body_arrays, tmp_path):
    many_joints = dict(body_arrays, weights=np.full((len(body_arrays["weights"]), 75), 1 / 75))
    with pytest.raises(IncompatibleCheckpoint, match="75 joints, expected 55"):
        read_body_file(save(tmp_path / "supr.npz", many_joints))
    for columns in (10, 16, 310):
        odd = dict(body_arrays, shapedirs=np.zeros((len(body_arrays["v_template"]), 3, columns), np.int8))
        with pytest.raises(IncompatibleCheckpoint, match=f"{columns} shape columns, expected 20.*400"):
            read_body_file(save(tmp_path / "odd.npz", odd))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["v_template", "shapedirs", "weights"])
def test_non_finite_numbers_are_refused(body_arrays, tmp_path, name, bad):
    array = body_arrays[name].copy()
    array.flat[5] = bad
    with pytest.raises(InvalidInput, match=f"{name}.*1 non-finite"):
        read_body_file(save(tmp_path / "b.npz", dict(body_arrays, **{name: array})))


def test_values_out_of_range_are_refused(body_arrays, tmp_path):
    tree = body_arrays["kintree_table"].copy()
    tree[0, 3] = 40
    changes = {"f": body_arrays["f"] + 50_000, "weights": 2 * body_arrays["weights"], "kintree_table": tree}
    for name, value in changes.items():
        with pytest.raises(InvalidInput, match=name):
            read_body_file(save(tmp_path / "b.npz", dict(body_arrays, **{name: value})))
    with pytest.raises(IncompatibleCheckpoint, match="v_template.*<U"):
        read_body_file(save(tmp_path / "b.npz", dict(body_arrays, v_template=body_arrays["v_template"].astype(str))))


def test_files_that_are_no_files_or_no_bodies(body_arrays, tmp_path):
    with pytest.raises(MissingModelFile, match=r"smpl-x\.is\.tue\.mpg\.de"):
        read_body_file(tmp_path / "absent.npz")
    with pytest.raises(MissingModelFile, match="folder"):
        read_body_file(tmp_path)
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(InvalidInput, match="0 bytes"):
        read_body_file(tmp_path / "empty.npz")
    (tmp_path / "page.npz").write_bytes(b"<html>please log in</html>")
    with pytest.raises(InvalidInput, match="<html"):
        read_body_file(tmp_path / "page.npz")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(IncompatibleCheckpoint, match="list"):
        read_body_file(tmp_path / "list.pkl")
    (tmp_path / "dict.pkl").write_bytes(pickle.dumps({"a": np.zeros(2)}))
    with pytest.raises(IncompatibleCheckpoint, match="no body model"):
        read_body_file(tmp_path / "dict.pkl")


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.97])
def test_truncated_files_are_refused(body_arrays, tmp_path, keep):
    small = {name: body_arrays[name] for name in ("v_template", "f", "weights")}
    data = save(tmp_path / "whole.npz", small).read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InvalidInput, match="truncated"):
        read_body_file(tmp_path / "cut.npz")


def test_flipped_bytes_inside_an_archive_are_refused(body_arrays, tmp_path):
    data = bytearray(save(tmp_path / "whole.npz", {"v_template": body_arrays["v_template"]}).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(data)
    with pytest.raises(InvalidInput, match="CRC"):
        read_body_file(tmp_path / "flipped.npz")
