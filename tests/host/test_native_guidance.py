"""ComfyUI's own MODEL, CLIP, VAE and CONTROL_NET as a guidance, beside the diffusers adapter on the same files.

`native_worker.py` measures in ComfyUI's interpreter, once for all tests here; one test goes through the real server.
Skipped unless COMFYUI_DIR points to a checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from animportrait3d_core.workflow.definitions import define_node

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.environ.get("COMFYUI_DIR"), reason="COMFYUI_DIR does not point to a ComfyUI checkout"),
]
WORKER = Path(__file__).with_name("native_worker.py")
NAMES = (
    "epsilon", "v", "batches", "autoencoder", "half_autoencoder", "patches", "fingerprints", "sessions", "stops",
    "score", "refusals",
)  # fmt: skip
EXACT = 1e-5


def ask_worker(tiny_models, *names):
    core = os.environ["COMFYUI_DIR"]
    command = [os.environ.get("COMFYUI_PYTHON", sys.executable), str(WORKER), core, str(tiny_models), *names]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(command, cwd=core, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: numbers for line in done.stdout.splitlines() for name, numbers in json.loads(line).items()}


@pytest.fixture(scope="module")
def all_measured(tiny_models):
    return ask_worker(tiny_models, *NAMES)


@pytest.fixture()
def measured(all_measured):
    def of(name):
        failed = all_measured[name].get("error")
        assert not isinstance(failed, str), failed
        return all_measured[name]

    return of


def errors(numbers):
    """Those that are relative errors, by name."""
    return {name: value for name, value in numbers.items() if type(value) is float}


@pytest.mark.parametrize("name", ["epsilon", "v"])
def test_eps_and_x0_are_those_of_the_diffusers_adapter(measured, name):
    found = errors(measured(name))
    calls = [f"{control} {part}" for control in ("plain", "controlled") for part in ("eps", "x0", "guided eps")]
    assert all(any(entry.endswith(call) for entry in found) for call in calls)
    assert max(found.values()) < EXACT, found


def test_it_is_a_guidance_of_the_same_kind(measured):
    found = measured("epsilon")
    assert found["same"] and found["is a guidance"] and found["schedule"] < 1e-6


def test_zero_terminal_snr_is_finite_at_its_end(measured):
    assert measured("v")["last step is finite"]


def test_a_batch_is_its_single_calls(measured):
    found = measured("batches")
    assert max(found["plain"], found["controlled"], found["half strength"]) < EXACT
    assert found["control is heard"] > 0.1 and found["every hint is heard"] > 50 * found["controlled"]


def test_pictures_and_latents_are_those_of_the_diffusers_adapter(measured):
    found = measured("autoencoder")
    assert max(found[name] for name in ("mean", "sample", "decoded")) < EXACT
    assert found["noise is heard"] > 0.1


def test_gradients_go_through_the_autoencoder_under_inference_mode(measured):
    found = measured("autoencoder")
    for way in ("encode", "decode"):
        assert found[f"{way} gradient"] < EXACT, "beside the diffusers adapter"
        assert found[f"{way} slope"] < 1e-3, "beside central differences"


def test_a_vae_in_half_precision_encodes_in_float32(measured):
    found = measured("half_autoencoder")
    assert found["error"] < EXACT and found["type"] == "torch.float32" and found["left alone"] == "torch.float16"


def test_what_users_put_before_it_is_heard(measured):
    found = measured("patches")
    assert found["apg is heard"] > 1e-4, "core's APG node"
    assert found["lora is heard"] > 0.1 and found["lora error"] < EXACT and found["base harmed"] == 0


def test_fingerprints_tell_apart_what_answers_differently(measured, tiny_models):
    found = measured("fingerprints")
    assert found["lora, loaded"] == found["lora"] and found["plain, lora loaded"] == found["plain"]
    assert found["plain, another projection"] == found["plain"], "which the checkpoint does not hold"
    assert len(set(found.values())) == len(found) - 3
    again = ask_worker(tiny_models, "same_files")["same_files"]
    assert again == {name: found[name] for name in again}, "in another process"


def test_a_session_loads_once_and_leaves_nothing_behind(measured):
    found = measured("sessions")
    assert found["loads to open"] == 2 and found["loads inside"] == 0
    assert all(found[name] for name in ("copy is gone", "work is gone", "cleaned", "hint of the user", "works alone"))
    assert found["plain weights"] and not found["inference tensors"]
    assert "BaseModel" in found["held"] and not any("Autoencod" in name for name in found["held"])


def test_a_stop_is_heard_within_a_call_and_leaves_nothing_behind(measured):
    found = measured("stops")
    assert max(found["seconds"].values()) < 1, found["seconds"]
    assert found["counts"]["score"] > 50 and len(found["counts"]) == 3, "both stops were heard"
    assert found["same"] and found["cleaned"] and found["hooks"] == 0


def test_a_score_rule_gives_the_adapters_gradient(measured):
    # Seven calls, one after the other, the last one guided.
    assert measured("score")["gradient"] < 1e-4


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("three channels", "CONTROL_NET has 3 condition channels, expected 4"),
        ("sdxl", "'MODEL' is SDXL, which cannot be used here"),
        ("sd3", "'MODEL' is Stable Diffusion 3, which"),
        ("flux", "'MODEL' is Flux, which"),
        ("inpainting", "an inpainting model (9 input and 4 output channels)"),
        ("no vae", "the VAE is empty"),
        ("no controlnet", "no ControlNet is loaded"),
        ("size", "shape [1, 32, 64, 4], expected [B, 64, 64, 4]"),
        ("leaked schedule", "up to 4519 (prediction v_prediction), expected 14.61 (prediction epsilon)"),
        ("after the leak", "nothing was said"),
        ("memory", "CUDA out of memory. Tried to allocate 3 GiB"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(measured, case, words):
    assert words in measured("refusals")[case]


@pytest.fixture()
def prompt(node_classes):
    """A graph in API format: core's loaders, the guidance, condition maps of the mannequin, pictures."""
    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "tiny_sd15.safetensors"}),
        "2": ("ControlNetLoader", {"control_net_name": "tiny_4.safetensors"}),
        "3": ("AP3D_GuidanceFromModel", {
            "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "control_net": ["2", 0], "image_size": 64,
        }),
        "4": ("AP3D_Prompts", {"prompt": "a young man, red hair"}),
        "5": ("AP3D_LoadSMPLX", {}),
        "6": ("AP3D_ConditionMaps", {"subject": ["5", 0], "size": 64}),
        "7": ("AP3D_SampleGuidance", {
            "guidance": ["3", 0], "prompts": ["4", 0], "condition": ["6", 2], "steps": 2, "count": 2,
        }),
    }  # fmt: skip
    made = {}
    for key, (kind, inputs) in nodes.items():
        entries = define_node(kind, node_classes[kind]).widgets if kind in node_classes else []
        usual = {entry.name: entry.default for entry in entries if entry.required}
        made[key] = {"class_type": kind, "inputs": {**usual, **inputs}}
    return made


def test_pictures_of_a_checkpoint_in_the_real_server(comfyui_server, tiny_models, prompt):
    for name, key in (("tiny_sd15.safetensors", "checkpoints"), ("tiny_4.safetensors", "controlnet")):
        folder = comfyui_server.base / "models" / key
        folder.mkdir(exist_ok=True)
        shutil.copy(tiny_models / name, folder / name)
    status, answer = comfyui_server.post("/prompt", {"prompt": prompt})
    assert status == 200 and not answer["node_errors"], answer
    entry = comfyui_server.history(answer["prompt_id"], 900)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    assert entry["outputs"]["3"]["text"] == [
        "family sd15, prediction epsilon, 4 latent channels, pictures of 64 pixels\n"
        "ControlNet of 4 condition channels, strength 1\non cpu, float32"
    ]
    assert len(entry["outputs"]["7"]["images"]) == 2 and entry["outputs"]["7"]["text"][0].endswith("with ControlNet")
