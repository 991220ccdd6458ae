"""Runs ComfyUI graphs without ComfyUI, as the host does: worker thread, inference mode, outputs cached, never mutated.

Here: reading UI and API graphs, converting one to the other, validation, execution, the run report, and the builder
that writes the shipped graphs. Not here: anything about portraits; node classes are handed in as a registry
(`{"AP3D_X": class}`) and never imported.
"""
