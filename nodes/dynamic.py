"""AP3D_PretrainEyes, AP3D_PretrainMouth, AP3D_ISMOptimize, AP3D_SDEditRefine: dynamic optimization (paper, 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from torch import Tensor

    from animportrait3d_core.animation import Motion
    from animportrait3d_core.avatar import RiggedAvatar
    from animportrait3d_core.conditioning import Prompts
    from animportrait3d_core.diffusion import Guidance
    from animportrait3d_core.optimization.dynamic import RegionPass
    from animportrait3d_core.views import Views


class DynamicStage:
    """What the four nodes have in common."""

    CATEGORY = "AnimPortrait3D/optimization"
    FUNCTION = "execute"
    RETURN_TYPES = ("AP3D_AVATAR", "IMAGE")
    RETURN_NAMES = ("avatar", "image")
    OUTPUT_TOOLTIPS = ("The avatar after this stage.", "Above: before. Below: after, in the same poses.")
    STAGE = ""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from animportrait3d_core.optimization.presets import PRESETS

        return {
            "required": {
                "avatar": ("AP3D_AVATAR", {"tooltip": "The avatar to work on; it is copied."}),
                "guidance": ("AP3D_GUIDANCE", {"tooltip": "The diffusion model that knows how people look."}),
                "prompts": ("AP3D_PROMPTS", {"tooltip": "What this person looks like."}),
                "preset": (
                    list(PRESETS),
                    {
                        "default": "standard",
                        "tooltip": "standard: minutes on a CPU with the embedded prior. draft: a third of it. paper: "
                        "the authors' numbers, for a GPU.",
                    },
                ),
                "length": (
                    "FLOAT",
                    {
                        "default": 1.0, "min": 0.01, "max": 10.0, "step": 0.05, "round": False,
                        "tooltip": "How many steps, as a multiple of the preset's.",
                    },
                ),
                "guidance_scale": (
                    "FLOAT",
                    {
                        "default": 0.0, "min": 0.0, "max": 100.0, "step": 0.5, "round": False,
                        "tooltip": "How strongly the text is followed; 0: what the model is best with. The presets "
                        "take it in proportion where they ask more strongly.",
                    },
                ),
                **cls.own_inputs(),
                "seed": (
                    "INT",
                    {
                        "default": 0, "min": 0, "max": 2**32 - 1, "control_after_generate": True,
                        "tooltip": "Of poses, cameras and noise.",
                    },
                ),
            },
            "optional": {
                "motion": (
                    "AP3D_MOTION",
                    {"tooltip": "Poses to learn in, with gaze and lids drawn anew. Without: random ones."},
                ),
                "portrait_views": (
                    "AP3D_VIEWS",
                    {
                        "tooltip": "Views of the portrait that the avatar goes on looking like at rest; without them "
                        "colours drift.",
                    },
                ),
                "portrait_weight": (
                    "FLOAT",
                    {
                        "default": 10.0, "min": 0.01, "max": 1000.0, "step": 1.0, "round": False,
                        "tooltip": "How firmly it stays like them.",
                    },
                ),
                "background": (
                    "IMAGE",
                    {"tooltip": "Square; stands behind the avatar in all views, the portrait's own for instance. "
                                "Without: white."},
                ),
            },
        }  # fmt: skip

    @host.plain_torch
    def execute(
        self,
        avatar: RiggedAvatar,
        guidance: Guidance,
        prompts: Prompts,
        preset: str,
        length: float,
        guidance_scale: float,
        seed: int,
        motion: Motion | None = None,
        portrait_views: Views | None = None,
        portrait_weight: float = 10.0,
        background: Tensor | None = None,
        **own: Any,
    ) -> dict[str, Any]:
        from animportrait3d_core.optimization.anchor import Anchor
        from animportrait3d_core.optimization.dynamic import Staging, Workplace, before_and_after, optimize_regions
        from animportrait3d_core.optimization.presets import dynamic_stage
        from animportrait3d_core.render import gaussian_device

        passes = dynamic_stage(self.STAGE, preset, guidance_scale or guidance.guidance_scale, guidance.regions)
        passes = tuple(self.changed(one.longer(length), **own) for one in passes)
        count = sum(one.evaluations() for one in passes)
        cost = f"about {count:,} evaluations of the model"
        told = [cost, *host.warn(f"AP3D_{type(self).__name__}", [one.stand_in() for one in passes if one.stand_in()])]
        host.say(f"AP3D_{type(self).__name__}", cost)
        anchor = None if portrait_views is None else Anchor(portrait_views, portrait_weight)
        costs = {one.asking: one.evaluations() for one in passes}

        def bar(name: str) -> host.ProgressBar:
            return host.ProgressBar(told=name, evaluations=costs.get(name, 0))

        place = Workplace(host.runs_folder(), bar, gaussian_device(host.device_with_room()))
        poses = None if motion is None else motion.parameters
        behind = None if background is None else background[0, ..., :3]
        staging = Staging(poses, seed, anchor, behind)
        trained = optimize_regions(avatar, guidance, prompts, passes, staging, place)
        image = before_and_after(avatar, trained, passes[0])[None]
        return host.node_result(
            trained, image, ui={**host.preview_images(image, self.STAGE), "text": ["\n".join(told)]}
        )

    @staticmethod
    def own_inputs() -> dict[str, Any]:
        """What not all four have."""
        raise NotImplementedError

    @staticmethod
    def changed(one: RegionPass, **own: Any) -> RegionPass:
        """A pass with the node's own inputs."""
        raise NotImplementedError


class Distillation(DynamicStage):
    """The stages that follow the scores of the model."""

    @staticmethod
    def own_inputs() -> dict[str, Any]:
        """See `DynamicStage`."""
        return {
            "score_rule": (
                ["ism", "fast", "csd", "sds"],
                {
                    "default": "ism",
                    "tooltip": "ism: Interval Score Matching, the paper's. fast: its inversion in one step, half the "
                    "cost. csd, sds: the text alone, and the oldest rule.",
                },
            )
        }

    @staticmethod
    def changed(one: RegionPass, **own: Any) -> RegionPass:
        """See `DynamicStage`."""
        return one.with_score(rule=own["score_rule"])


class Editing(DynamicStage):
    """The stages that follow pictures which the model has edited."""

    @staticmethod
    def own_inputs() -> dict[str, Any]:
        """See `DynamicStage`."""
        from animportrait3d_core.diffusion.samplers import DDIM, SCHEDULERS

        return {
            "strength": (
                "FLOAT",
                {
                    "default": 0.0, "min": 0.0, "max": 1.0, "step": 0.05, "round": False,
                    "tooltip": "How much the model may change in its edits (denoise); 0: the stage's own, 0.9 for "
                    "eyes, 0.5 for the refinement (paper: 0.3).",
                },
            ),
            "steps": (
                "INT",
                {
                    "default": 0, "min": 0, "max": 1000,
                    "tooltip": "Of the sampler, with those that the strength leaves out; 0: the stage's own. Few for "
                    "models that are made for few.",
                },
            ),
            "scheduler": (list(SCHEDULERS), {"default": DDIM, "tooltip": "Of diffusers; LCM's wants 4 to 8 steps."}),
        }  # fmt: skip

    @staticmethod
    def changed(one: RegionPass, **own: Any) -> RegionPass:
        """See `DynamicStage`."""
        names = {"strength": "strength", "steps": "num_inference_steps"}
        chosen = {names[name]: own[name] for name in names if own[name]}
        return one.with_sampling(scheduler=own["scheduler"], **chosen)


class PretrainEyes(Editing):
    """Eyes and lids."""

    DESCRIPTION = (
        "Teaches the avatar its eyes: crops of them, open and closed, are edited by the model under the body's "
        "normals and labels, and lids and eyeballs follow (SDEdit; paper, section 3.2.2)."
    )
    SEARCH_ALIASES = ["SDEdit", "eyes", "eyelids", "blink", "avatar", "animate eyes"]
    STAGE = "eyes"


class PretrainMouth(Distillation):
    """Teeth, the mouth's inside and lips."""

    DESCRIPTION = (
        "Teaches the avatar its mouth, of which the static portrait shows nothing: crops of open mouths follow the "
        "model's scores under the body's normals and labels (Interval Score Matching; paper, section 3.2.2)."
    )
    SEARCH_ALIASES = ["ISM", "score distillation", "teeth", "mouth", "SDS", "avatar", "lips", "talking head"]
    STAGE = "mouth"


class ISMOptimize(Distillation):
    """The whole avatar."""

    DESCRIPTION = (
        "Works on the whole avatar in motion: face, eyes and mouth with the ControlNet, the whole picture without, "
        "all by Interval Score Matching (paper, section 3.2.3)."
    )
    SEARCH_ALIASES = [
        "ISM",
        "score distillation",
        "dynamic avatar optimization",
        "SDS",
        "avatar",
        "text to avatar",
        "optimize gaussians",
    ]
    STAGE = "full"


class SDEditRefine(Editing):
    """The last stage."""

    DESCRIPTION = (
        "Refines the avatar: pictures of it in motion are edited a little by the model, and the avatar "
        "follows them (paper, section 3.2.4)."
    )
    SEARCH_ALIASES = ["SDEdit", "refine", "img2img", "details", "avatar", "enhance"]
    STAGE = "refine"


NODE_CLASS_MAPPINGS = {
    "AP3D_PretrainEyes": PretrainEyes,
    "AP3D_PretrainMouth": PretrainMouth,
    "AP3D_ISMOptimize": ISMOptimize,
    "AP3D_SDEditRefine": SDEditRefine,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AP3D_PretrainEyes": "Pretrain Eyes",
    "AP3D_PretrainMouth": "Pretrain Mouth",
    "AP3D_ISMOptimize": "ISM Optimize",
    "AP3D_SDEditRefine": "SDEdit Refine",
}
