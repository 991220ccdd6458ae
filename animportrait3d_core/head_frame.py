"""The head frame in numbers: where a head lies in the world, and where cameras look at it from.

y up, the face looks to +z, the subject's left is +x; one unit is three 3DPortraitGAN units. Cameras orbit the world
origin, not the point that they look at, as the authors' code does.
"""

from __future__ import annotations

HEAD_SCALE = 2.78
"""World units per metre of the SMPL-X template; upstream's FLAME starts at 2.7783."""
EYE_HEIGHT = 0.42
EYES_CENTER = (0.0, EYE_HEIGHT, 0.17)
"""Between the pupils."""

ORBIT_RADIUS = 2.65
LOOK_AT, FOV_DEGREES = (0.0, 0.228, 0.0), 30.0
"""Of the standard cameras: head and shoulders."""
FACE_CENTER, FACE_FOV_DEGREES = (0.0, 0.36, 0.15), 12.0
"""Of views of the face alone."""
CLOSE_TARGET, CLOSE_FOV_DEGREES = (0.0, 0.31, 0.1), 16.0
"""From the eyebrows down to an open jaw, also of a turned head."""
BUST_TARGET, BUST_FOV_DEGREES = (0.0, -0.12, 0.0), 42.0
"""Of views of the whole bust: the standard ones end above its lower rim."""

VIEW_BOTTOM, VIEW_RADIUS = -0.85, 1.3
"""What the standard cameras can see of a bust, with some slack: from which y upwards, how far from the y axis."""
