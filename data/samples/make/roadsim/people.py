"""Pedestrians and cyclists: limbs on joints that walk and pedal; x forward, origin on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Floats
from .light import linear
from .mesh import Mesh, band, decal, ellipsoid, joined, limb, stack

SKINS = [(238, 205, 180), (224, 180, 150), (190, 140, 108), (140, 96, 70), (92, 62, 46)]
HAIRS = [(32, 26, 24), (74, 50, 34), (150, 112, 66), (120, 116, 112), (20, 20, 22)]
TOPS = [
    (176, 40, 44), (36, 64, 120), (232, 230, 224), (40, 42, 46), (66, 104, 76), (216, 160, 48), (120, 128, 138),
    (88, 56, 104), (52, 128, 150), (190, 182, 166), (228, 108, 60),
]  # fmt: skip
TROUSERS = [(40, 48, 72), (34, 34, 38), (108, 98, 84), (70, 74, 80), (158, 146, 122), (56, 66, 96)]


@dataclass(frozen=True, slots=True)
class Looks:
    """One person's height and colours (linear BGR)."""

    height_m: float
    broad: float
    skin: Floats
    hair: Floats
    top: Floats
    trousers: Floats
    coat: bool
    bag: bool
    long_hair: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Looks:
        """Somebody drawn at random."""
        child = rng.random() < 0.08
        return cls(
            height_m=float(rng.uniform(1.15, 1.4) if child else rng.normal(1.72, 0.07)),
            broad=float(rng.uniform(0.9, 1.15)),
            skin=linear(*SKINS[rng.integers(len(SKINS))]),
            hair=linear(*HAIRS[rng.integers(len(HAIRS))]),
            top=linear(*TOPS[rng.integers(len(TOPS))]),
            trousers=linear(*TROUSERS[rng.integers(len(TROUSERS))]),
            coat=bool(rng.random() < 0.3),
            bag=bool(rng.random() < 0.35),
            long_hair=bool(rng.random() < 0.4),
        )


def _swing(origin: Floats, length_m: float, angle_rad: float) -> Floats:
    """Where a bone hanging from `origin` ends, swung forward by the angle."""
    return origin + length_m * np.array([np.sin(angle_rad), 0.0, -np.cos(angle_rad)])


def _walking_leg(hip: Floats, tall: float, phase: float, stride: float) -> tuple[Floats, Floats, Floats]:
    """Knee, ankle, toe of one leg."""
    thigh = stride * (0.46 * np.sin(phase) + 0.05)
    bend = stride * 0.70 * max(0.0, np.cos(phase + 0.5)) ** 1.5 + 0.10
    knee = _swing(hip, 0.245 * tall, thigh)
    ankle = _swing(knee, 0.235 * tall, thigh - bend)
    toe = ankle + np.array([0.11 * tall * np.cos(thigh - bend), 0.0, -0.025 * tall + 0.05 * np.sin(thigh - bend)])
    return knee, ankle, toe


def _torso(looks: Looks, base: Floats, lean: float, *, sides: int) -> list[Mesh]:
    tall, broad = looks.height_m, looks.broad
    rows = [
        (-0.03, 0.066, 0.088),
        (0.06, 0.060, 0.086),
        (0.14, 0.060, 0.080),
        (0.24, 0.068, 0.098),
        (0.30, 0.060, 0.108),
        (0.335, 0.030, 0.06),
        (0.345, 0.01, 0.015),
    ]
    sections = np.array(
        [
            [base[0] + lean * z * tall, base[1], base[2] + z * tall, a * tall * broad, b * tall * broad]
            for z, a, b in rows
        ]
    )
    parts = [stack(sections, albedo=looks.top, sides=sides)]
    if looks.coat:
        skirt = [(-0.22, 0.085, 0.10), (0.0, 0.074, 0.094), (0.10, 0.064, 0.088)]
        rows_below = np.array(
            [[base[0], base[1], base[2] + z * tall, a * tall * broad, b * tall * broad] for z, a, b in skirt]
        )
        parts.append(stack(rows_below, albedo=looks.top * 0.92, sides=sides))
    return parts


def _head(looks: Looks, neck: Floats, *, sides: int, helmet: bool = False) -> list[Mesh]:
    tall = looks.height_m
    centre = neck + np.array([0.012 * tall, 0.0, 0.085 * tall])
    parts = [
        limb(
            neck - (0, 0, 0.02 * tall),
            neck + np.array([0.005, 0, 0.05 * tall]),
            (0.03 * tall, 0.03 * tall),
            albedo=looks.skin,
            sides=max(4, sides - 4),
        )
    ]
    parts.append(ellipsoid(centre, (0.053 * tall, 0.045 * tall, 0.067 * tall), albedo=looks.skin, sides=sides))
    cover = linear(210, 60, 50) if helmet else looks.hair
    crown = centre + np.array([-0.020 * tall, 0.0, 0.024 * tall])
    parts.append(
        decal(
            ellipsoid(
                crown,
                (0.050 * tall, 0.050 * tall, 0.056 * tall),
                albedo=cover,
                sides=sides,
                gloss=0.3 if helmet else 0.0,
            ),
            bias_m=-0.01,
        )
    )
    if looks.long_hair and not helmet:
        back = centre + np.array([-0.035 * tall, 0.0, -0.04 * tall])
        parts.append(ellipsoid(back, (0.03 * tall, 0.048 * tall, 0.075 * tall), albedo=looks.hair, sides=sides))
    return parts


def _arm(looks: Looks, bones: tuple[Floats, Floats, Floats], *, sides: int) -> list[Mesh]:
    tall = looks.height_m
    shoulder, elbow, wrist = bones
    hand = wrist + (wrist - elbow) * 0.16
    return [
        limb(shoulder, elbow, (0.031 * tall, 0.025 * tall), albedo=looks.top * 0.93, sides=sides),
        limb(elbow, wrist, (0.025 * tall, 0.019 * tall), albedo=looks.top * 0.93, sides=sides),
        limb(wrist, hand, (0.019 * tall, 0.016 * tall), albedo=looks.skin, sides=max(4, sides - 3)),
    ]


def _leg(looks: Looks, joints: tuple[Floats, Floats, Floats, Floats], *, sides: int) -> list[Mesh]:
    tall = looks.height_m
    hip, knee, ankle, toe = joints
    return [
        limb(hip, knee, (0.050 * tall, 0.035 * tall), albedo=looks.trousers, sides=sides),
        limb(knee, ankle, (0.035 * tall, 0.024 * tall), albedo=looks.trousers, sides=sides),
        limb(ankle, toe, (0.024 * tall, 0.020 * tall), albedo=linear(46, 40, 38), sides=max(4, sides - 3)),
    ]


def pedestrian(looks: Looks, phase: float, stride: float, *, fine: bool) -> Mesh:
    """Somebody walking (`stride` 1) or standing (0), `phase` in radians of a whole double step."""
    tall, sides = looks.height_m, 8 if fine else 5
    bob = 0.012 * tall * stride * np.cos(2 * phase)
    pelvis = np.array([0.0, 0.0, 0.52 * tall + bob])
    neck = pelvis + np.array([0.03 * tall * stride, 0.0, 0.33 * tall])
    parts = _torso(looks, pelvis, 0.09 * stride, sides=sides + 2) + _head(looks, neck, sides=sides + 2)
    for side, turn in ((1, 0.0), (-1, np.pi)):
        hip = pelvis + np.array([0.0, side * 0.05 * tall, 0.0])
        parts += _leg(looks, (hip, *_walking_leg(hip, tall, phase + turn, stride)), sides=sides)
        shoulder = neck + np.array([-0.005 * tall, side * 0.112 * tall * looks.broad, -0.035 * tall])
        reach = -stride * 0.42 * np.sin(phase + turn)
        elbow = _swing(shoulder, 0.175 * tall, reach - 0.05) + np.array([0, side * 0.02, 0])
        wrist = _swing(elbow, 0.15 * tall, reach + 0.22 + 0.3 * stride * max(0.0, np.sin(-(phase + turn))))
        parts += _arm(looks, (shoulder, elbow, wrist), sides=sides)
    if looks.bag:
        middle = pelvis + np.array([-0.085 * tall, 0.0, 0.19 * tall])
        parts.append(
            ellipsoid(
                middle,
                (0.055 * tall, 0.075 * tall, 0.115 * tall),
                albedo=looks.trousers * 0.6 + looks.top * 0.15,
                sides=sides + 2,
            )
        )
    return joined(parts)


def _knee(hip: Floats, foot: Floats, bones_m: tuple[float, float]) -> Floats:
    """The joint between two bones that bends forward."""
    along = foot - hip
    reach = min(float(np.linalg.norm(along)), sum(bones_m) * 0.999)
    along = along / max(float(np.linalg.norm(along)), 1e-9)
    share = (bones_m[0] ** 2 - bones_m[1] ** 2 + reach**2) / (2 * reach)
    height = np.sqrt(max(bones_m[0] ** 2 - share**2, 0.0))
    forward = np.array([-along[2], 0.0, along[0]])
    forward = forward if forward[0] > 0 else -forward
    joint: Floats = hip + along * share + forward * height
    return joint


def _bicycle(paint: Floats, turn: float, *, fine: bool) -> list[Mesh]:
    """Wheels, frame and handlebar."""
    sides = 4 if not fine else 6
    steel, rubber = linear(150, 152, 156), linear(26, 26, 28)
    rear, front = np.array([-0.52, 0.0, 0.34]), np.array([0.54, 0.0, 0.34])
    crank, saddle, head = np.array([-0.08, 0, 0.29]), np.array([-0.24, 0, 0.92]), np.array([0.38, 0, 0.86])
    tubes = [(crank, saddle), (crank, head), (saddle, head), (rear, crank), (rear, saddle), (head, front)]
    parts = [limb(a, b, (0.02, 0.018), albedo=paint, sides=sides) for a, b in tubes]
    parts += [band(hub, (0.345, 0.30), albedo=rubber, sides=20 if fine else 10) for hub in (rear, front)]
    if fine:
        for hub in (rear, front):
            for spoke in np.arange(4) * np.pi / 4 + turn:
                out = np.array([np.cos(spoke), 0, np.sin(spoke)]) * 0.3
                parts.append(limb(hub - out, hub + out, (0.005, 0.005), albedo=steel, sides=4))
    bar = np.array([0.42, 0, 0.99])
    parts += [
        limb(head, bar, (0.016, 0.016), albedo=steel, sides=sides),
        limb(bar - (0, 0.26, 0), bar + np.array([0, 0.26, 0]), (0.015, 0.015), albedo=rubber, sides=sides),
    ]
    parts.append(ellipsoid(saddle + np.array([0, 0, 0.05]), (0.13, 0.07, 0.035), albedo=rubber, sides=6))
    lamp = ellipsoid(np.array([-0.34, 0, 0.72]), (0.03, 0.03, 0.03), albedo=linear(160, 20, 20), sides=6)
    return [*parts, decal(lamp, bias_m=0.1, glow=linear(255, 40, 28) * 2)]


def cyclist(looks: Looks, phase: float, *, fine: bool) -> Mesh:
    """Somebody riding; `phase` is the cranks' angle in radians."""
    tall, sides = min(looks.height_m, 1.85), 8 if fine else 5
    parts = _bicycle(looks.top[::-1] * 0.7 + 0.05, phase * 2.4, fine=fine)
    pelvis = np.array([-0.24, 0.0, 1.00])
    neck = pelvis + np.array([0.56, 0.0, 0.80]) / np.hypot(0.56, 0.80) * 0.32 * tall
    lean = float((neck - pelvis)[0] / (neck - pelvis)[2])
    parts += _torso(looks, pelvis, lean, sides=sides + 2)
    parts += _head(looks, neck, sides=sides + 2, helmet=not looks.long_hair)
    for side, turn in ((1, 0.0), (-1, np.pi)):
        hip = pelvis + np.array([0.0, side * 0.09, 0.0])
        angle = -(phase + turn)
        pedal = np.array([-0.08 + 0.17 * np.cos(angle), side * 0.11, 0.29 + 0.17 * np.sin(angle)])
        ankle = pedal + np.array([-0.06, 0.0, 0.09])
        knee = _knee(hip, ankle, (0.245 * tall, 0.25 * tall))
        parts += _leg(looks, (hip, knee, ankle, pedal + np.array([0.08, 0.0, 0.03])), sides=sides)
        shoulder = neck + np.array([-0.01, side * 0.11 * tall, -0.05])
        wrist = np.array([0.40, side * 0.24, 1.01])
        elbow = (shoulder + wrist) / 2 + (-0.03, side * 0.05, -0.07)
        parts += _arm(looks, (shoulder, elbow, wrist), sides=sides)
    return joined(parts)
