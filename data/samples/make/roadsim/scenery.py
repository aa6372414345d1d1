"""Paints what stands still: sky, skyline, houses, trees, lamp posts, signs."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .camera import Floats, View
from .canvas import Canvas
from .light import Air, display, linear
from .mesh import Mesh, box, decal, joined, limb, plain
from .street import House, Street

SIGHT_M = 190.0
SKY_SHRINK = 4
FLIP_Z = np.array([1.0, 1.0, -1.0])


def paint_sky(canvas: Canvas, street: Street) -> None:
    """Gradient from horizon to zenith, clouds on a flat ceiling, the far skyline."""
    view, air = canvas.view, canvas.air
    height, width = canvas.picture.shape[:2]
    rows = int(np.clip(np.ceil(view.horizon_px + 2), SKY_SHRINK, height))
    small = (max(2, width // SKY_SHRINK), max(2, -(-rows // SKY_SHRINK)))
    right, down = np.meshgrid((np.arange(small[0]) + 0.5) * SKY_SHRINK, (np.arange(small[1]) + 0.5) * SKY_SHRINK)
    cx, cy = view.lens.centre_px
    rays = np.stack([(right - cx) / view.lens.focal_px, (down - cy) / view.lens.focal_px, np.ones_like(right)], -1)
    rays = (rays @ view.rotation).astype(np.float32)
    climb = np.clip(rays[..., 2] / np.linalg.norm(rays, axis=-1), 0.0, 1.0)
    blue = (1 - np.exp(-climb * 5.5))[..., None]
    colour = air.horizon * (1 - blue) + air.zenith * blue
    ceiling = rays[..., :2] / np.maximum(climb, 0.03)[..., None] * 42.0
    u, v = (np.mod(ceiling[..., i], 512).astype(np.float32) for i in (0, 1))
    field = cv2.remap(street.clouds.astype(np.float32), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    threshold = 1.1 - 1.9 * air.cloud_cover
    cover = 1 / (1 + np.exp(-(field - threshold) * 2.6)) * np.clip(climb * 9 - 0.15, 0, 1)
    cover = cover[..., None]
    thick = np.clip(1.04 - 0.10 * (field - threshold), 0.72, 1.05)[..., None]
    colour = colour * (1 - cover) + air.cloud * thick * cover
    picture = cv2.resize(
        display(colour).astype(np.float32), (width, small[1] * SKY_SHRINK), interpolation=cv2.INTER_LINEAR
    )
    canvas.picture[:rows] = np.clip(picture[:rows], 0, 255).astype(np.uint8)
    canvas.picture[rows:] = display(air.horizon).astype(np.uint8)
    _paint_skyline(canvas, street, view, air)


def _paint_skyline(canvas: Canvas, street: Street, view: View, air: Air) -> None:
    width = canvas.picture.shape[1]
    columns = np.arange(0, width + 8, 4)
    azimuth = view.yaw_rad - np.arctan((columns - view.lens.centre_px[0]) / view.lens.focal_px)
    bins = np.degrees(azimuth) * 2.0
    for share, lift in ((0.22, 1.0), (0.42, 0.55)):
        tall = np.interp(np.mod(bins + 90 * share, 360), np.arange(360), street.skyline) * lift
        top = view.horizon_px - tall * view.lens.focal_px
        outline = np.concatenate(
            [np.column_stack([columns, top]), [[width + 8, view.horizon_px + 2], [0, view.horizon_px + 2]]]
        )
        dark = air.sky_light * linear(96, 104, 112)
        haze = np.clip(1 - share - air.rain * 0.15, 0, 1)
        tone = display(dark * (1 - haze) + air.horizon * haze)
        cv2.fillPoly(canvas.picture, [np.rint(outline * 16).astype(np.int32)], tone.tolist(), cv2.LINE_AA, 4)


def paint_houses(canvas: Canvas, street: Street, *, mirror: bool = False) -> None:
    """Fronts and flanks, far to near."""
    eye = canvas.view.position
    near = []
    for house in street.houses:
        distance = min(np.linalg.norm(house.start[:2] - eye[:2]), np.linalg.norm(house.end[:2] - eye[:2]))
        ahead = max(canvas.view.to_camera(np.stack([house.start, house.end]))[:, 2])
        if distance < SIGHT_M and ahead > 0.5:
            near.append((float(distance), house))
    for _, house in sorted(near, key=lambda pair: -pair[0]):
        _paint_house(canvas, house, mirror=mirror)


def _paint_house(canvas: Canvas, house: House, *, mirror: bool) -> None:
    air, eye = canvas.air, canvas.view.position
    along = house.end - house.start
    out = np.array([-along[1], along[0], 0.0]) / np.linalg.norm(along) * house.side
    tall = np.array([0.0, 0.0, house.height_m])
    deep = out * house.depth_m
    flip = FLIP_Z if mirror else np.ones(3)
    sheets = []
    for corner, facing in ((house.start, -along), (house.end, along)):
        origin, across = (
            (corner, deep) if (facing @ np.array([1.0, 0, 0]) < 0) == (house.side < 0) else (corner + deep, -deep)
        )
        sheets.append((origin, across, facing / np.linalg.norm(facing), 0.9))
    front = (house.end, -along) if house.side < 0 else (house.start, along)
    sheets.append((*front, -out, 1.0))
    for origin, across, normal, gain in sheets:
        if (eye - origin) @ normal <= 0.05:
            continue
        light = air.sky_light * 0.62 + air.bounce * 0.5 + air.sun * max(float(normal @ air.sun_direction), 0.0)
        light = (light + air.lamps * 0.10 * linear(255, 206, 150)) * gain
        canvas.paint_sheet(
            house.front,
            house.glow,
            origin=(origin + tall) * flip,
            u_axis=across * flip,
            v_axis=-tall * flip,
            light=light,
        )


@lru_cache(maxsize=4)
def lamp_post(side: int) -> Mesh:
    """A street lamp whose arm reaches over the road (to -y for side 1)."""
    steel = linear(92, 96, 100)
    reach = -side * 1.7
    pole = limb(np.array([0, 0, 0.0]), np.array([0, 0, 6.8]), (0.085, 0.05), albedo=steel, sides=6)
    foot = limb(np.array([0, 0, 0.0]), np.array([0, 0, 0.9]), (0.12, 0.11), albedo=steel * 0.8, sides=6)
    arm = limb(np.array([0, 0, 6.8]), np.array([0, reach, 7.15]), (0.05, 0.04), albedo=steel, sides=5)
    low, high = sorted((reach, reach - side * 0.6))
    head = box((-0.13, low, 7.10), (0.13, high, 7.22), albedo=steel)
    pane = np.array([[-0.12, low, 7.09], [-0.12, high, 7.09], [0.12, high, 7.09], [0.12, low, 7.09]])
    light = decal(
        plain(pane, np.array([[0, 1, 2, 3]]), albedo=linear(230, 230, 225)),
        bias_m=0.3,
        glow=linear(255, 226, 178) * 3,
        thin=True,
    )
    return joined([foot, pole, arm, head, light])


@lru_cache(maxsize=2)
def crossing_sign() -> Mesh:
    """A blue square sign on a post, its face towards -x."""
    post = limb(np.array([0, 0, 0.0]), np.array([0, 0, 2.75]), (0.03, 0.03), albedo=linear(150, 152, 154), sides=5)
    parts = [post]

    def sheet(half: float, middle: float, colour: Floats, lift: float) -> Mesh:
        y = np.array([-half, half, half, -half])
        z = np.array([middle - half, middle - half, middle + half, middle + half])
        return decal(
            plain(np.column_stack([np.full(4, -0.04), y, z]), np.array([[3, 2, 1, 0]]), albedo=colour),
            bias_m=lift,
            thin=True,
        )

    parts += [sheet(0.34, 2.45, linear(235, 236, 238), 0.2), sheet(0.315, 2.45, linear(28, 74, 160), 0.3)]
    triangle = np.array([[-0.045, -0.24, 2.25], [-0.045, 0.24, 2.25], [-0.045, 0.0, 2.68], [-0.045, 0.0, 2.68]])
    parts.append(decal(plain(triangle, np.array([[3, 2, 1, 0]]), albedo=linear(240, 240, 240)), bias_m=0.4, thin=True))
    figure = np.array([[-0.05, -0.05, 2.29], [-0.05, 0.05, 2.29], [-0.05, 0.025, 2.52], [-0.05, -0.025, 2.52]])
    parts.append(decal(plain(figure, np.array([[3, 2, 1, 0]]), albedo=linear(24, 24, 28)), bias_m=0.5, thin=True))
    return joined(parts)
