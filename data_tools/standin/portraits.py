"""Photographs -> actors' portraits: a head and shoulders before a wall, eyes at a known place, mouth closed.

Two public-domain photographs that scientific packages ship (scikit-image's `astronaut`, NASA; matplotlib's
`grace_hopper`, US Navy) are cut out along hand-measured outlines and put before a painted wall. Mirroring, proportions,
tint, brows and lips make several actors of each. They act here as puppets: nothing about the two people is meant.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import matplotlib.cbook
import numpy as np
from skimage import data as skimage_data
from skimage import io as skimage_io

WIDTH_PX, HEIGHT_PX = 350, 240
EYES_PX = (175.0, 98.0)  # the middle between the eyes in every portrait
EYE_DISTANCE_PX = 36.0  # makes faces of about 90 px, as in IEMOCAP's videos


@dataclass(frozen=True)
class Photograph:
    """Hand-measured points of a photograph, in its own pixels (x, y); left and right as seen in the picture."""

    eyes: tuple[tuple[float, float], tuple[float, float]]
    brows: tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]  # each from outside to inside
    mouth: tuple[tuple[float, float], tuple[float, float]]  # its corners
    lip_line_sag_px: float  # how far the line between the lips hangs below the line between the corners
    smile_px: float  # how far the corners stand above where a neutral mouth has them, in portrait pixels
    chin: tuple[float, float]
    outline: tuple[tuple[int, int], ...]


ASTRONAUT = Photograph(
    eyes=((202.5, 101.0), (247.0, 103.5)),
    brows=(((190, 91), (198, 88.5), (206, 90), (213, 93)), ((263, 96.5), (252, 92), (245, 92.5), (238, 94.5))),
    mouth=((203.0, 140.0), (245.0, 141.0)),
    lip_line_sag_px=3.2,
    smile_px=3.0,
    chin=(226.0, 177.0),
    outline=(
        *((160, 115), (156, 98), (153, 75), (160, 50), (185, 38), (203, 22), (235, 15), (265, 22), (290, 45)),
        *((301, 80), (298, 105), (285, 125), (274, 138), (267, 139), (262, 156), (257, 172), (275, 182), (295, 205)),
        *((304, 236), (325, 245), (343, 270), (355, 320), (365, 400), (365, 511), (20, 511), (25, 390), (40, 300)),
        *((60, 258), (100, 222), (116, 200), (121, 180), (133, 160), (150, 151), (180, 149), (183, 140), (176, 131)),
        *((170, 122), (172, 116)),
    ),
)
HOPPER = Photograph(
    eyes=((221.0, 189.0), (305.0, 186.5)),
    brows=(((196, 168), (207, 162), (220, 159), (238, 165)), ((340, 163), (327, 158), (313, 156), (291, 164))),
    mouth=((227.0, 280.5), (311.0, 280.0)),
    lip_line_sag_px=-6.5,
    smile_px=-1.5,
    chin=(268.0, 332.0),
    outline=(
        *((153, 130), (153, 103), (172, 86), (186, 55), (215, 42), (250, 24), (290, 28), (307, 42), (335, 55)),
        *((352, 84), (366, 88), (371, 140), (369, 178), (375, 192), (370, 230), (360, 265), (357, 298), (342, 307)),
        *((333, 318), (362, 340), (420, 365), (465, 382), (492, 398), (505, 430), (511, 470), (511, 599), (14, 599)),
        *((25, 480), (45, 395), (62, 380), (100, 364), (170, 345), (199, 325), (202, 308), (185, 292), (166, 277)),
        *((160, 245), (153, 212), (153, 190), (160, 170)),
    ),
)


@dataclass(frozen=True)
class Actor:
    """Recipe that turns a photograph into one person of the cast.

    stretch: (width, height) of the head, 1 as photographed. tint: factors of R, G, B. gamma: below 1 is brighter.
    brow, lips: RGB. brow_px: thickness.
    """

    photograph: Literal["astronaut", "hopper"]
    mirrored: bool
    stretch: tuple[float, float]
    tint: tuple[float, float, float]
    gamma: float
    brow: tuple[int, int, int]
    brow_px: float
    lips: tuple[int, int, int]
    wall: tuple[int, int, int]


@dataclass(frozen=True)
class Portrait:
    """An actor's still picture and where its features are, in pixels of the picture.

    pixels: (HEIGHT_PX, WIDTH_PX, 3) uint8 RGB. eyes (2, 2), brows (2, P, 2) from outside to inside, mouth (2, 2),
    chin (2,): float64 (x, y), left to right. lip_line_sag_px, smile_px: as in `Photograph`. lips: their colour, RGB.
    """

    pixels: np.ndarray
    eyes: np.ndarray
    brows: np.ndarray
    mouth: np.ndarray
    chin: np.ndarray
    lip_line_sag_px: float
    smile_px: float
    lips: tuple[int, int, int]


def make_portrait(actor: Actor) -> Portrait:
    """The actor's portrait; the same actor gives the same pixels."""
    photograph, pixels = _photograph(actor.photograph)
    to_portrait = _placement(photograph, actor)
    points = {
        "eyes": _sorted_by_x(_moved(np.array(photograph.eyes), to_portrait)),
        "brows": _moved(np.array(photograph.brows, dtype=float), to_portrait),
        "mouth": _sorted_by_x(_moved(np.array(photograph.mouth), to_portrait)),
        "chin": _moved(np.array(photograph.chin), to_portrait),
    }
    if actor.mirrored:
        points["brows"] = points["brows"][::-1]
    sag = photograph.lip_line_sag_px * to_portrait[1, 1]
    person, mask = _placed(pixels, photograph, to_portrait)
    shade = np.clip(person / 255.0, 0, 1) ** actor.gamma * np.array(actor.tint) * 255.0
    picture = mask * shade + (1 - mask) * _wall(actor.wall)
    picture = _painted_brows(picture, points["brows"], actor)
    picture = _painted_lips(picture, points["mouth"], sag, actor)
    left, right = points["mouth"]
    shown = picture[round((left[1] + right[1]) / 2 + sag + 3), round((left[0] + right[0]) / 2)]
    red, green, blue = (int(value) for value in np.clip(shown * 0.85, 0, 255))
    return Portrait(
        np.clip(np.round(picture), 0, 255).astype(np.uint8),
        **points,
        lip_line_sag_px=sag,
        smile_px=photograph.smile_px,
        lips=(red, green, blue),
    )


@cache
def _photograph(name: str) -> tuple[Photograph, np.ndarray]:
    if name == "astronaut":
        return ASTRONAUT, _mouth_closed(skimage_data.astronaut())
    file = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return HOPPER, skimage_io.imread(str(file))


def _mouth_closed(pixels: np.ndarray) -> np.ndarray:
    """The astronaut without her smile: the gap that shows the teeth is squeezed shut, column by column.

    An expression needs a neutral face to start from, and no smooth warp closes an open mouth.
    """
    (left_x, left_y), (right_x, right_y) = ASTRONAUT.mouth
    map_x, map_y = np.meshgrid(np.arange(pixels.shape[1], dtype=np.float32), np.arange(pixels.shape[0], dtype=float))
    for x in range(int(left_x), int(right_x) + 1):
        across = (2 * x - left_x - right_x) / (right_x - left_x)
        bulge = max(0.0, 1 - across**2)
        upper = left_y + (right_y - left_y) * (across + 1) / 2 + 0.7 * bulge
        lower = upper + 8.6 * bulge
        closed = upper + 0.35 * (lower - upper)
        there = np.array([0, upper - 13, closed - 0.35, closed + 0.35, lower + 22, pixels.shape[0]])
        source = np.array([0, upper - 13, upper - 0.3, lower + 0.4, lower + 22, pixels.shape[0]])
        map_y[:, x] = np.interp(map_y[:, x], there, source)
    return cv2.remap(pixels, map_x, map_y.astype(np.float32), cv2.INTER_CUBIC)


def _placement(photograph: Photograph, actor: Actor) -> np.ndarray:
    """(2, 3) affine map from photograph to portrait: upright eyes at EYES_PX, then stretched and mirrored."""
    (left_x, left_y), (right_x, right_y) = photograph.eyes
    scale = EYE_DISTANCE_PX / np.hypot(right_x - left_x, right_y - left_y)
    angle = -np.arctan2(right_y - left_y, right_x - left_x)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = np.diag(actor.stretch) @ turn
    if actor.mirrored:
        turn = np.diag([-1, 1]) @ turn
    middle = np.array([(left_x + right_x) / 2, (left_y + right_y) / 2])
    return np.column_stack([turn, np.array(EYES_PX) - turn @ middle])


def _placed(pixels: np.ndarray, photograph: Photograph, to_portrait: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The photograph in portrait pixels (float64), and a soft mask (H, W, 1) in [0, 1] of the person in it."""
    outline = np.zeros(pixels.shape[:2], np.uint8)
    cv2.fillPoly(outline, [np.array(photograph.outline, np.int32)], 255, cv2.LINE_AA)
    shrink = float(np.sqrt(abs(np.linalg.det(to_portrait[:, :2]))))
    blur = 0.45 / shrink  # a low pass before shrinking keeps thin lines from flickering once the head moves
    soft = cv2.GaussianBlur(pixels, (0, 0), blur)
    size = (WIDTH_PX, HEIGHT_PX)
    person = cv2.warpAffine(soft, to_portrait, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(cv2.GaussianBlur(outline, (0, 0), 1.2 / shrink), to_portrait, size, flags=cv2.INTER_LINEAR)
    return person.astype(float), np.clip((mask[..., None] / 255.0 - 0.55) / 0.4, 0, 1)


def _wall(colour: tuple[int, int, int]) -> np.ndarray:
    """(H, W, 3) float64: a lit wall, brighter at the top."""
    light = np.linspace(1.08, 0.82, HEIGHT_PX)[:, None, None]
    return np.clip(np.broadcast_to(np.array(colour) * light, (HEIGHT_PX, WIDTH_PX, 3)), 0, 255)


def _painted_brows(picture: np.ndarray, brows: np.ndarray, actor: Actor) -> np.ndarray:
    """Both brows drawn over what the photograph shows, so that they are equally visible on every actor."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    for brow in brows:
        cv2.polylines(mask, [_fixed_point(brow)], False, 255, max(1, round(actor.brow_px)), cv2.LINE_AA, shift=4)
    return _blended(picture, mask, actor.brow, strength=0.85, blur_px=0.7)


def _painted_lips(picture: np.ndarray, mouth: np.ndarray, sag: float, actor: Actor) -> np.ndarray:
    left, right = mouth
    across = np.linspace(-1, 1, 15)
    line = (left + right) / 2 + across[:, None] * (right - left) / 2
    line[:, 1] += sag * (1 - across**2)
    mask = np.zeros(picture.shape[:2], np.uint8)
    thickness = 2.6 * (1 - across**2)[:, None] * np.array([0, 1])
    cv2.fillPoly(mask, [_fixed_point(np.concatenate([line - thickness * 0.8, (line + thickness)[::-1]]))], 255, 16, 4)
    return _blended(picture, mask, actor.lips, strength=0.45, blur_px=0.6)


def _blended(
    picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], strength: float, blur_px: float
) -> np.ndarray:
    weight = cv2.GaussianBlur(mask, (0, 0), blur_px)[..., None] / 255.0 * strength
    return picture * (1 - weight) + np.array(colour) * weight


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Points for OpenCV's drawing functions with 4 fractional bits."""
    return np.round(points * 16).astype(np.int32)


def _moved(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return points @ affine[:, :2].T + affine[:, 2]


def _sorted_by_x(points: np.ndarray) -> np.ndarray:
    return points[np.argsort(points[:, 0])]
