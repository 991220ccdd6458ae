"""Packages of a wheel: core under its name, and the pack's own folder (registration, nodes, graphs) as a package.

A clone needs none of this. Everything else is declared in pyproject.toml; this mapping cannot be.
"""

from setuptools import find_packages, setup

CORE = "animportrait3d_core"
PACK = "animportrait3d_pack"  # the name that animportrait3d_core.workflow.registry looks for

NODES = {f"{PACK}.{name}": name.replace(".", "/") for name in find_packages(include=["nodes", "nodes.*"])}

setup(
    packages=[*find_packages(include=[CORE, f"{CORE}.*"]), PACK, *NODES],
    package_dir={CORE: CORE, PACK: ".", **NODES},
    package_data={
        CORE: ["**/*.safetensors", "**/*.json", "**/*.npz", "**/*.html", "**/*.js", "**/*.txt"],
        PACK: ["workflows/*", "workflows/**/*", "web/*", "web/**/*"],
    },
)
