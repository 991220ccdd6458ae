"""Segmentation: labels of the views by class, mattes of the views, and their vote on the faces of the portrait's mesh.

Here live class names and the class lists of well-known label sets, labels as a value, corrections painted by hand,
mattes, the face graph and face revoting (the paper's section 3.1). Not here: the networks that label pictures
(`networks`), what is done with the parts of a mesh (`rigging`), reading of files. Modules that need scipy import it
inside their functions.
"""

from .face_graph import FaceGraph, face_graph
from .label_sets import LABEL_SETS, class_of_name
from .labels import ViewLabels, labels_from_image, labels_from_numbers, labels_from_probabilities, with_hair
from .mattes import matte_views
from .painting import paint_labels, parse_view_indices
from .revote import FaceVotes, RevoteReport, RevoteSettings, revote_faces

__all__ = [
    "LABEL_SETS",
    "FaceGraph",
    "FaceVotes",
    "RevoteReport",
    "RevoteSettings",
    "ViewLabels",
    "class_of_name",
    "face_graph",
    "labels_from_numbers",
    "labels_from_image",
    "labels_from_probabilities",
    "matte_views",
    "paint_labels",
    "parse_view_indices",
    "revote_faces",
    "with_hair",
]
