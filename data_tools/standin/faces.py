"""A portrait that moves: muscles -> smooth warps of the picture, a painted open mouth, and motion of the head.

Every muscle is a displacement field made of Gaussian bumps round the portrait's landmarks; a face is
their weighted sum. So the same weights give the same expression on every actor.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np

from data_tools.standin.portraits import HEIGHT_PX, WIDTH_PX, Portrait


@dataclass(frozen=True)
class Face:
    """Expression of a face at one moment. Lengths in portrait pixels (the eyes are 36 px apart); all 0 is neutral.

    corners: mouth corners up. wide: each corner outwards. skew: right corner up, left one down. open: gap between
    the lips. upper: upper lip up. brow_in, brow_out: inner and outer ends of both brows up. brow_near: inner ends
    together. lids: -1 closed to +1 wide open. teeth: 0 to 1, how much of the gap they fill.
    shift_x, shift_y: head right and down. roll: degrees clockwise. zoom: size of the head minus 1.
    """

    corners: float = 0.0
    wide: float = 0.0
    skew: float = 0.0
    open: float = 0.0
    upper: float = 0.0
    brow_in: float = 0.0
    brow_out: float = 0.0
    brow_near: float = 0.0
    lids: float = 0.0
    teeth: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    roll: float = 0.0
    zoom: float = 0.0

    def vector(self) -> np.ndarray:
        """(len(MUSCLES),) float64, in the order of `MUSCLES`."""
        return np.array([getattr(self, name) for name in MUSCLES], dtype=float)


MUSCLES = tuple(field.name for field in fields(Face))
_WARPS = MUSCLES[: MUSCLES.index("teeth")]
_INSIDE_RGB, _TEETH_RGB = (46, 16, 20), (232, 226, 214)


class Puppet:
    """Renders one actor. Only the face and a box round the head are computed: about a millisecond a picture."""

    def __init__(self, portrait: Portrait) -> None:
        self._still = portrait.pixels
        self._mouth, self._sag = portrait.mouth, portrait.lip_line_sag_px
        self._lips = portrait.lips
        self._rest = Face(corners=-portrait.smile_px, wide=-0.5 * abs(portrait.smile_px)).vector()
        eyes = portrait.eyes.mean(axis=0)
        left, right = round(eyes[0] - 56), round(eyes[0] + 56)
        top, bottom = round(eyes[1] - 48), round(portrait.chin[1] + 24)
        self._face_box = (slice(top, bottom), slice(left, right))
        self._face_grid = _grid(left, right, top, bottom)
        self._warps = np.stack([_warp(name, portrait, self._face_grid) for name in _WARPS])
        left, right = round(eyes[0] - 110), round(eyes[0] + 110)
        self._head_box = (slice(0, HEIGHT_PX), slice(max(left, 0), min(right, WIDTH_PX)))
        self._head_grid = _grid(max(left, 0), min(right, WIDTH_PX), 0, HEIGHT_PX)
        share = _head_share(self._head_grid, _beside(eyes, 0, 10))
        self._head_moved = np.concatenate([share * self._head_grid, share], axis=-1)  # (H, W, 3): share times x, y, 1
        self._neck = _beside(portrait.chin, 0, 12)

    def draw(self, face: np.ndarray) -> np.ndarray:
        """(HEIGHT_PX, WIDTH_PX, 3) uint8 RGB: the portrait with the face of a vector as `Face.vector` makes it."""
        face = face + self._rest
        flow = np.tensordot(face[: len(_WARPS)].astype(np.float32), self._warps, axes=1)
        picture = self._still.copy()
        picture[self._face_box] = _resampled(self._still, self._face_grid - flow, cv2.INTER_CUBIC)
        values = dict(zip(MUSCLES, face.tolist(), strict=True))
        if values["open"] > 0.5:
            self._paint_mouth(picture, flow, values)
        still_picture = picture.copy()
        source = self._head_grid + self._head_offset(values)
        picture[self._head_box] = _resampled(still_picture, source, cv2.INTER_LINEAR)
        return picture

    def _paint_mouth(self, picture: np.ndarray, flow: np.ndarray, values: dict[str, float]) -> None:
        """Paint an open mouth between the displaced corners: dark, teeth below the upper lip, lips round it."""
        left, right = self._displaced(self._mouth, flow)
        middle = (left + right) / 2
        rest = self._mouth.mean(axis=0)[1] + self._sag + 0.25 * (middle[1] - self._mouth.mean(axis=0)[1])
        across = np.linspace(-1, 1, 17)[:, None]
        bulge = (1 - across**2) ** 0.75
        line = middle + across * (right - left) / 2
        upper = line + bulge * [0, rest - middle[1] - values["upper"] - 0.4 * values["open"]]
        lower = line + bulge * [0, rest - middle[1] - 0.3 * values["upper"] + 0.6 * values["open"]]
        gap = [_fixed_point(np.concatenate([upper, lower[::-1]]))]
        cv2.polylines(picture, gap, True, self._lips, 3, cv2.LINE_AA, 4)
        cv2.fillPoly(picture, gap, _INSIDE_RGB, cv2.LINE_AA, 4)
        if values["teeth"] > 0:
            edge = upper + values["teeth"] * 0.8 * (lower - upper)
            inner = slice(2, -2)
            strip = np.concatenate([upper[inner], edge[inner][::-1]])
            cv2.fillPoly(picture, [_fixed_point(strip)], _TEETH_RGB, cv2.LINE_AA, 4)

    def _displaced(self, points: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """Places of points of the still picture after the warp, which is given at the place of arrival."""
        origin = self._face_grid[0, 0]
        moved = points
        for _ in range(6):
            column, row = np.round(moved - origin).astype(int).T
            moved = points + flow[np.clip(row, 0, flow.shape[0] - 1), np.clip(column, 0, flow.shape[1] - 1)]
        return moved

    def _head_offset(self, values: dict[str, float]) -> np.ndarray:
        """(H, W, 2) float32: from each pixel to where a rigidly moved head has it from, times its share."""
        angle, size = np.deg2rad(values["roll"]), 1 + values["zoom"]
        back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / size
        shift = self._neck - back @ _beside(self._neck, values["shift_x"], values["shift_y"])
        return cv2.transform(self._head_moved, np.column_stack([back - np.eye(2), shift]))


def _resampled(picture: np.ndarray, source: np.ndarray, interpolation: int) -> np.ndarray:
    """`picture` read at `source` (H, W, 2) float32; outside of it the nearest border pixel."""
    # OpenCV takes None for the second map where the first holds x and y; its type stubs do not know.
    return cv2.remap(picture, source, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _warp(name: str, portrait: Portrait, grid: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32: displacement of every pixel of the grid for one unit of a muscle."""
    if name == "lids":
        return sum((_lid(eye, grid) for eye in portrait.eyes), np.zeros_like(grid))
    bumps = _bumps(portrait)[name]
    return sum((_bump(grid, at, towards, spread) for at, towards, spread in bumps), np.zeros_like(grid))


def _bumps(portrait: Portrait) -> dict[str, list[tuple]]:
    """Muscle -> [(centre, displacement, spread (x, y))], everything in pixels."""
    left, right = portrait.mouth
    lips = _beside(portrait.mouth.mean(axis=0), 0, portrait.lip_line_sag_px)
    outer = [brow[:2].mean(axis=0) for brow in portrait.brows]
    inner = [brow[-1] for brow in portrait.brows]
    up, wide, tall = (0, -1), (9, 8), (8, 5)
    return {
        "corners": [
            (left, up, wide),
            (right, up, wide),
            (_beside(left, -4, -13), (0, -0.3), wide),
            (_beside(right, 4, -13), (0, -0.3), wide),
        ],
        "wide": [(left, (-1, 0), wide), (right, (1, 0), wide)],
        "skew": [(left, (0, 1), wide), (right, up, wide), (lips, (0.5, 0), (14, 8))],
        "open": [
            (_beside(lips, 0, -4), (0, -0.4), (13, 4)),
            (_beside(lips, 0, 7), (0, 0.55), (13, 5)),
            (_beside(portrait.chin, 0, -4), (0, 0.6), (18, 10)),
        ],
        "upper": [(_beside(lips, 0, -4), up, (11, 5)), (_beside(lips, 0, -16), (0, -0.4), (11, 5))],
        "brow_in": [(point, up, tall) for point in inner],
        "brow_out": [(point, up, tall) for point in outer],
        "brow_near": [(inner[0], (1, 0), tall), (inner[1], (-1, 0), tall)],
    }


def _bump(
    grid: np.ndarray, centre: np.ndarray, towards: tuple[float, float], spread: tuple[float, float]
) -> np.ndarray:
    away = (grid - np.asarray(centre, np.float32)) / np.array(spread, np.float32)
    return np.exp(-0.5 * (away**2).sum(axis=-1, keepdims=True)) * np.array(towards, np.float32)


def _lid(eye: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Opening stretches the picture up and down from the middle of the eye; closing squeezes it."""
    height = grid[..., 1] - np.float32(eye[1])
    near = _bump(grid, eye, (0, 1), (9, 5))[..., 1]
    return np.stack([np.zeros_like(height), 0.5 * height * near], axis=-1)


def _head_share(grid: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """(H, W, 1) float32: 1 on the head, falling smoothly to 0 round it, so that the wall and shoulders stay."""
    radius = np.linalg.norm((grid - middle.astype(np.float32)) / np.array([62, 78], np.float32), axis=-1)
    fall = np.clip((1.65 - radius) / 0.65, 0, 1)
    return (fall * fall * (3 - 2 * fall))[..., None].astype(np.float32)


def _beside(point: np.ndarray, right: float, down: float) -> np.ndarray:
    return point + np.array([right, down])


def _grid(left: int, right: int, top: int, bottom: int) -> np.ndarray:
    """(bottom - top, right - left, 2) float32: x and y of every pixel."""
    return np.stack(np.meshgrid(np.arange(left, right), np.arange(top, bottom)), axis=-1).astype(np.float32)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Points for OpenCV's drawing functions, with 4 fractional bits."""
    return np.round(points * 16).astype(np.int32)
