"""Runs in ComfyUI's own interpreter: measures its objects as a guidance beside the same files in the diffusers adapter.

native_worker.py COMFYUI_DIR CHECKPOINT_FOLDER NAMES...   prints one JSON line {name: numbers, or {"error": text}} each.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import time
import traceback
import weakref
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
COMFYUI, FOLDER, NAMES = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
# ComfyUI first: it has a module `nodes` of its own.
sys.path[:0] = [COMFYUI, str(ROOT)]

from comfy.cli_args import args  # noqa: E402

args.cpu = True
import comfy.controlnet  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy_extras.nodes_model_advanced as model_nodes  # noqa: E402
import folder_paths  # noqa: E402, F401
import torch  # noqa: E402
from comfy_extras.nodes_apg import APG  # noqa: E402

from animportrait3d_core.diffusion import Guidance, NoiseSchedule  # noqa: E402
from animportrait3d_core.diffusion.components import Components  # noqa: E402
from animportrait3d_core.diffusion.diffusers_adapter import (  # noqa: E402
    DiffusersGuidance,
    GuidanceFiles,
    load_guidance,
)
from animportrait3d_core.diffusion.score import Question, ScoreText, image_score  # noqa: E402
from animportrait3d_core.progress import stopped_by  # noqa: E402
from animportrait3d_core.workflow.registry import load_pack  # noqa: E402

NODE = load_pack(ROOT).NODE_CLASS_MAPPINGS["AP3D_GuidanceFromModel"]
HOST = sys.modules[NODE.__module__].host
NATIVE_CONTENTS = sys.modules[HOST.__name__ + ".native.contents"]
TEXTS = ["a young man", "red hair, side view", ""]
SCALE = 7.5  # of guidance
STEPS = torch.tensor([20, 500, 980])


class Loaded:
    """The host's objects, loaded by its own functions as its nodes load them, and the diffusers adapter's."""

    def __init__(self):
        with torch.inference_mode():
            path = str(FOLDER / "tiny_sd15.safetensors")
            self.model, self.clip, self.vae = comfy.sd.load_checkpoint_guess_config(path)[:3]
            self.control, self.ordinary = (
                comfy.controlnet.load_controlnet(str(FOLDER / name))
                for name in ("tiny_4.safetensors", "tiny_3.safetensors")
            )
        self.tokenizer = Path(COMFYUI) / "comfy" / "sd1_tokenizer"
        self.files = GuidanceFiles(
            FOLDER / "tiny_sd15.safetensors", controlnet=FOLDER / "tiny_4.safetensors", tokenizer=self.tokenizer
        )
        self.reference = load_guidance(self.files)

    def guidance(self, model=None, control="own", **inputs):
        """What the node makes of them, under the host's inference mode."""
        usual = {"control_strength": 1.0, "image_size": 64, "guidance_scale": SCALE}
        given = {"clip": self.clip, "vae": self.vae, "control_net": self.control if control == "own" else control}
        with torch.inference_mode():
            done = NODE().execute(model=model or self.model, **{**usual, **given, **inputs})
        return done["result"][0]

    def as_v(self, zsnr):
        (model,) = model_nodes.ModelSamplingDiscrete().patch(self.model, "v_prediction", zsnr)
        schedule = NoiseSchedule.stable_diffusion()
        if zsnr:
            betas = 1 - schedule.alphas_cumprod / torch.cat([torch.ones(1), schedule.alphas_cumprod[:-1]])
            schedule = NoiseSchedule.from_betas(betas, zero_terminal_snr=True)
        own = self.reference
        parts = Components(own.unet, own.vae, own.text_encoder, own.tokenizer, schedule, "v_prediction")
        return model, DiffusersGuidance(parts, own.controlnet)


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def inputs(count=3, side=8):
    draw = torch.Generator().manual_seed(5)
    latents = torch.randn(count, 4, side, side, generator=draw)
    return latents, torch.rand(count, 8 * side, 8 * side, 4, generator=draw)


def difference(native, reference, steps=STEPS):
    """Greatest relative error of eps and x0, by kind of call."""
    latents, condition = inputs(len(steps))
    found = {}
    with native.session():
        texts, wanted_texts = (one.encode_prompt(TEXTS[: len(steps)]) for one in (native, reference))
        found["texts"] = relative(texts.hidden_states, wanted_texts.hidden_states)
        negatives = [one.encode_prompt(["blurry"] * len(steps)) for one in (native, reference)]
        for name, control in (("plain", None), ("controlled", condition)):
            asked = list(zip((native, reference), (texts, wanted_texts), negatives))
            ours, theirs = (one.predict_noise(latents, steps, text, control) for one, text, _ in asked)
            guided, wanted = (
                one.predict_guided_noise(latents, steps, text, minus, SCALE, control) for one, text, minus in asked
            )
            negative = reference.predict_noise(latents, steps, negatives[1], control)
            for part in ("eps", "x0"):
                values = (getattr(answer, part) for answer in (ours, theirs, guided, wanted, negative))
                found |= {f"{name} {kind}": value for kind, value in both_errors(part, *values).items()}
    return found


def both_errors(part, ours, theirs, guided, wanted, negative):
    """Greatest relative error of a row, without guidance and with it.

    Guidance subtracts two answers of nearly one size, which leaves their rounding many times as large beside what
    remains: it is measured by both together, or it would tell the processor's rounding alone.
    """
    return {
        part: float((row_norms(ours - theirs) / row_norms(theirs)).max()),
        f"guided {part}": float((row_norms(guided - wanted) / (row_norms(theirs) + row_norms(negative))).max()),
    }


def row_norms(values):
    return values.flatten(1).norm(dim=1)


def check_epsilon(loaded):
    native = loaded.guidance()
    schedule = native.alphas_cumprod - loaded.reference.alphas_cumprod
    names = ("family", "latent_channels", "latent_scale", "latent_factor")
    same = all(getattr(native, name) == getattr(loaded.reference, name) for name in names)
    return {
        **difference(native, loaded.reference), "schedule": float(schedule.abs().max()), "same": same,
        "is a guidance": isinstance(native, Guidance),
    }  # fmt: skip


def check_v(loaded):
    found = {}
    for zsnr in (False, True):
        model, reference = loaded.as_v(zsnr)
        native = loaded.guidance(model)
        errors = difference(native, reference)
        found |= {f"zsnr {zsnr} {name}": value for name, value in errors.items()}
    latents, _ = inputs(1)
    last = native.predict_noise(latents, 999, native.encode_prompt(["a"]))
    found["last step is finite"] = bool(torch.isfinite(last.eps).all() and torch.isfinite(last.x0).all())
    # The first schedule is the model's own again.
    found |= {f"after {name}": value for name, value in difference(loaded.guidance(), loaded.reference).items()}
    return found


def check_batches(loaded):
    native = loaded.guidance()
    latents, condition = inputs()
    found = {}
    with native.session():
        text, negative = native.encode_prompt(TEXTS), native.encode_prompt(["blurry"])
        for name, control in (("plain", None), ("controlled", condition)):
            both = native.predict_guided_noise(latents, STEPS, text, negative, SCALE, control)
            errors = []
            for k in range(3):
                alone = slice(k, k + 1)
                hint = None if control is None else control[alone]
                one = native.predict_guided_noise(latents[alone], int(STEPS[k]), text[k], negative, SCALE, hint)
                errors += [relative(both.eps[alone], one.eps), relative(both.x0[alone], one.x0)]
            found[name] = max(errors)
        heard = native.predict_noise(latents, STEPS, text, condition).eps
        found["control is heard"] = relative(heard, native.predict_noise(latents, STEPS, text).eps)
        found["every hint is heard"] = min(
            relative(native.predict_noise(latents, STEPS, text, condition.flip(0)).eps[k : k + 1], heard[k : k + 1])
            for k in (0, 2)
        )
    half = loaded.guidance(control_strength=0.5).predict_noise(latents, STEPS, text, condition).eps
    scaled = DiffusersGuidance(
        Components(
            *(getattr(loaded.reference, name) for name in ("unet", "vae", "text_encoder", "tokenizer", "schedule")),
            "epsilon",
        ),
        loaded.reference.controlnet,
        0.5,
    )
    found["half strength"] = relative(half, scaled.predict_noise(latents, STEPS, text, condition).eps)
    return found


def check_autoencoder(loaded):
    native, reference = loaded.guidance(), loaded.reference
    draw = torch.Generator().manual_seed(7)
    images = torch.rand(1, 32, 32, 3, generator=draw)
    noise = torch.randn(1, 4, 4, 4, generator=draw)
    weights = torch.randn(1, 4, 4, 4, generator=draw)
    found = {}
    with torch.inference_mode(), native.session():
        found["mean"] = relative(native.encode(images), reference.encode(images))
        found["sample"] = relative(native.encode(images, noise), reference.encode(images, noise))
        found["noise is heard"] = relative(native.encode(images, noise), native.encode(images))
        found["decoded"] = relative(native.decode(noise), reference.decode(noise))
        with torch.inference_mode(False), torch.enable_grad():
            leaf = images.clone().requires_grad_(True)
            ways = {"encode": (lambda g, x: g.encode(x, noise.clone()), leaf)}
            seed = (0.3 * noise).clone().requires_grad_(True)
            ways["decode"] = (lambda g, x: g.decode(x), seed)
            for name, (way, start) in ways.items():
                value = way(native, start)
                pull = weights.clone() if name == "encode" else torch.ones_like(value) * value.detach()
                (gradient,) = torch.autograd.grad((value * pull).sum(), start)
                (wanted,) = torch.autograd.grad((way(reference, start) * pull).sum(), start)
                found[f"{name} gradient"] = relative(gradient, wanted)
                direction, step = gradient / gradient.norm(), 1e-2
                high, low = (
                    (way(native, (start + sign * step * direction).detach()).double() * pull).sum() for sign in (1, -1)
                )
                found[f"{name} slope"] = abs(float((high - low) / (2 * step) / gradient.norm()) - 1)
    return found


def check_half_autoencoder(loaded):
    images = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(7))
    before = loaded.guidance().encode(images)
    network = loaded.vae.first_stage_model
    try:
        network.half()
        found = loaded.guidance().encode(images)
        return {
            "type": str(found.dtype),
            "error": relative(found, before),
            "left alone": str(next(network.parameters()).dtype),
        }
    finally:
        network.float()


def check_patches(loaded):
    latents, condition = inputs()
    native = loaded.guidance()
    text, negative = native.encode_prompt(TEXTS), native.encode_prompt(["blurry"])

    def ask(guidance):
        return guidance.predict_guided_noise(latents, STEPS, text, negative, SCALE, condition)

    def plainly(guidance):
        return guidance.predict_noise(latents, STEPS, text, condition).eps

    base, patched = ask(native).eps, ask(loaded.guidance(apg_of(loaded))).eps
    unpatched = plainly(native)
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_v.weight"
    lora = loaded.model.clone()
    delta = torch.randn(loaded.model.model.state_dict()[key].shape, generator=torch.Generator().manual_seed(1))
    lora.add_patches({key: (delta,)}, 1.0)
    merged, again = plainly(loaded.guidance(lora)), plainly(native)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    weight = dict(loaded.reference.unet.named_parameters())[name]
    before = weight.detach().clone()
    with torch.no_grad():
        weight += delta
        wanted = plainly(loaded.reference)
        weight.copy_(before)
    return {
        "apg is heard": relative(patched, base), "lora is heard": relative(merged, unpatched),
        "lora error": relative(merged, wanted), "base harmed": relative(again, unpatched),
    }  # fmt: skip


def apg_of(loaded, **values):
    done = APG.execute(loaded.model, **{"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.0, **values})
    return done.result[0] if hasattr(done, "result") else done[0]


def check_fingerprints(loaded):
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    patch = torch.ones(loaded.model.model.state_dict()[key].shape)
    lora, stronger = loaded.model.clone(), loaded.model.clone()
    lora.add_patches({key: (patch,)}, 0.5)
    stronger.add_patches({key: (patch,)}, 0.6)
    guidances = {
        "plain": loaded.guidance(), "no control": loaded.guidance(control=None),
        "half strength": loaded.guidance(control_strength=0.5), "lora": loaded.guidance(lora),
        "stronger lora": loaded.guidance(stronger), "apg": loaded.guidance(apg_of(loaded)),
        "other apg": loaded.guidance(apg_of(loaded, eta=0.25)), "v": loaded.guidance(loaded.as_v(False)[0]),
        "zsnr": loaded.guidance(loaded.as_v(True)[0]),
    }  # fmt: skip
    found = {name: guidance.fingerprint for name, guidance in guidances.items()}
    with guidances["lora"].session():
        NATIVE_CONTENTS._WEIGHTS.clear()
        found["lora, loaded"] = loaded.guidance(lora).fingerprint
        NATIVE_CONTENTS._WEIGHTS.clear()
        found["plain, lora loaded"] = loaded.guidance().fingerprint
    NATIVE_CONTENTS._WEIGHTS.clear()
    with torch.inference_mode():  # what the checkpoint does not hold, as another process may find it in memory
        loaded.clip.cond_stage_model.clip_l.transformer.text_projection.weight.normal_()
    found["plain, another projection"] = loaded.guidance().fingerprint
    return found


def check_same_files(loaded):
    """The same in a process of its own."""
    return {
        "plain": loaded.guidance().fingerprint, "apg": loaded.guidance(apg_of(loaded)).fingerprint,
        "v": loaded.guidance(loaded.as_v(False)[0]).fingerprint,
    }  # fmt: skip


def check_sessions(loaded):
    loads = []
    whole = comfy.model_management.load_models_gpu

    def counted(models, *arguments, **settings):
        loads.append(len(models))
        return whole(models, *arguments, **settings)

    comfy.model_management.load_models_gpu = counted
    try:
        native = loaded.guidance()
        latents, condition = inputs()
        text = native.encode_prompt(TEXTS)
        loads.clear()
        with native.session():
            opening = len(loads)
            copy = weakref.ref(native._work.autoencoder.network)
            for _ in range(3):
                native.predict_noise(latents, STEPS, text, condition)
                native.encode(torch.zeros(1, 32, 32, 3))
            inside = len(loads) - opening
            is_plain = not any(value.is_inference() for value in copy().parameters())
    finally:
        comfy.model_management.load_models_gpu = whole
    gc.collect()
    answer = native.predict_noise(latents, STEPS, text)
    listed = [entry.model for entry in comfy.model_management.current_loaded_models]
    held = sorted({type(patcher.model).__name__ for patcher in listed if patcher is not None})
    alone = bool(torch.isfinite(answer.eps).all())
    return {
        "loads to open": opening, "loads inside": inside, "copy is gone": copy() is None, "plain weights": is_plain,
        "work is gone": native._work is None, "cleaned": loaded.model.model.current_patcher is None,
        "hint of the user": loaded.control.cond_hint_original is None, "works alone": alone,
        "inference tensors": answer.eps.is_inference() or text.hidden_states.is_inference(), "held": held,
    }  # fmt: skip


class Stop(BaseException):
    pass


class Looks:
    """Of a user who presses stop at one of them; seconds: the longest time between two."""

    def __init__(self, at=math.inf):
        self.times, self.at = [clocks()], at

    def __call__(self):
        self.times.append(clocks())
        if len(self.times) > self.at:
            raise Stop

    @property
    def seconds(self):
        times = [*self.times, clocks()]
        return max(min(now - then for now, then in zip(*pair)) for pair in zip(times[1:], times))


def clocks():
    return time.perf_counter(), time.process_time()


def check_stops(loaded):
    """How long a stop waits, and what it leaves behind."""
    native = loaded.guidance()
    latents, condition = inputs(2)
    schedule = NoiseSchedule.stable_diffusion()
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    text = ScoreText(*(native.encode_prompt([words]) for words in ("a man", "blurry", "")))
    before = native.predict_noise(latents, 500, text.prompt, condition).eps
    seconds, counts = {}, {}
    with torch.inference_mode():
        look = Looks()
        with stopped_by(look):
            native.fingerprint  # noqa: B018
        seconds["hash"], look = look.seconds, Looks()
        with stopped_by(look), native.session():
            seconds["open"], score_looks = look.seconds, Looks()
            with torch.inference_mode(False), stopped_by(score_looks):
                image_score(native, schedule, images, Question(text, condition, latents), (500, 420, 300))
            seconds["score"], counts["score"] = score_looks.seconds, len(score_looks.times)
        for at in (5, len(score_looks.times) - 5):
            try:
                with native.session(), torch.inference_mode(False), stopped_by(Looks(at)):
                    image_score(native, schedule, images, Question(text, condition, latents), (500, 420, 300))
            except Stop:
                counts[f"stopped at {at}"] = at
    after = native.predict_noise(latents, 500, text.prompt, condition).eps
    cleaned = loaded.model.model.current_patcher is None and loaded.control.cond_hint_original is None
    hooks = sum(len(module._forward_hooks) for module in loaded.model.model.modules())
    return {
        "seconds": seconds,
        "counts": counts,
        "same": torch.equal(before, after),
        "cleaned": cleaned,
        "hooks": hooks,
    }


def check_score(loaded):
    """A whole rule of a stage, under the host's inference mode, beside the adapter's."""
    schedule = NoiseSchedule.stable_diffusion()
    latents, condition = inputs(2)
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    found = []
    for guidance in (loaded.guidance(), loaded.reference):
        with torch.inference_mode(), guidance.session():
            text = ScoreText(*(guidance.encode_prompt([words]) for words in ("a man", "blurry", "")))
            with torch.inference_mode(False):
                score = image_score(guidance, schedule, images, Question(text, condition, latents), (500, 420, 300))
            found.append(score.gradient)
    return {"gradient": relative(*found)}


def refused(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was said"


def check_refusals(loaded):
    def like(config, **unet):
        known = {"in_channels": 4, "context_dim": 2048, "adm_in_channels": 2816, **unet}
        kind = getattr(comfy.supported_models, config)
        made = kind(known)
        base = SimpleNamespace(model_config=made, model_type=made.model_type({}), latent_format=made.latent_format)
        return SimpleNamespace(model=base, object_patches={})

    native = loaded.guidance(control=None)
    inpainting = like("SD15", in_channels=9, context_dim=768, adm_in_channels=None)
    latents, condition = inputs(1)
    text = native.encode_prompt(["a"])
    found = {
        "three channels": refused(lambda: loaded.guidance(control=loaded.ordinary)),
        "sdxl": refused(lambda: loaded.guidance(like("SDXL"))),
        "sd3": refused(lambda: loaded.guidance(like("SD3", context_dim=4096))),
        "flux": refused(lambda: loaded.guidance(like("Flux"))),
        "inpainting": refused(lambda: loaded.guidance(inpainting)),
        "no vae": refused(lambda: loaded.guidance(vae=None)),
        "no controlnet": refused(lambda: native.predict_noise(latents, 5, text, condition)),
        "size": refused(lambda: loaded.guidance().predict_noise(latents, 5, text, condition[:, :32])),
    }
    leaked = loaded.as_v(True)[0].object_patches["model_sampling"]
    own = loaded.model.model.model_sampling
    loaded.model.model.model_sampling = leaked
    found["leaked schedule"] = refused(lambda: native.predict_noise(latents, 5, text))
    loaded.model.model.model_sampling = own
    found["after the leak"] = refused(lambda: native.predict_noise(latents, 5, text))

    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    calls, comfy.samplers.calc_cond_batch = comfy.samplers.calc_cond_batch, exhausted
    try:
        native.predict_noise(latents, 5, text)
    except torch.OutOfMemoryError as error:  # as it is: the host answers its kind, the node's door finds the words
        found["memory"] = str(error)
    comfy.samplers.calc_cond_batch = calls
    return found


def main():
    loaded = Loaded()
    for name in NAMES:
        try:
            result = globals()[f"check_{name}"](loaded)
        except Exception:
            result = {"error": traceback.format_exc()}
        print(json.dumps({name: result}), flush=True)


if __name__ == "__main__":
    main()
