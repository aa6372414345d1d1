"""A pinhole camera somewhere in the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]

NEAR_M = 0.35
PIXEL_LIMIT = 6000.0


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a camera sits: metres from the rear axle's middle on the ground; yaw left, pitch down positive."""

    x_m: float
    y_m: float
    z_m: float
    yaw_deg: float
    pitch_deg: float


@dataclass(frozen=True, slots=True)
class Lens:
    """Pinhole intrinsics of a `width` x `height` picture, without distortion."""

    width: int
    height: int
    focal_px: float

    @classmethod
    def from_hfov(cls, width: int, height: int, *, hfov_deg: float) -> Lens:
        """A lens of a horizontal angle of view."""
        return cls(width, height, width / 2 / float(np.tan(np.radians(hfov_deg) / 2)))

    @property
    def centre_px(self) -> tuple[float, float]:
        """The principal point: the picture's middle."""
        return self.width / 2, self.height / 2

    def matrix(self) -> Floats:
        """The 3x3 camera matrix."""
        cx, cy = self.centre_px
        return np.array([[self.focal_px, 0, cx], [0, self.focal_px, cy], [0, 0, 1.0]])


@dataclass(frozen=True, slots=True)
class View:
    """One camera at one instant: `rotation` rows are the camera's right, down and forward axes in the world."""

    lens: Lens
    position: Floats
    rotation: Floats
    yaw_rad: float
    pitch_rad: float

    @classmethod
    def look(cls, lens: Lens, position: Floats, *, yaw_rad: float, pitch_rad: float) -> View:
        """A view from a place, turned left by yaw and down by pitch."""
        cos_yaw, sin_yaw = np.cos(yaw_rad), np.sin(yaw_rad)
        cos_pitch, sin_pitch = np.cos(pitch_rad), np.sin(pitch_rad)
        forward = np.array([cos_yaw * cos_pitch, sin_yaw * cos_pitch, -sin_pitch])
        right = np.array([sin_yaw, -cos_yaw, 0.0])
        rotation = np.stack([right, np.cross(forward, right), forward])
        return cls(lens, position, rotation, yaw_rad, pitch_rad)

    @property
    def horizon_px(self) -> float:
        """The row of the horizon."""
        return self.lens.height / 2 - self.lens.focal_px * float(np.tan(self.pitch_rad))

    def to_camera(self, points: Floats) -> Floats:
        """World points (N, 3) in the camera's axes (right, down, forward), metres."""
        in_camera: Floats = (points - self.position) @ self.rotation.T
        return in_camera

    def to_pixels(self, in_camera: Floats) -> Floats:
        """Camera points (N, 3) to pixels (N, 2); depth is held at NEAR_M and pixels inside a sane range."""
        depth = np.maximum(in_camera[:, 2:3], NEAR_M)
        cx, cy = self.lens.centre_px
        pixels = in_camera[:, :2] / depth * self.lens.focal_px + (cx, cy)
        return np.clip(pixels, -PIXEL_LIMIT, PIXEL_LIMIT)

    def plane_homography(self, origin: Floats, u_axis: Floats, v_axis: Floats) -> Floats:
        """3x3 matrix: plane coordinates (u, v, 1) of origin + u·u_axis + v·v_axis to pixels."""
        columns = np.stack([u_axis, v_axis, origin - self.position], axis=1)
        return self.lens.matrix() @ self.rotation @ columns


def clip_near(in_camera: Floats) -> Floats:
    """A polygon (N, 3) in camera axes cut at the near plane (Sutherland-Hodgman against one plane)."""
    kept: list[Floats] = []
    for start, end in zip(in_camera, np.roll(in_camera, -1, axis=0), strict=True):
        if start[2] >= NEAR_M:
            kept.append(start)
        if (start[2] >= NEAR_M) != (end[2] >= NEAR_M):
            kept.append(start + (end - start) * (NEAR_M - start[2]) / (end[2] - start[2]))
    return np.array(kept).reshape(-1, 3)
