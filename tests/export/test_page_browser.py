"""The page in headless Chromium with software GL: poses and pictures are the trainer's, controls do what they say."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.animation import stress_clip
from animportrait3d_core.animation.arkit import arkit_map
from animportrait3d_core.animation.files import read_motion
from animportrait3d_core.avatar import RiggedAvatar, pose_avatar
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.export import write_avatar_page
from animportrait3d_core.export.page_data import pose_vectors
from animportrait3d_core.render import render_gaussians
from tests.avatar_samples import sleeping_person
from tests.export.page_browser import open_page, picture_job
from tests.host.browser import browser_environment

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIZE = 256
HEAD_HEIGHT = 0.7  # world units, a little less than the mannequin's from the chin up


@pytest.fixture(scope="module")
def environment():
    return browser_environment()


def four_poses(avatar: RiggedAvatar):
    """Rest, jaw open, blink, and everything at once."""
    clip = stress_clip(avatar.body, avatar.parameters)
    highlights = clip.highlights()
    return [avatar.parameters, *(clip.parameters[highlights[k]] for k in (0, 1, -1))]


def smaller_splats(avatar: RiggedAvatar) -> RiggedAvatar:
    """The avatar with Gaussians of about a pixel and more, so that their shapes are seen."""
    finer = dataclasses.replace(avatar.gaussians, log_scales=avatar.gaussians.log_scales - 1.2)
    return dataclasses.replace(avatar, gaussians=finer)


def with_correctives(avatar: RiggedAvatar) -> RiggedAvatar:
    """The avatar on a body with pose correctives and lids that move last, in the authors' order of rotations."""
    tensors, metadata = avatar.body.to_tensors()
    rows = torch.randn(45, 3 * avatar.body.num_vertices, generator=torch.Generator().manual_seed(5))
    body = BodyModel.from_tensors(tensors | {"pose_directions": 2e-4 * rows}, metadata | {"body_eyelid_mode": "paper"})
    return dataclasses.replace(avatar, body=body).with_quaternion_order("legacy")


@pytest.mark.parametrize("kind", ["constant", "harmonics", "correctives", "person"])
def test_the_page_poses_and_draws_as_the_trainer(
    make_avatar, mannequin_body, environment, tmp_path: Path, kind: str
) -> None:
    avatar = make_avatar(6000, sh_degree=3 if kind == "harmonics" else 0)
    avatar = smaller_splats(sleeping_person(mannequin_body, 6000) if kind == "person" else avatar)
    if kind == "correctives":
        avatar = with_correctives(avatar)
    write_avatar_page(avatar, tmp_path / "avatar.html")
    cameras = orbit_cameras([0, 35, -60, 150], [0, 10, 0, -20], SIZE)
    poses = four_poses(avatar)
    jobs = [picture_job(pose, cameras, index) for index, pose in enumerate(poses)]
    answer = open_page(tmp_path / "avatar.html", tmp_path / "out", environment, pictures=jobs)
    assert answer.said["errors"] == [] and answer.said["state"] == "ready"
    for index, pose in enumerate(poses):
        posed = pose_avatar(avatar, pose)
        apart = np.linalg.norm(answer.means[index] - posed.means.numpy(), axis=1).max()
        assert apart < 1e-4 * HEAD_HEIGHT, (kind, index, apart)
        image = render_gaussians(posed, cameras[index])
        seen = image.alpha[0].numpy() > 0
        assert 0.2 < seen.mean() < 0.9
        for shade in (0.0, 1.0):
            wanted = (image.color[0] + (1 - image.alpha[0])[..., None] * shade).clamp(0, 1).numpy()
            picture = answer.pictures[index]
            found = (picture[..., :3] + (1 - picture[..., 3:]) * shade).clip(0, 1)
            decibels = -10 * math.log10(((found - wanted)[seen] ** 2).mean())
            # Harmonics of 8 bits cost some; the random ones here are far rougher than trained ones.
            assert decibels >= (44 if kind == "harmonics" else 50), (kind, index, shade, decibels)


POSE = "page.evaluate(() => Array.from(AP3D.view.pose))"


def until(condition: str) -> str:
    """A step that waits for something in the page, however slow the machine is."""
    return f"page.waitForFunction(() => {condition}, null, {{ timeout: 120000 }}).then(() => true)"


def test_the_controls_move_the_avatar(make_avatar, environment, tmp_path: Path) -> None:
    """Sliders, a clip, a dropped recording, the pointer, a picture and a film, as a user asks for them."""
    avatar = make_avatar(1500)
    arkit = torch.zeros(52, avatar.body.num_expression + 8)
    arkit[17, avatar.body.num_expression] = 0.3  # jawOpen turns the jaw by 0.3 radians
    motions = {"stress": stress_clip(avatar.body, avatar.parameters)}
    write_avatar_page(avatar, tmp_path / "avatar.html", motions, arkit=arkit)
    jaw, eye = avatar.body.num_expression + 9, avatar.body.num_expression + 12
    csv = "Timecode,BlendShapeCount,JawOpen,HeadYaw\\n00:00:00:00,61,0.0,0\\n00:00:00:01,61,1.0,0\\n"
    drop = f"""page.evaluate(() => {{
        const data = new DataTransfer();
        data.items.add(new File(["{csv}"], "take.csv"));
        dispatchEvent(new DragEvent("drop", {{ dataTransfer: data, cancelable: true }}));
    }})"""
    slide = """page.evaluate(() => {
        const input = document.querySelector("input[data-name=Jaw]");
        input.value = 20;
        input.dispatchEvent(new Event("input"));
    })"""
    steps = [
        "page.mouse.move(20, 200)", until(f"Math.abs(AP3D.view.pose[{eye} + 1]) > 0.05"), POSE,
        slide, until(f"AP3D.view.pose[{jaw}] > 0.1"), POSE,
        "page.selectOption('select', { label: 'stress (9.1 s)' })", until("AP3D.state.time > 0.2"), "'playing'",
        drop, until("AP3D.state.clip.name === 'take.csv'"),
        "page.evaluate(() => [AP3D.state.clip.fps, ...AP3D.state.clip.values])",
        "page.evaluate(async () => (await AP3D.view.snapshot()).size)",
        "page.click('text=Record')",
        until("/[1-9].* kB/.test(document.getElementById('panel').textContent)"),
        "page.click('text=/^Stop/')",
        until("AP3D.lastRecording"),
        "page.evaluate(() => [AP3D.lastRecording.type, AP3D.lastRecording.size])",
        "page.evaluate(() => document.getElementById('note').textContent)",
    ]  # fmt: skip
    jobs = {"steps": steps, "screenshot": True, "viewport": {"width": 720, "height": 400}}
    said = open_page(tmp_path / "avatar.html", tmp_path / "out", environment, **jobs).said
    assert said["errors"] == []
    rest, answers = avatar.parameters, said["steps"]
    looking, opened = answers[2], answers[5]
    # The pointer is at the window's left side, where the camera sees the subject's right.
    assert looking[eye + 1] < float(rest.left_eye_pose[0, 1]) - 0.05
    assert opened[jaw] == pytest.approx(float(rest.jaw_pose[0, 0]) + math.radians(20), abs=1e-4)
    width = avatar.body.num_expression + 24
    fps, *values = answers[11]
    assert (fps, len(values)) == (60, 2 * width)
    assert values[width + jaw] - values[jaw] == pytest.approx(0.3, abs=1e-5)
    assert answers[12] > 1000
    assert answers[17][0].startswith("video/webm") and answers[17][1] > 1000
    assert answers[18] == ""


RECORDING = """Timecode,BlendShapeCount,EyeBlinkLeft,JawOpen,MouthSmileRight,HeadYaw,HeadPitch,HeadRoll
23:59:58:58.9,6,0,0,0,0,0,0
23:59:58:60.1,6,0.2,0.1,0,0.1,0.05,0
23:59:59:01.0,6,0.4,0.2,0.3,0.2,0,0
23:59:59:02.0,0,,,,,,
23:59:59:03.0,0
23:59:59:04.1,6,0.6,0.3,0.2,0.2,0,0.1
23:59:59:08.9,6,0,0.5,0.1,0.1,0,0.1
00:00:01:03.0,6,0,0.4,0.1,0.1,-0.1,0.1
"""


ROWS = RECORDING.splitlines()
RECORDINGS = {
    "phone": RECORDING,
    "semicolons": RECORDING.replace(",", ";").replace(".", ","),
    "tabs, 24 a second": "Timecode\tJawOpen\n" + "".join(f"1:2:{k // 24}:{k % 24:02}\t{k / 99}\n" for k in range(60)),
    "times": "timestamp_ms,jawOpen\n" + "".join(f"{40 * k},{k / 99}\n" for k in range(60) if k != 30),
    "quotes": "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in ROWS if "," * 6 not in row),
    "in twos": "Timecode,JawOpen\n" + "".join(f"1:2:{k // 60}:{k // 2 % 30}.{k % 2 * 5},0.1\n" for k in range(200)),
}


def test_a_dropped_recording_is_the_motion_that_the_reader_makes(mannequin_body, environment, tmp_path: Path) -> None:
    """Of somebody with personal offsets whose left eye is closed at rest: time codes that shake, dropped frames, rows
    without a face, midnight; tables of spreadsheets and other recorders."""
    avatar = sleeping_person(mannequin_body, 300)
    write_avatar_page(avatar, tmp_path / "avatar.html", arkit=arkit_map(avatar.body).matrix)
    steps = [
        f"""page.evaluate(() => {{
        const {{ view, drivers }} = AP3D, text = {json.dumps(text)};
        const clip = drivers.arkitClip(view.header, view.arkit, "take.csv", text);
        return [clip.fps, clip.frames, Array.from(clip.values)];
    }})"""
        for text in RECORDINGS.values()
    ]
    wide = "\\ufeff" + RECORDING.replace(",", "\\t").replace("\n", "\\n")
    steps.append(f"""page.evaluate(async () => {{
        const file = new File([Uint16Array.from("{wide}", (letter) => letter.charCodeAt(0))], "a.txt");
        return AP3D.drivers.textOf(file);
    }})""")
    said = open_page(tmp_path / "avatar.html", tmp_path / "out", environment, steps=steps).said
    assert said["errors"] == [] and said["steps"].pop() == RECORDING.replace(",", "\t")
    for (name, text), (fps, frames, values) in zip(RECORDINGS.items(), said["steps"]):
        (tmp_path / "take.csv").write_text(text)
        wanted = read_motion(tmp_path / "take.csv", avatar.body, avatar.parameters).motion
        assert (fps, frames) == (wanted.fps, len(wanted)), name
        found = torch.tensor(values).reshape(frames, -1)
        # Between two frames turns are on straight lines here.
        torch.testing.assert_close(found, pose_vectors(wanted.parameters), atol=2e-3, rtol=0, msg=name)
        if name == "phone":
            lids = found[:, -6]
            assert float(lids[0]) == 0 and float(lids.max()) > 0.5


def test_the_lids_of_a_sleeping_person_open_by_their_slider(mannequin_body, environment, tmp_path: Path) -> None:
    write_avatar_page(sleeping_person(mannequin_body, 300), tmp_path / "avatar.html")
    slide = """page.evaluate(() => {
        for (const box of document.querySelectorAll("input[type=checkbox]:checked")) box.click();
        const input = document.querySelector("input[data-name=Lids]");
        input.value = input.min;
        input.dispatchEvent(new Event("input"));
    })"""
    steps = [slide, until("AP3D.view.pose.at(-6) < 0.5"), "page.evaluate(() => AP3D.view.pose.at(-6))"]
    said = open_page(tmp_path / "avatar.html", tmp_path / "out", environment, steps=steps).said
    assert said["errors"] == [] and said["steps"][2] == 0


def test_nothing_moves_by_itself_where_that_is_asked_for(make_avatar, environment, tmp_path: Path) -> None:
    avatar = make_avatar(300)
    write_avatar_page(avatar, tmp_path / "avatar.html", {"stress": stress_clip(avatar.body, avatar.parameters)})
    state = "page.evaluate(() => [AP3D.state.playing, AP3D.state.blinks, AP3D.state.time])"
    choose = "page.selectOption('select', { label: 'stress (9.1 s)' })"
    play, moved = "page.click('text=/^Play$/')", until("AP3D.state.time > 0.1")
    calm = {"steps": [choose, "page.waitForTimeout(500)", state, play, moved, state], "reducedMotion": "reduce"}
    answers = open_page(tmp_path / "avatar.html", tmp_path / "calm", environment, **calm).said["steps"]
    assert answers[2] == [False, False, 0] and answers[5][:2] == [True, False]
    usual = open_page(tmp_path / "avatar.html", tmp_path / "usual", environment, steps=[state]).said["steps"]
    assert usual[0][:2] == [True, True]


@pytest.mark.parametrize("slower", [10, 400])  # some frames a second; seconds for each
def test_a_device_that_cannot_keep_up_draws_fewer_pixels(make_avatar, environment, tmp_path: Path, slower) -> None:
    avatar = make_avatar(300)
    write_avatar_page(avatar, tmp_path / "avatar.html", {"stress": stress_clip(avatar.body, avatar.parameters)})
    clock = f"const now = performance.now.bind(performance); performance.now = () => {slower} * now()"
    steps = ["page.evaluate(() => AP3D.view.ratio)", "page.selectOption('select', { label: 'stress (9.1 s)' })"]
    steps += [f"page.evaluate(() => {{ {clock}; }})", until("AP3D.view.ratio < 0.7")]
    steps += ["page.evaluate(() => AP3D.view.ratio)"]
    said = open_page(tmp_path / "avatar.html", tmp_path / "out", environment, steps=steps).said
    assert said["errors"] == [] and said["steps"][0] == 1 and 0.5 <= said["steps"][-1] < 0.7


TOUCH = """page.context().newCDPSession(page).then(async (session) => {
    for (const [type, points] of %s)
    {
        const touchPoints = points.map(([x, y], id) => ({ x, y, id }));
        await session.send("Input.dispatchTouchEvent", { type, touchPoints });
    }
    return true;
})"""


def test_fingers_turn_and_zoom_on_a_telephone(make_avatar, environment, tmp_path: Path) -> None:
    write_avatar_page(make_avatar(300), tmp_path / "avatar.html")
    orbit = "page.evaluate(() => [AP3D.view.orbit.yaw, AP3D.view.orbit.elevation, AP3D.view.orbit.radius])"
    one = [["touchStart", [[200, 300]]], *(["touchMove", [[200 - 10 * k, 300]]] for k in range(1, 6)), ["touchEnd", []]]
    apart = [["touchMove", [[180 - 8 * k, 300], [220 + 8 * k, 300]]] for k in range(1, 6)]
    two = [["touchStart", [[180, 300]]], ["touchStart", [[180, 300], [220, 300]]], *apart, ["touchEnd", []]]
    folded = "page.evaluate(() => [document.getElementById('panel').hidden, document.body.scrollWidth - innerWidth])"
    tap = "page.tap('#toggle')"
    steps = [folded, orbit, TOUCH % json.dumps(one), orbit, TOUCH % json.dumps(two), orbit, tap, folded]
    jobs = {"steps": steps, "touch": True, "viewport": {"width": 390, "height": 800}}
    said = open_page(tmp_path / "avatar.html", tmp_path / "out", environment, **jobs).said
    assert said["errors"] == []
    closed, before, _, turned, _, zoomed, _, opened = said["steps"]
    assert closed == [True, 0] and opened == [False, 0]
    assert turned[0] - before[0] == pytest.approx(20, abs=1) and turned[1:] == before[1:]
    assert zoomed[2] == pytest.approx(turned[2] * 40 / 120, rel=0.1) and abs(zoomed[0] - turned[0]) < 1


def test_recordings_that_cannot_be_followed_are_told(make_avatar, environment, tmp_path: Path) -> None:
    write_avatar_page(make_avatar(300), tmp_path / "avatar.html")
    tell = """page.evaluate(() => {{
        try {{ AP3D.drivers.arkitClip(AP3D.view.header, {map}, "a.csv", "{text}"); }} catch (e) {{ return e.message; }}
    }})"""
    steps = [
        tell.format(map="null", text="JawOpen"),
        tell.format(map="[]", text="a,b\\n1,2"),
        *(
            tell.format(map="new Float32Array(52 * 18)", text=text)
            for text in (
                "JawOpen\\n0\\nnan", "JawOpen\\n17.5", "JawOpen,HeadYaw\\n0,30", "JawOpen,HeadYaw\\n0.1\\n",
                "JawOpen,b\\n,1", "JawOpen,b\\n0,1,0,2", "JawOpen,jaw_open\\n0,1",
            )
        ),
    ]  # fmt: skip
    answers = open_page(tmp_path / "avatar.html", tmp_path / "out", environment, steps=steps).said["steps"]
    assert "without an ARKit map" in answers[0]
    assert "names 0 of the 52" in answers[1]
    assert "frame 1: 'nan' is no number" in answers[2]
    assert "frame 0: '17.5' is no number of at most 10" in answers[3]
    assert "frame 0: '30' is no number of at most 6.3" in answers[4] and "radians" in answers[4]
    assert "frame 0: 1 columns, the header has 2" in answers[5]
    assert "has 1 frames; expected a CSV" in answers[6]
    assert "4 columns, the header has 2; if its decimals have commas" in answers[7]
    assert "more than one column of jawopen" in answers[8]


def test_a_browser_without_webgl2_is_told(make_avatar, environment, tmp_path: Path) -> None:
    write_avatar_page(make_avatar(300), tmp_path / "avatar.html")
    said = open_page(tmp_path / "avatar.html", tmp_path / "out", environment, noWebgl=True).said
    assert said["state"] == "failed"
    assert "WebGL2" in said["note"] and "hardware acceleration" in said["note"]
