"""What is painted on: a picture and, beside it, whose each pixel is. Far things first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import NEAR_M, Floats, Picture, View, clip_near
from .light import Air, display, shade
from .mesh import Mesh

SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class Cover:
    """The pixels somebody owns: how many, and the box around them."""

    area_px: int
    box: tuple[float, float, float, float]


@dataclass(slots=True)
class Canvas:
    """`picture` (H, W, 3) uint8 BGR; `owner` (H, W) uint8, 0 where nobody; `air` lights everything painted."""

    view: View
    air: Air
    picture: Picture
    owner: Picture | None

    def paint_mesh(self, mesh: Mesh, *, owner: int, near_lamp: float, lamps: bool = True, mirror: bool = False) -> None:
        """Shade the faces that look at the eye and paint them far to near.

        `lamps` is whether the mesh's own lamps are on; `mirror` paints it upside down, below the ground.
        """
        points = mesh.points * (1, 1, -1) if mirror else mesh.points
        in_camera = self.view.to_camera(points)
        corners = mesh.points[mesh.quads]
        centres = corners.mean(1)
        normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        eye = self.view.position * (1, 1, -1) if mirror else self.view.position
        to_eye = eye - centres
        distance = np.linalg.norm(to_eye, axis=1)
        to_eye /= np.maximum(distance[:, None], 1e-9)
        facing = (normals * to_eye).sum(1)
        normals[mesh.thin & (facing < 0)] *= -1
        seen = ((facing > 0) | mesh.thin) & (in_camera[mesh.quads, 2].min(1) > NEAR_M)
        order = np.flatnonzero(seen)
        order = order[np.argsort(-(distance - mesh.bias_m)[order], kind="stable")]
        air = self.air if lamps else replace(self.air, lamps=0.0)
        radiance = shade(mesh.surface, normals, to_eye, air=air, near_lamp=near_lamp * self.air.lamps)
        low = np.clip(centres[:, 2:3] / 0.5, 0, 1)
        radiance = radiance * (0.55 + 0.45 * low)
        fog = self.air.fog(distance)[:, None]
        colours = display(radiance * (1 - fog) + self.air.horizon * fog)
        pixels = np.rint(self.view.to_pixels(in_camera) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        self._fill(pixels[mesh.quads[order]], colours[order], owner)

    def _fill(self, polygons: NDArray[np.int32], colours: Floats, owner: int) -> None:
        tones = colours.tolist()
        for polygon, tone in zip(polygons, tones, strict=True):
            cv2.fillConvexPoly(self.picture, polygon, tone, cv2.LINE_AA, SUBPIXEL_BITS)
        if self.owner is not None:
            for polygon in polygons:
                cv2.fillConvexPoly(self.owner, polygon, owner, cv2.LINE_8, SUBPIXEL_BITS)

    def cover(self, owner: int) -> Cover:
        """What an owner covers now; nothing where the canvas knows no owners."""
        if self.owner is None:
            return Cover(0, (0.0, 0.0, 0.0, 0.0))
        mask = cv2.compare(self.owner, owner, cv2.CMP_EQ)
        x, y, width, height = cv2.boundingRect(mask)
        return Cover(cv2.countNonZero(mask), (float(x), float(y), float(x + width), float(y + height)))

    def extent(self, mesh: Mesh) -> tuple[float, float, float, float] | None:
        """Pixel box around the whole mesh, not clipped to the picture; None where part of it is behind the eye."""
        in_camera = self.view.to_camera(mesh.points)
        if in_camera[:, 2].min() < NEAR_M:
            return None
        pixels = self.view.to_pixels(in_camera)
        (x1, y1), (x2, y2) = pixels.min(0), pixels.max(0)
        return float(x1), float(y1), float(x2), float(y2)

    def share_in_picture(self, mesh: Mesh) -> float:
        """How many of the mesh's points are in the picture, 0..1: for a mesh that is partly behind the eye."""
        in_camera = self.view.to_camera(mesh.points)
        pixels = self.view.to_pixels(in_camera)
        size = (self.view.lens.width, self.view.lens.height)
        return float(((in_camera[:, 2] >= NEAR_M) & (pixels >= 0).all(1) & (pixels < size).all(1)).mean())

    def paint_sheet(
        self, texture: Picture, glow: Picture, *, origin: Floats, u_axis: Floats, v_axis: Floats, light: Floats
    ) -> None:
        """Map a texture onto the parallelogram origin + u·u_axis + v·v_axis (u right, v down, 0..1).

        `light` is the linear light on it; `glow` (same shape) is added as far as the lamps are on.
        """
        corners = np.array([origin, origin + u_axis, origin + u_axis + v_axis, origin + v_axis])
        polygon = clip_near(self.view.to_camera(corners))
        if len(polygon) < 3:
            return
        outline = self.view.to_pixels(polygon)
        window = self._window(outline)
        if window is None:
            return
        x1, y1, x2, y2 = window
        small, glow_small = (
            self._resized(texture, outline),
            self._resized(glow, outline) if self.air.lamps > 0.02 else None,
        )
        distance = float(np.linalg.norm(polygon.mean(0)))
        fog = float(self.air.fog(np.array(distance)))
        tint = np.clip(light, 0, 1.6) ** (1 / 2.2)
        lit = small * tint
        if glow_small is not None:
            lit += glow_small * self.air.lamps
        haze = display(self.air.horizon)
        lit = np.clip(lit * (1 - fog) + haze * fog, 0, 255).astype(np.uint8)
        size = np.diag([1.0 / lit.shape[1], 1.0 / lit.shape[0], 1.0])
        move = np.array([[1, 0, -x1], [0, 1, -y1], [0, 0, 1.0]])
        homography = move @ self.view.plane_homography(origin, u_axis, v_axis) @ size
        patch = cv2.warpPerspective(
            lit, homography, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
        shifted = np.rint((outline - (x1, y1)) * 16).astype(np.int32)
        cv2.fillConvexPoly(mask, shifted, 255, cv2.LINE_AA, 4)
        self._blend(patch, mask, (x1, y1))

    def _resized(self, texture: Picture, outline: Floats) -> Picture:
        """The texture shrunk to about the size that it will be seen at, against aliasing."""
        extent = np.maximum(np.ptp(outline, axis=0), 2)
        width, height = (int(min(t, max(8, 1.3 * e))) for t, e in zip(texture.shape[1::-1], extent, strict=True))
        while texture.shape[0] >= 4 * height and texture.shape[1] >= 4 * width:
            texture = texture[::2, ::2]
        if (width, height) == texture.shape[1::-1]:
            return texture
        return np.asarray(cv2.resize(texture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def _window(self, outline: Floats) -> tuple[int, int, int, int] | None:
        """Whole pixels around the outline inside the picture; None where it is outside."""
        height, width = self.picture.shape[:2]
        x1, y1 = np.floor(outline.min(0)).astype(int) - 1
        x2, y2 = np.ceil(outline.max(0)).astype(int) + 2
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        return (int(x1), int(y1), int(x2), int(y2)) if x2 - x1 > 1 and y2 - y1 > 1 else None

    def _blend(self, patch: Picture, alpha: Picture, corner: tuple[int, int], *, owns: bool = True) -> None:
        x, y = corner
        height, width = alpha.shape
        region = self.picture[y : y + height, x : x + width]
        a = cv2.merge([alpha, alpha, alpha])
        over = cv2.multiply(patch, a, scale=1 / 255)
        under = cv2.multiply(region, cv2.bitwise_not(a), scale=1 / 255)
        cv2.add(over, under, dst=region)
        if owns and self.owner is not None:
            self.owner[y : y + height, x : x + width][alpha > 127] = 0

    def paint_sprite(self, sprite: Picture, *, foot: Floats, height_m: float, light: Floats) -> None:
        """A flat picture with alpha (H, W, 4) standing upright on `foot`, facing the eye."""
        in_camera = self.view.to_camera(foot[None])[0]
        if in_camera[2] < 2.0:
            return
        scale = self.view.lens.focal_px / in_camera[2]
        base = self.view.to_pixels(in_camera[None])[0]
        tall = height_m * scale
        wide = tall * sprite.shape[1] / sprite.shape[0]
        outline = np.array([[base[0] - wide / 2, base[1] - tall], [base[0] + wide / 2, base[1]]])
        window = self._window(outline)
        if window is None or tall < 3:
            return
        x1, y1, x2, y2 = window
        ratio = sprite.shape[0] / tall
        shrink = max(1, int(ratio))
        source = (
            sprite
            if shrink == 1
            else cv2.resize(sprite, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        )
        zoom = tall / source.shape[0]
        placing = np.array([[zoom, 0, outline[0, 0] - x1], [0, zoom, outline[0, 1] - y1]])
        patch = cv2.warpAffine(source, placing, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR)
        fog = float(self.air.fog(np.array(float(in_camera[2]))))
        tint = np.clip(light, 0, 1.6) ** (1 / 2.2)
        lit = np.clip(patch[..., :3] * (tint * (1 - fog)) + display(self.air.horizon) * fog, 0, 255).astype(np.uint8)
        self._blend(lit, np.ascontiguousarray(patch[..., 3]), (x1, y1))
