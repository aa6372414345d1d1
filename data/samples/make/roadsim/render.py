"""One exposure of one camera: the picture, and what can be seen in it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .actors import Actor, Path, Placed
from .camera import Floats, Lens, Mount, Picture, View
from .canvas import Canvas, Cover
from .ground import Ground, beams, lit_map
from .ground import paint as paint_the_ground
from .light import Air, linear
from .mesh import Mesh
from .scenery import SIGHT_M, crossing_sign, lamp_post, paint_houses, paint_sky
from .street import Street
from .weather import drops_on_glass, through_lens

SHUTTER_S = 1 / 110
MIRROR_SHRINK = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A street, who is on it, and the way of the vehicle that carries the cameras."""

    street: Street
    ground: Ground
    actors: tuple[Actor, ...]
    ego: Path
    seed: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One labelled object; `box` is the whole object's outline clipped to the picture, pixels x1 y1 x2 y2."""

    track_id: int
    kind: str
    box: tuple[float, float, float, float]
    distance_m: float
    truncation: float
    occlusion: float


@dataclass(frozen=True, slots=True)
class _Shape:
    """An actor at one instant, ready to be painted."""

    actor: Actor
    place: Placed
    mesh: Mesh
    distance_m: float
    near_lamp: float


def expose(
    scene: Scene, lens: Lens, mount: Mount, *, t_s: float, air: Air, glances: int = 3, frame: int = 0
) -> tuple[Picture, list[Seen]]:
    """A picture with motion blur of `glances` (odd) instants across the shutter, and its labels at the middle one."""
    beam = _beams(scene, t_s) if air.lamps > 0.02 else None
    lit = lit_map(scene.ground, air, beam)
    total = np.zeros((lens.height, lens.width, 3), np.uint16)
    seen: list[Seen] = []
    for glance in range(glances):
        middle = glance == glances // 2
        t = t_s + ((glance + 0.5) / glances - 0.5) * SHUTTER_S
        view = camera_view(scene, lens, mount, t)
        owner = np.zeros((lens.height, lens.width), np.uint8) if middle else None
        canvas = Canvas(view, air, np.zeros((lens.height, lens.width, 3), np.uint8), owner)
        labels = _paint(canvas, scene, lit, t)
        seen = labels if middle else seen
        total += canvas.picture
    picture = (total // glances).astype(np.uint8)
    rng = np.random.default_rng([scene.seed, 3, frame, int(mount.yaw_deg < 0)])
    drops = drops_on_glass(scene.seed + int(mount.yaw_deg < 0), t_s, width=lens.width) if air.rain > 0.02 else None
    return through_lens(picture, air, rng, drops=drops), seen


def camera_view(scene: Scene, lens: Lens, mount: Mount, t_s: float) -> View:
    """The camera in the world, with a little of the road's unevenness."""
    s, left = scene.ego.at(t_s)
    x, y, heading = scene.street.course.at(s, left)
    ahead = np.array(scene.street.course.at(*scene.ego.at(t_s + 0.1))[:2])
    behind = np.array(scene.street.course.at(*scene.ego.at(t_s - 0.1))[:2])
    step = ahead - behind
    heading = float(np.arctan2(step[1], step[0])) if np.linalg.norm(step) > 0.05 else heading
    cos, sin = np.cos(heading), np.sin(heading)
    nod = np.radians(0.10) * np.sin(2.1 * s) * 0.5 + np.radians(0.07) * np.sin(0.63 * s + 1.0)
    lift = 0.006 * np.sin(1.7 * s)
    position = np.array(
        [x + mount.x_m * cos - mount.y_m * sin, y + mount.x_m * sin + mount.y_m * cos, mount.z_m + lift]
    )
    return View.look(
        lens,
        position,
        yaw_rad=heading + float(np.radians(mount.yaw_deg)),
        pitch_rad=float(np.radians(mount.pitch_deg) + nod),
    )


def _beams(scene: Scene, t_s: float) -> Floats:
    """Headlight pools of everybody who drives, the camera's own vehicle included."""
    s, left = scene.ego.at(t_s)
    x, y, heading = scene.street.course.at(s, left)
    cones = [(x + 3.4 * np.cos(heading), y + 3.4 * np.sin(heading), heading)]
    for actor in scene.actors:
        place = actor.placed(scene.street.course, t_s)
        if actor.kind in ("car", "truck") and actor.lamps:
            nose = actor.length_m / 2
            cones.append(
                (
                    place.x_m + nose * np.cos(place.heading_rad),
                    place.y_m + nose * np.sin(place.heading_rad),
                    place.heading_rad,
                )
            )
    return beams(scene.ground, cones)


def _paint(canvas: Canvas, scene: Scene, lit: Picture, t_s: float) -> list[Seen]:
    """Everything, far to near; the labels if the canvas knows owners."""
    shapes = _shapes(canvas, scene, t_s)
    paint_sky(canvas, scene.street)
    wet = paint_the_ground(scene.ground, canvas.view, canvas.air, lit, out=canvas.picture)
    _cast_shadows(canvas, shapes)
    if canvas.air.wet > 0.02:
        _mirror(canvas, scene, shapes, wet)
    paint_houses(canvas, scene.street)
    covers = _paint_standing(canvas, scene, shapes)
    return _labels(canvas, shapes, covers) if canvas.owner is not None else []


def _shapes(canvas: Canvas, scene: Scene, t_s: float) -> list[_Shape]:
    """Actors in front of the camera."""
    shapes = []
    for actor in scene.actors:
        place = actor.placed(scene.street.course, t_s)
        where = np.array([place.x_m, place.y_m, 0.8])
        in_camera = canvas.view.to_camera(where[None])[0]
        reach = actor.length_m
        if (
            in_camera[2] < -reach / 2 + 0.5
            or in_camera[2] > SIGHT_M
            or abs(in_camera[0]) > in_camera[2] * 1.0 + reach + 3
        ):
            continue
        distance = float(np.linalg.norm(where - canvas.view.position))
        shapes.append(
            _Shape(
                actor, place, actor.mesh(place, distance_m=distance), distance, _lamp_at(scene, place.x_m, place.y_m)
            )
        )
    return shapes


def _lamp_at(scene: Scene, x: float, y: float) -> float:
    column, row, _ = scene.ground.from_world(4.0) @ (x, y, 1.0)
    rows, columns = scene.ground.lamplight.shape
    return float(scene.ground.lamplight[int(np.clip(row, 0, rows - 1)), int(np.clip(column, 0, columns - 1))])


def _cast_shadows(canvas: Canvas, shapes: list[_Shape]) -> None:
    """Darken the ground below objects, and where they stand between it and the sun."""
    height, width = canvas.picture.shape[:2]
    contact, cast = np.zeros((height // 2, width // 2), np.uint8), np.zeros((height // 2, width // 2), np.uint8)
    sun = canvas.air.sun_direction
    strength = float(np.clip(canvas.air.sun.mean() * 1.1, 0, 0.62))
    for shape in shapes:
        if shape.distance_m > 80:
            continue
        points = shape.mesh.points
        low = points[points[:, 2] < 0.55] * (1, 1, 0)
        _flat_hull(canvas, contact, low)
        if strength > 0.05:
            _flat_hull(canvas, cast, points - points[:, 2:3] * (sun / sun[2]))
    dark = cv2.GaussianBlur(contact, (0, 0), 2.2).astype(np.float32) * (0.62 / 255)
    gain = 1 - dark
    if strength > 0.05:
        gain *= 1 - cv2.GaussianBlur(cast, (0, 0), 1.2).astype(np.float32) * (strength / 255)
    first = max(0, int(canvas.view.horizon_px))
    gain8 = cv2.resize((gain * 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)[first:]
    region = canvas.picture[first:]
    cv2.multiply(region, cv2.merge([gain8] * 3), dst=region, scale=1 / 255)


def _flat_hull(canvas: Canvas, mask: Picture, points: Floats) -> None:
    """Fill the outline of points on the ground into a mask of half the picture's size."""
    in_camera = canvas.view.to_camera(points)
    in_camera = in_camera[in_camera[:, 2] > 0.6]
    if len(in_camera) < 3:
        return
    pixels = np.rint(canvas.view.to_pixels(in_camera) * 8).astype(np.int32)
    cv2.fillConvexPoly(mask, cv2.convexHull(pixels), 255, cv2.LINE_AA, 4)


def _mirror(canvas: Canvas, scene: Scene, shapes: list[_Shape], wet: Picture) -> None:
    """Lay the upside-down world, smeared, over the wet ground; flat angles mirror most."""
    height, width = canvas.picture.shape[:2]
    lens = Lens(width // MIRROR_SHRINK, height // MIRROR_SHRINK, canvas.view.lens.focal_px / MIRROR_SHRINK)
    view = View(lens, canvas.view.position, canvas.view.rotation, canvas.view.yaw_rad, canvas.view.pitch_rad)
    below = Canvas(view, canvas.air, np.zeros((lens.height, lens.width, 3), np.uint8), None)
    paint_sky(below, scene.street)
    first = int(np.clip(view.horizon_px, 1, lens.height - 1))
    count = min(first, lens.height - first)
    below.picture[first : first + count] = below.picture[first - count : first][::-1]
    below.picture[first + count :] = below.picture[first + count - 1]
    paint_houses(below, scene.street, mirror=True)
    for shape in sorted(shapes, key=lambda s: -s.distance_m):
        below.paint_mesh(shape.mesh, owner=0, near_lamp=shape.near_lamp, lamps=shape.actor.lamps, mirror=True)
        _glow(below, shape, mirror=True)
    smeared = cv2.GaussianBlur(below.picture, (0, 0), sigmaX=1.3, sigmaY=5.5)
    smeared = cv2.resize(smeared, (width, height), interpolation=cv2.INTER_LINEAR)
    drop = np.maximum(np.arange(height) - canvas.view.horizon_px, 0.5) / canvas.view.lens.focal_px
    share = (0.16 + 0.78 * (1 - drop / np.hypot(1, drop)) ** 4) * canvas.air.wet
    alpha = cv2.multiply(wet, np.repeat((255 * share).astype(np.uint8)[:, None], width, 1), scale=1 / 255)
    alpha[: int(canvas.view.horizon_px) + 1] = 0
    a = cv2.merge([alpha] * 3)
    damp = cv2.merge([np.asarray(255 - np.minimum(wet, 110) * (0.75 * canvas.air.wet), np.uint8)] * 3)
    dry = cv2.multiply(cv2.multiply(canvas.picture, damp, scale=1 / 255), cv2.bitwise_not(a), scale=1 / 255)
    canvas.picture[:] = cv2.add(dry, cv2.multiply(smeared, a, scale=1 / 255))


def _paint_standing(canvas: Canvas, scene: Scene, shapes: list[_Shape]) -> list[Cover]:
    """Trees, posts, signs and actors far to near; per actor, what it covered when it was painted."""
    eye = canvas.view.position
    jobs: list[tuple[float, int, int]] = [(shape.distance_m, 0, i) for i, shape in enumerate(shapes)]
    street = scene.street
    jobs += [(float(np.linalg.norm(p.foot - eye)), 1, i) for i, p in enumerate(street.plants)]
    jobs += [(float(np.hypot(x - eye[0], y - eye[1])), 2, i) for i, (x, y, _) in enumerate(street.lamp_posts)]
    signs = [street.course.at(s, left) for s, left in street.signs]
    jobs += [(float(np.hypot(x - eye[0], y - eye[1])), 3, i) for i, (x, y, _) in enumerate(signs)]
    covers = [Cover(0, (0.0, 0.0, 0.0, 0.0))] * len(shapes)
    for distance, what, index in sorted(jobs, reverse=True):
        if distance > SIGHT_M:
            continue
        if what == 0:
            shape = shapes[index]
            canvas.paint_mesh(shape.mesh, owner=index + 1, near_lamp=shape.near_lamp, lamps=shape.actor.lamps)
            covers[index] = canvas.cover(index + 1)
            _glow(canvas, shape, mirror=False)
        elif what == 1:
            plant = street.plants[index]
            light = canvas.air.sky_light * 0.75 + canvas.air.bounce * 0.4 + canvas.air.sun * 0.5
            canvas.paint_sprite(street.sprites[plant.sprite], foot=plant.foot, height_m=plant.height_m, light=light)
        elif what == 2 and distance < 110:
            x, y, side = street.lamp_posts[index]
            canvas.paint_mesh(lamp_post(side).placed(x, y, heading_rad=0.0), owner=0, near_lamp=0.2)
            _lamp_glow(canvas, np.array([x, y - side * 2.0, 7.08]), 0.55, linear(255, 214, 160))
        elif what == 3 and distance < 90:
            x, y, heading = signs[index]
            canvas.paint_mesh(crossing_sign().placed(x, y, heading_rad=heading), owner=0, near_lamp=0.5)
    return covers


def _glow(canvas: Canvas, shape: _Shape, *, mirror: bool) -> None:
    """Halos of the lamps that look at the eye."""
    if canvas.air.lamps < 0.05 or shape.actor.kind not in ("car", "truck") or not shape.actor.lamps:
        return
    place, actor = shape.place, shape.actor
    ahead = np.array([np.cos(place.heading_rad), np.sin(place.heading_rad), 0.0])
    across = np.array([-ahead[1], ahead[0], 0.0])
    centre = np.array([place.x_m, place.y_m, 0.0])
    to_eye = canvas.view.position - centre
    cosine = float(to_eye @ ahead / np.linalg.norm(to_eye))
    wide, tall = (0.68, 0.72) if actor.kind == "car" else (0.95, 0.78)
    end = 1.0 if cosine > 0 else -1.0
    colour = linear(255, 240, 214) if cosine > 0 else linear(255, 44, 30) * 0.55
    strength = max(abs(cosine) - 0.35, 0) / 0.65
    for side in (-wide, wide):
        spot = centre + ahead * (end * actor.length_m / 2) + across * side + (0, 0, -tall if mirror else tall)
        _lamp_glow(canvas, spot, (0.62 if cosine > 0 else 0.34) * strength, colour)


def _lamp_glow(canvas: Canvas, spot: Floats, size_m: float, colour: Floats) -> None:
    """Add a soft round light; `size_m` is its radius where it has faded."""
    in_camera = canvas.view.to_camera(spot[None])[0]
    if in_camera[2] < 1.5 or canvas.air.lamps < 0.05 or size_m < 0.02:
        return
    x, y = canvas.view.to_pixels(in_camera[None])[0]
    radius = int(np.clip(size_m * canvas.view.lens.focal_px / in_camera[2] ** 0.8, 2, 160))
    height, width = canvas.picture.shape[:2]
    x1, y1, x2, y2 = int(x) - radius, int(y) - radius, int(x) + radius + 1, int(y) + radius + 1
    cx1, cy1, cx2, cy2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if cx2 <= cx1 or cy2 <= cy1:
        return
    v, u = np.mgrid[cy1:cy2, cx1:cx2]
    away = np.hypot(u - x, v - y) / radius
    fall = np.clip(1 - away, 0, 1) ** 2.6 * canvas.air.lamps
    fog = 0.35 + 0.65 * float(np.exp(-in_camera[2] * canvas.air.fog_per_m))
    light = (fall[..., None] * (245 * fog) * np.clip(colour, 0, 1) ** 0.45).astype(np.uint8)
    region = canvas.picture[cy1:cy2, cx1:cx2]
    cv2.add(region, light, dst=region)


def _labels(canvas: Canvas, shapes: list[_Shape], covers: list[Cover]) -> list[Seen]:
    """What of the actors is in the picture."""
    if canvas.owner is None:
        return []
    left_over = np.bincount(canvas.owner.ravel(), minlength=len(shapes) + 1)
    seen = []
    for index, (shape, cover) in enumerate(zip(shapes, covers, strict=True)):
        if cover.area_px == 0:
            continue
        box, truncation = _box(canvas, shape.mesh, cover)
        if box[2] > box[0] and box[3] > box[1]:
            occlusion = 1 - float(left_over[index + 1]) / cover.area_px
            actor = shape.actor
            seen.append(Seen(actor.track_id, actor.kind, box, shape.distance_m, truncation, occlusion))
    return seen


def _box(canvas: Canvas, mesh: Mesh, cover: Cover) -> tuple[tuple[float, float, float, float], float]:
    """The clipped box and how much of the object it leaves out; what is partly behind the eye takes its painted box."""
    extent = canvas.extent(mesh)
    if extent is None:
        return cover.box, 1 - canvas.share_in_picture(mesh)
    x1, y1, x2, y2 = extent
    height, width = canvas.picture.shape[:2]
    box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    return box, 1 - (box[2] - box[0]) * (box[3] - box[1]) / max((x2 - x1) * (y2 - y1), 1e-9)
