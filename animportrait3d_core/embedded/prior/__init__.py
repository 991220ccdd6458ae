"""How the embedded diffusion prior is made: its codec, its networks, its training and its evaluation.

What it is used with lives in `diffusion`, which knows nothing of the embedded world; the weights lie in
`embedded/weights/prior`, a pipeline folder of diffusers.
"""
