"""Motion files: every format gives the poses that it holds, and says what is wrong with those that cannot be read."""

from __future__ import annotations

import csv
import functools
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.animation import stress_clip
from animportrait3d_core.animation.arkit import ARKIT_NAMES, arkit_map, arkit_parameters
from animportrait3d_core.animation.clips import StressClipSettings, rotate_head
from animportrait3d_core.animation.files import ReadSettings, files_of_motion, load_motion, read_motion, save_motion
from animportrait3d_core.animation.presets import FaceMotion, FaceSliders, face_motion
from animportrait3d_core.errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput, MissingModelFile

ALWAYS = ReadSettings(expressions="always")
JOINTS = ("neck_pose", "head_pose", "jaw_pose", "left_eye_pose", "right_eye_pose")
DRAW = np.random.default_rng(0)
EXP, POSE = DRAW.normal(size=(6, 100)).astype(np.float32), DRAW.normal(size=(6, 15)).astype(np.float32) / 5


@pytest.fixture(scope="module")
def read(mannequin_body, rest):
    return functools.partial(read_motion, body=mannequin_body, rest=rest)


@pytest.fixture()
def authors(tmp_path: Path) -> Path:
    np.save(tmp_path / "speak_exp.npy", EXP)
    np.save(tmp_path / "speak_pose.npy", POSE)
    return tmp_path


def test_the_authors_pair_is_read_whichever_is_chosen(authors: Path, read, rest) -> None:
    for name in ("speak_exp.npy", "speak_pose.npy"):
        loaded = read(authors / name, settings=ALWAYS)
        poses = loaded.motion.parameters
        assert loaded.motion.fps == 25.0 and len(loaded.motion) == 6
        for index, joint in enumerate(JOINTS):
            assert torch.equal(getattr(poses, joint), torch.from_numpy(POSE[:, 3 * index : 3 * index + 3]))
        assert torch.equal(poses.expression, torch.from_numpy(EXP[:, :10]))
        assert torch.equal(poses.betas, rest.betas.expand(6, -1)) and torch.equal(
            poses.eyelids, rest.eyelids.expand(6, 2)
        )
        assert {file.name for file in files_of_motion(authors / name)} == {"speak_exp.npy", "speak_pose.npy"}


def test_expressions_of_another_basis_are_left_out_and_said_so(authors: Path, read, rest) -> None:
    loaded = read(authors / "speak_exp.npy")
    assert torch.equal(loaded.motion.parameters.expression, rest.expression.expand(6, -1))
    assert "100 expression coefficients are of 'smplx'" in loaded.notes[0]
    lost = np.linalg.norm(EXP[:, 10:]) / np.linalg.norm(EXP)
    assert f"the last 90 were left out, {100 * lost:.0f} %" in read(authors / "speak_exp.npy", settings=ALWAYS).notes[0]
    assert read(authors / "speak_exp.npy", settings=ReadSettings(expressions="never")).notes == ()
    still = read(authors / "speak_exp.npy", settings=ReadSettings(head=False)).motion.parameters
    assert torch.equal(still.neck_pose, rest.neck_pose.expand(6, 3)) and not torch.equal(
        still.jaw_pose, rest.jaw_pose.expand(6, 3)
    )
    (authors / "speak_pose.npy").unlink()
    with pytest.raises(InvalidInput, match="holds expressions of 'smplx' alone"):
        read(authors / "speak_exp.npy")
    assert "No file beside" in read(authors / "speak_exp.npy", settings=ALWAYS).notes[0]


@pytest.mark.parametrize(
    ("exp", "pose", "message"),
    [
        (EXP[:5], POSE, "has 5 frames, .* 6"),
        (EXP, POSE[:, :12], r"has shape \[6, 12\]"),
        (np.zeros((6, 101), np.float32), POSE, r"has shape \[6, 101\]"),
        (EXP, np.where(np.arange(6)[:, None] == 3, np.nan, POSE), "not finite in 1 of 6 frames, .* frame 3"),
        (EXP, 300 * POSE, "pose.npy.*`pose` turns by .*convert degrees to radians"),
        (EXP.astype(str), POSE, "expected numbers"),
    ],
)  # fmt: skip
def test_the_authors_pair_is_checked(tmp_path: Path, read, exp, pose, message: str) -> None:
    np.save(tmp_path / "exp.npy", exp)
    np.save(tmp_path / "pose.npy", pose)
    with pytest.raises(InvalidInput, match=message):
        read(tmp_path / "exp.npy")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def test_pickles_run_nothing(tmp_path: Path, read) -> None:
    np.save(tmp_path / "exp.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "flame.npz", expr=np.array([Bomb()], dtype=object))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("exp.npy", "flame.npz", "plain.npz"):
        with pytest.raises(InvalidInput, match=name):
            read(tmp_path / name)


FLAME = {
    "expr": EXP, "rotation": POSE[:, :3], "neck_pose": POSE[:, 3:6], "jaw_pose": POSE[:, 6:9],
    "eyes_pose": POSE[:, 9:], "translation": POSE[:, :3] + 5, "shape": np.zeros(300, np.float32),
    "image_size": np.array("none"),
}  # fmt: skip


def check_flame(poses) -> None:
    for index, joint in enumerate(JOINTS):
        assert torch.equal(getattr(poses, joint), torch.from_numpy(POSE[:, 3 * index : 3 * index + 3]))


def test_flame_of_a_sequence_and_of_a_folder_are_the_same_motion(tmp_path: Path, read, rest) -> None:
    np.savez(tmp_path / "tracked.npz", **FLAME)
    one = read(tmp_path / "tracked.npz")
    check_flame(one.motion.parameters)
    assert "of 'flame'" in one.notes[0]
    (tmp_path / "UNION10" / "flame_param").mkdir(parents=True)
    for index in range(6):
        frame = {name: value[index : index + 1] for name, value in FLAME.items() if name not in ("shape", "image_size")}
        np.savez(tmp_path / "UNION10" / "flame_param" / f"{index + 7}.npz", **frame, shape=FLAME["shape"])  # 7 .. 12
    np.savez(tmp_path / "UNION10" / "canonical_flame_param.npz", **FLAME)
    check_flame(read(tmp_path / "UNION10").motion.parameters)
    chosen = tmp_path / "UNION10" / "flame_param" / "8.npz"
    check_flame(read(chosen, settings=ReadSettings(whole_folder=True)).motion.parameters)
    assert len(files_of_motion(chosen, whole_folder=True)) == 6 and len(read(chosen).motion) == 1
    chosen.unlink()
    assert "1 frames between 7 and 12 have no file" in read(chosen.parent).notes[0]
    np.savez(tmp_path / "other.npz", jaw_pose=POSE[:, :3], expression=EXP, shape=np.zeros((6, 300)))
    assert "other names were not read: expression. Expected" in read(tmp_path / "other.npz").notes[0]
    moved = read(tmp_path / "tracked.npz", settings=ReadSettings(follow=True)).motion.parameters.translation
    wanted = rest.translation + rest.scale * torch.from_numpy(POSE[:, :3] - POSE[:1, :3])
    torch.testing.assert_close(moved, wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jaw_pose": POSE[:4, 6:9]}, "tracked.npz.*unlike numbers of frames .*rotation 6.*jaw_pose 4"),
        ({"rotation": 300 * POSE[:, :3]}, "tracked.npz.*`rotation` turns by .*convert degrees to radians"),
        ({"eyes_pose": POSE[:, 9:12]}, r"`eyes_pose` has shape \[6, 3\], expected \[T, 6\]"),
        ({"rotation": POSE[:, :3] * np.inf}, "tracked.npz: rotation` is not finite in 6 of 6 frames"),
    ],
)
def test_flame_files_are_checked(tmp_path: Path, read, changes, message: str) -> None:
    np.savez(tmp_path / "tracked.npz", **{**FLAME, **changes})
    with pytest.raises(InvalidInput, match=message):
        read(tmp_path / "tracked.npz")


def test_frames_that_differ_and_other_arrays_are_refused(tmp_path: Path, read) -> None:
    np.savez(tmp_path / "0.npz", expr=EXP[:1])
    np.savez(tmp_path / "1.npz", expr=EXP[:1, :50])
    with pytest.raises(InvalidInput, match="expected one frame each, alike"):
        read(tmp_path, settings=ALWAYS)
    np.savez(tmp_path / "body.npz", v_template=EXP)
    with pytest.raises(InvalidInput, match="no motion of FLAME; its arrays: v_template"):
        read(tmp_path / "body.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingModelFile, match="holds no frames"):
        read(tmp_path / "empty")


@pytest.fixture()
def table(tmp_path: Path):
    """table(rows): a file of Live Link Face; rows are (time code, {shape: strength}, (yaw, pitch, roll))."""

    def write(rows, name: str = "take.csv") -> Path:
        header = [name[0].upper() + name[1:] for name in ARKIT_NAMES]
        header = ["Timecode", "BlendShapeCount", *header, "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw"]
        with open(tmp_path / name, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for code, strengths, head in rows:
                writer.writerow([code, 61, *(strengths.get(shape, 0.0) for shape in ARKIT_NAMES), *head, 0.0])
        return tmp_path / name

    return write


def test_live_link_face_drives_the_body(table, read, mannequin_body, rest) -> None:
    rows = [(f"14:20:12:{20 + index}.113", {"jawOpen": 0.1 * index}, (0.1 * index, 0, 0)) for index in (0, 1, 3)]
    loaded = read(table(rows))
    assert loaded.motion.fps == 60.0 and len(loaded.motion) == 4
    assert "1 dropped frames were filled" in loaded.notes[0]
    weights = torch.zeros(4, 52)
    weights[:, ARKIT_NAMES.index("jawOpen")] = torch.tensor([0.0, 0.1, 0.2, 0.3])
    wanted = arkit_parameters(weights, rest, arkit_map(mannequin_body))
    torch.testing.assert_close(loaded.motion.parameters.jaw_pose, wanted.jaw_pose)
    noses = mannequin_body(loaded.motion.parameters).landmarks[:, 30, 0]
    assert bool((noses.diff() > 0.01).all())  # yaw above 0 is to the subject's left
    assert read(table(rows), settings=ReadSettings(fps=30.0)).motion.fps == 30.0
    still = read(table(rows), settings=ReadSettings(head=False)).motion.parameters
    torch.testing.assert_close(still.head_pose, rest.head_pose.expand(4, 3), atol=1e-6, rtol=0)


def test_the_frame_rate_is_read_off_the_time_codes(table, read) -> None:
    rows = [(f"00:00:{index // 30:02}:{index % 30:02}", {"jawOpen": 0.1}, (0, 0, 0)) for index in range(75)]
    assert read(table(rows)).motion.fps == 30.0
    plain = [("", {"jawOpen": 0.1}, (0, 0, 0))] * 3
    loaded = read(table(plain))
    assert loaded.motion.fps == 60.0 and len(loaded.motion) == 3


def clocked(counts, fps=60):
    """Rows whose time codes say these times, in frames since midnight."""
    seconds = [(int(count // fps), count % fps) for count in counts]
    codes = [f"{s // 3600 % 24:02}:{s // 60 % 60:02}:{s % 60:02}:{part:06.3f}" for s, part in seconds]
    return [(code, {"jawOpen": 0.01 * index}, (0, 0, 0)) for index, code in enumerate(codes)]


@pytest.mark.parametrize("fps", [10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120])
def test_the_frame_rate_of_any_recorder_is_read_off_its_time_codes(table, read, fps: int) -> None:
    loaded = read(table(clocked(range(3 * fps + fps // 2), fps)))
    assert (loaded.motion.fps, len(loaded.motion), loaded.notes) == (fps, 3 * fps + fps // 2, ())


def test_rows_may_come_faster_than_the_numbers_of_their_time_codes(table, read) -> None:
    """60 rows a second, stamped by a clock of 30 numbers, with and without its parts."""
    for parts in (0.5, 0.0):
        counts = [index // 2 + parts * (index % 2) for index in range(210) if index not in (100, 101)]
        loaded = read(table(clocked(counts, 30)))
        assert (loaded.motion.fps, len(loaded.motion)) == (60, 210)
        assert loaded.notes == ("2 dropped frames were filled by their time codes.",)


TIMES = {  # column, times of three frames in a row and of the one after a frame that was dropped, their rate
    "seconds": ([0.0, 0.04, 0.08, 0.16], 25.0),
    "Timestamp_ms": ([1733000000000, 1733000000033, 1733000000067, 1733000000133], 30.0),
    "time_us": ([0, 66667, 133333, 266667], 15.0),
    "t": ([10.0, 10.0909, 10.1818, 10.3636], 11.0),
}


@pytest.mark.parametrize("name", TIMES)
def test_the_frame_rate_is_read_off_times(tmp_path: Path, read, name: str) -> None:
    times, fps = TIMES[name]
    strengths = [0.0, 0.1, 0.2, 0.4]
    lines = [f"{time},{strength}" for time, strength in zip(times, strengths)]
    (tmp_path / "take.csv").write_text("\n".join([f"{name},jawOpen", *lines]))
    frames = [{name: time, "blendshapes": {"jawOpen": value}} for time, value in zip(times, strengths)]
    (tmp_path / "take.json").write_text(json.dumps(frames))
    for file in ("take.csv", "take.json"):
        loaded = read(tmp_path / file)
        assert loaded.motion.fps == pytest.approx(fps) and len(loaded.motion) == 5
        assert loaded.notes[-1] == "1 dropped frames were filled by their times."
        jaw = loaded.motion.parameters.jaw_pose[:, 0]
        torch.testing.assert_close(jaw.diff(), jaw[1:2].expand(4) - jaw[0], atol=1e-5, rtol=0)


def test_a_rate_that_no_file_says_is_told(tmp_path: Path, read) -> None:
    (tmp_path / "take.csv").write_text("time,jawOpen\nlate,0\nlater,1\n")
    (tmp_path / "take.json").write_text(json.dumps(FRAMES))
    for file, fps in (("take.csv", 60), ("take.json", 30)):
        assert f"frames per second: {fps} were taken" in read(tmp_path / file).notes[-1]
        told = read(tmp_path / file, settings=ReadSettings(fps=24.0))
        assert told.motion.fps == 24.0 and not any("frames per second" in note for note in told.notes)


SPREADSHEETS = {"semicolons": (";", ",", "utf-8"), "tabs": ("\t", ".", "utf-8"), "unicode text": ("\t", ",", "utf-16")}


@pytest.mark.parametrize("kind", SPREADSHEETS)
def test_tables_of_spreadsheets_are_the_same_motion(table, read, kind: str) -> None:
    separator, point, encoding = SPREADSHEETS[kind]
    path = table([(f"14:20:12:{20 + k}.113", {"jawOpen": 0.123 * k}, (0.1 * k, 0, 0)) for k in range(4)])
    wanted = read(path)
    text = path.read_text().replace(",", separator).replace(".", point)
    path.write_bytes(text.encode(encoding))
    found = read(path)
    assert (found.notes, found.motion.fps) == (wanted.notes, wanted.motion.fps)
    assert all(torch.equal(value, getattr(wanted.motion.parameters, name)) for name, value in
               found.motion.parameters.items())  # fmt: skip


def test_a_head_of_one_turn_is_a_head(tmp_path: Path, read) -> None:
    (tmp_path / "turn.csv").write_text("JawOpen,HeadYaw\n0,0\n0,0.4\n")
    (tmp_path / "all.csv").write_text("HeadRoll,HeadPitch,HeadYaw,JawOpen\n0,0,0,0\n0,0,0.4,0\n")
    turn, whole = (read(tmp_path / name).motion.parameters for name in ("turn.csv", "all.csv"))
    assert float(turn.head_pose[1, 1]) > 0.1 and torch.equal(turn.head_pose, whole.head_pose)


def test_time_codes_that_shake_and_pass_midnight_still_say_what_was_dropped(table, read) -> None:
    """Recorders stamp parts of frames, and these shake."""
    shaking = np.random.default_rng(2).uniform(-0.2, 0.2, 240)
    for first in (1000.45, 86400 * 60 - 50.5):  # near the border of two numbers; across midnight
        counts = [first + index + shaking[index] for index in range(240) if not 100 <= index < 112]
        loaded = read(table(clocked(counts)))
        assert len(loaded.motion) == 240 and loaded.notes[-1] == "12 dropped frames were filled by their time codes."
    loaded = read(table(clocked([500 - index for index in range(20)])))
    assert len(loaded.motion) == 20 and "jump or run back" in loaded.notes[-1]


def test_rows_without_a_face_are_filled_between_their_neighbours(table, read) -> None:
    rows = [(f"10:00:00:{index:02}.5", {"jawOpen": 0.1 * index}, (0.1 * index, 0, 0)) for index in range(6)]
    whole = read(table(rows)).motion.parameters
    path = table(rows)
    lines = path.read_text().splitlines()
    lines[3] = "10:00:00:02.5,0" + "," * (lines[0].count(",") - 1)  # as wide as the others, but empty
    lines[4] = "10:00:00:03.5,0"
    path.write_text("\n".join(lines))
    loaded = read(path)
    assert loaded.notes == ("2 of 6 frames have no face: filled between their neighbours.",)
    torch.testing.assert_close(loaded.motion.parameters.jaw_pose, whole.jaw_pose, atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded.motion.parameters.head_pose, whole.head_pose, atol=1e-5, rtol=0)


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path, table, read) -> None:
    path = table([("", {"jawOpen": float("nan")}, (0, 0, 0))])
    with pytest.raises(InvalidInput, match="take.csv': frame 0: 'jawOpen' is nan"):
        read(path)
    for text, message in (
        ("a,b\n1,2\n", "no column of an ARKit shape"),
        ("jawOpen\n", "0 frames below its header"),
        ("jawOpen,mouthLeft\n0.1\n", "frame 0 has 1 columns, the header 2"),
        ("jawOpen\nwide\n", "'wide', expected a number"),
        ("jawOpen\n\xff", "is not a table"),
        ("jawOpen,mouthLeft\n0,1,0,2\n", "has 4 columns, the header 2; if its decimals have commas, save it with semi"),
        ("jawOpen,JawOpen\n0,1\n", "more than one column of jawOpen; take out"),
        ("jawOpen,mouthLeft\n,1\n", "'jawOpen' is '', expected a number; cut the frame out"),
    ):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InvalidInput, match=message):
            read(path)
    with pytest.raises(InvalidInput, match="leaves"):
        read(table([("", {}, (40.0, 0, 0))]))


FRAMES = [{"jawOpen": 0.1}, {"jawOpen": 0.5}]
TURN = [[0.8, 0.0, 0.6, 3.0], [0.0, 1.0, 0.0, -2.0], [-0.6, 0.0, 0.8, -40.0], [0.0, 0.0, 0.0, 1.0]]  # to the left
LAYOUTS = {
    "list": (FRAMES, 30.0),
    "frames": ({"fps": 24, "frames": FRAMES}, 24.0),
    "names": (
        {"names": ["jawOpen"], "metadata": {"fps": 50}, "frames": [{"weights": [0.1]}, {"weights": [0.5]}]}, 50.0,
    ),
    "blendshapes": ([{"blendshapes": frame} for frame in FRAMES], 30.0),
    "host": ({"frames": [[{"blendshapes": frame}] for frame in FRAMES]}, 30.0),
    "categories": ([[{"categoryName": "jawOpen", "score": frame["jawOpen"]}] for frame in FRAMES], 30.0),
    "mediapipe": (
        [{"faceBlendshapes": [{"categories": [{"categoryName": "jawOpen", "score": frame["jawOpen"]}]}]}
         for frame in FRAMES], 30.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_of_many_programs_is_one_motion(tmp_path: Path, read, mannequin_body, rest, layout: str) -> None:
    content, fps = LAYOUTS[layout]
    (tmp_path / "take.json").write_text(json.dumps(content))
    motion = read(tmp_path / "take.json").motion
    weights = torch.zeros(2, 52)
    weights[:, ARKIT_NAMES.index("jawOpen")] = torch.tensor([0.1, 0.5])
    wanted = arkit_parameters(weights, rest, arkit_map(mannequin_body))
    assert motion.fps == fps
    torch.testing.assert_close(motion.parameters.expression, wanted.expression)
    torch.testing.assert_close(motion.parameters.jaw_pose, wanted.jaw_pose)


MEDIAPIPE = {
    "JavaScript": {
        "faceBlendshapes": [{"categories": [{"categoryName": "jawOpen", "score": 0.5}], "headIndex": -1}],
        "facialTransformationMatrixes": [{"rows": 4, "columns": 4, "data": np.array(TURN).T.ravel().tolist()}],
    },
    "Python": {
        "face_blendshapes": [[{"index": 25, "category_name": "jawOpen", "score": 0.5, "display_name": ""}]],
        "facial_transformation_matrixes": [TURN],
    },
    "host": {"blendshapes": {"jawOpen": 0.5}, "transformation_matrix": TURN},
}


@pytest.mark.parametrize("program", MEDIAPIPE)
def test_results_of_mediapipe_turn_the_head_too(tmp_path: Path, read, mannequin_body, rest, program: str) -> None:
    (tmp_path / "take.json").write_text(json.dumps([MEDIAPIPE[program]] * 2))
    found = read(tmp_path / "take.json").motion.parameters
    weights = torch.zeros(1, 52)
    weights[0, ARKIT_NAMES.index("jawOpen")] = 0.5
    wanted = arkit_parameters(weights, rest, arkit_map(mannequin_body))
    wanted = rotate_head(wanted, torch.tensor([[0.0, math.atan2(0.6, 0.8), 0.0]]))
    torch.testing.assert_close(found.jaw_pose[:1], wanted.jaw_pose)
    torch.testing.assert_close(found.head_pose[:1], wanted.head_pose, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.neck_pose[:1], wanted.neck_pose, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('[{"jawOpen": 1, "facialTransformationMatrixes": [{"data": [1, 2]}]}]', "matrix of 2 numbers"),
        ("[]", "holds no list of frames"),
        ('{"landmarks": [[1, 2, 3]]}', "holds no list of frames"),
        ("[3]", "a frame is a int"),
        ('[{"smile": 1}]', "none of the names"),
        ('[{"jawOpen": NaN}]', "frame 0: 'jawOpen' is nan"),
        ('{"fps": -1, "frames": [{"jawOpen": 1}]}', "its fps are '-1'"),
        ('{"names": ["jawOpen"], "frames": [{"weights": [1, 2]}]}', "2 weights for 1 names"),
    ],
)
def test_json_that_cannot_be_read_is_refused(tmp_path: Path, read, text: str, message: str) -> None:
    (tmp_path / "take.json").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read(tmp_path / "take.json")


@pytest.fixture(scope="module")
def clip(mannequin_body, rest):
    return stress_clip(mannequin_body, rest, fps=29.97, settings=StressClipSettings(frames_per_move=2))


def test_our_own_file_gives_back_every_bit(tmp_path: Path, read, clip, mannequin_body) -> None:
    path = tmp_path / "clip.safetensors"
    save_motion(clip, mannequin_body, path)
    for motion in (load_motion(path)[0], read(path).motion):
        assert motion.fps == clip.fps and motion.names == clip.names
        assert all(torch.equal(value, getattr(clip.parameters, name)) for name, value in motion.parameters.items())
    assert read(path).notes == () and load_motion(path)[1] == "mannequin"


def test_a_motion_of_another_head_takes_this_ones_shape_and_place(tmp_path: Path, clip, mannequin_body, rest) -> None:
    path = tmp_path / "clip.safetensors"
    save_motion(clip, mannequin_body, path)
    other = rest.replace(betas=-rest.betas, scale=2 * rest.scale)
    loaded = read_motion(path, mannequin_body, other)
    assert torch.equal(loaded.motion.parameters.betas, other.betas.expand(len(clip), -1))
    assert torch.equal(loaded.motion.parameters.scale, other.scale.expand(len(clip), -1))
    assert torch.equal(loaded.motion.parameters.expression, clip.parameters.expression)
    assert "made for another avatar" in loaded.notes[0]


def test_files_that_are_no_motion_are_refused(tmp_path: Path, read, clip, mannequin_body) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, str(tmp_path / "avatar.safetensors"), metadata={"format": "animportrait3d.avatar"})
    with pytest.raises(IncompatibleCheckpoint, match="format 'animportrait3d.avatar'"):
        read(tmp_path / "avatar.safetensors")
    tensors = clip.parameters.to_tensors()
    tensors["jaw_pose"][1, 1] = float("nan")
    metadata = {"format": "animportrait3d.motion", "schema_version": "1", "fps": "25.0"}
    save_file(tensors, str(tmp_path / "nan.safetensors"), metadata=metadata)
    with pytest.raises(InvalidInput, match="`jaw_pose` holds 1 non-finite"):
        read(tmp_path / "nan.safetensors")
    save_file(clip.parameters.to_tensors(), str(tmp_path / "fps.safetensors"), metadata={**metadata, "fps": "fast"})
    with pytest.raises(InvalidInput, match="damaged metadata"):
        read(tmp_path / "fps.safetensors")
    (tmp_path / "a.bvh").write_text("x")
    with pytest.raises(InvalidInput, match="suffix '.bvh'"):
        read(tmp_path / "a.bvh")
    for name in ("no.npz", "no.csv", "no.json", "no.npy", "no.safetensors", "no.bvh"):
        with pytest.raises(AnimPortraitError, match="does not exist"):
            read(tmp_path / name)


@pytest.mark.parametrize("kind", ["stress clip", "authors", "live link", "named face"])
def test_every_motion_opens_the_eyes_of_a_portrait_that_sleeps(
    kind: str, authors: Path, table, mannequin_body, rest
) -> None:
    """As if it had been awake: lids of the same motion from open eyes. Lids that are not closed stay as they are."""

    def lids(pose) -> torch.Tensor:
        if kind == "stress clip":
            motion = stress_clip(mannequin_body, pose)
        elif kind == "named face":
            motion = face_motion(mannequin_body, pose, {"eyeBlinkLeft": 0.4}, FaceSliders(), FaceMotion(frames=3))
        else:
            file = authors / "speak_exp.npy" if kind == "authors" else table([("14:20:12:20.113", {}, (0, 0, 0))])
            motion = read_motion(file, mannequin_body, pose).motion
        return motion.parameters.eyelids

    found = lids(rest.replace(eyelids=torch.ones(1, 2)))
    assert torch.equal(found, lids(rest)) and float(found.min()) < 0.1
    assert torch.equal(lids(rest.replace(eyelids=torch.tensor([[0.3, -0.1]])))[0, 1:].sign(), torch.tensor([-1.0]))
