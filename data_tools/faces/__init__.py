"""One face a frame: MTCNN finds candidates, a path through them picks the person, a square is cut out."""

from data_tools.faces.crop import (
    DEFAULT_SIZE_PX,
    Detector,
    FaceCrops,
    centre_box,
    crop_each,
    crop_faces,
    cut_square,
    square_box,
)
from data_tools.faces.detector import Candidates, FaceDetector
from data_tools.faces.path import choose_path

__all__ = [
    "DEFAULT_SIZE_PX",
    "Candidates",
    "Detector",
    "FaceCrops",
    "FaceDetector",
    "centre_box",
    "choose_path",
    "crop_each",
    "crop_faces",
    "cut_square",
    "square_box",
]
