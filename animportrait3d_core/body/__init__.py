"""The parametric body: SMPL-X files, what is posed of them, and the fit to views of a portrait.

Here live the parameters (`parameters`), the reader that runs nothing in a file (`reader`), the project's own
additions to a body file (`assets`: head crop, eyelids, landmarks, regions, labels, teeth), the differentiable model
(`model`) and the multi-view fit (`fit`). Gaussians, triangle frames, cameras' images and the embedded mannequin do not:
the mannequin is only one more body file, and nothing here knows it.
"""
