"""Light and weather as numbers that can be mixed, and how a surface answers them.

Radiance is linear with 1.0 = a white surface in full day; `display` turns it into picture values.
Colours are BGR. Products may be taken in display space, since a power law keeps products.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .camera import Floats

GAMMA = 2.2


def linear(*rgb: float) -> Floats:
    """Linear BGR radiance of an RGB colour given as 0–255 display values."""
    return (np.array(rgb[::-1], dtype=np.float64) / 255.0) ** GAMMA


def display(radiance: Floats) -> Floats:
    """0–255 display values of linear radiance, with a soft shoulder above 0.8."""
    soft = np.where(radiance > 0.8, 0.8 + 0.35 * (1 - np.exp(-(radiance - 0.8) / 0.35)), radiance)
    return 255.0 * np.clip(soft, 0.0, 1.0) ** (1 / GAMMA)


@dataclass(frozen=True, slots=True)
class Air:
    """Everything about light and weather of one instant; all fields mix linearly."""

    sun: Floats
    sun_direction: Floats
    sky_light: Floats
    bounce: Floats
    zenith: Floats
    horizon: Floats
    cloud: Floats
    cloud_cover: float
    fog_per_m: float
    lamps: float
    wet: float
    rain: float
    gain_noise: float

    def mixed(self, other: Air, *, share: float) -> Air:
        """This air with `share` (0..1) of the other."""
        values = {f.name: getattr(self, f.name) * (1 - share) + getattr(other, f.name) * share for f in fields(self)}
        values["sun_direction"] = values["sun_direction"] / np.linalg.norm(values["sun_direction"])
        return Air(**values)

    def fog(self, distance_m: Floats) -> Floats:
        """How much of the horizon's colour stands before something at that distance, 0..1."""
        share: Floats = 1.0 - np.exp(-self.fog_per_m * np.maximum(distance_m - 8.0, 0.0))
        return share


def direction(azimuth_deg: float, elevation_deg: float) -> Floats:
    """Unit vector towards a place in the sky."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])


def day(rng: np.random.Generator) -> Air:
    """Sun and a few clouds, or a bright overcast."""
    sunny = rng.uniform(0.35, 1.0)
    return Air(
        sun=linear(255, 244, 226) * 0.95 * sunny,
        sun_direction=direction(rng.uniform(-180, 180), rng.uniform(28, 55)),
        sky_light=linear(206, 218, 240) * (0.62 + 0.2 * (1 - sunny)),
        bounce=linear(140, 136, 128) * 0.5,
        zenith=linear(*(np.array([88, 138, 205]) * sunny + np.array([150, 160, 172]) * (1 - sunny))),
        horizon=linear(206, 220, 234),
        cloud=linear(248, 248, 250),
        cloud_cover=float(rng.uniform(0.3, 0.6) + 0.3 * (1 - sunny)),
        fog_per_m=float(rng.uniform(0.0016, 0.0035)),
        lamps=0.0,
        wet=0.0,
        rain=0.0,
        gain_noise=float(rng.uniform(0.5, 0.9)),
    )


def dusk(rng: np.random.Generator) -> Air:
    """After sunset: warm horizon, blue above, lamps on."""
    dark = rng.uniform(0.75, 1.15)
    return Air(
        sun=linear(255, 150, 90) * 0.03,
        sun_direction=direction(rng.uniform(-60, 60), 8),
        sky_light=linear(120, 138, 190) * 0.55 / dark,
        bounce=linear(110, 96, 90) * 0.15,
        zenith=linear(44, 62, 112) / dark,
        horizon=linear(222, 150, 112) * 0.85 / dark,
        cloud=linear(150, 108, 118),
        cloud_cover=float(rng.uniform(0.35, 0.6)),
        fog_per_m=float(rng.uniform(0.0025, 0.0045)),
        lamps=1.0,
        wet=0.0,
        rain=0.0,
        gain_noise=float(rng.uniform(1.4, 2.2)),
    )


def rain(rng: np.random.Generator) -> Air:
    """A grey day with rain: wet road, haze, dipped lights on."""
    grey = rng.uniform(0.85, 1.1)
    return Air(
        sun=linear(200, 205, 210) * 0.05,
        sun_direction=direction(rng.uniform(-180, 180), 50),
        sky_light=linear(188, 198, 210) * 0.62 * grey,
        bounce=linear(120, 124, 128) * 0.25,
        zenith=linear(128, 138, 150) * grey,
        horizon=linear(176, 184, 192) * grey,
        cloud=linear(150, 156, 164),
        cloud_cover=0.85,
        fog_per_m=float(rng.uniform(0.006, 0.011)),
        lamps=0.55,
        wet=1.0,
        rain=float(rng.uniform(0.6, 1.0)),
        gain_noise=float(rng.uniform(0.9, 1.5)),
    )


AIRS = {("day", "clear"): day, ("dusk", "clear"): dusk, ("day", "rain"): rain}


def rainy_dusk(rng: np.random.Generator) -> Air:
    """Rain after sunset: the wet road carries every lamp."""
    return rain(rng).mixed(dusk(rng), share=0.6)


AIRS["dusk", "rain"] = rainy_dusk


@dataclass(frozen=True, slots=True)
class Surface:
    """What the faces of a mesh are made of; arrays over faces: albedo (F, 3) linear, gloss (F,), glow (F, 3) linear."""

    albedo: Floats
    gloss: Floats
    glow: Floats


def shade(surface: Surface, normals: Floats, to_eye: Floats, *, air: Air, near_lamp: float) -> Floats:
    """Linear radiance (F, 3) of faces: sun, sky dome, bounce, mirrored sky, lamps.

    `near_lamp` is the street lamp light at the object, 1.0 right below a lit one.
    """
    up = normals[:, 2:3] * 0.5 + 0.5
    facing_sun = np.maximum(normals @ air.sun_direction, 0.0)[:, None]
    lamp = linear(255, 214, 160) * (0.5 * near_lamp)
    arriving = air.sun * facing_sun + air.sky_light * up + air.bounce * (1 - up) + lamp * (0.35 + 0.65 * up)
    cosine = np.clip((normals * to_eye).sum(1, keepdims=True), 0.02, 1.0)
    mirrored = 2 * cosine * normals - to_eye
    climb = mirrored[:, 2:3]
    sky = air.horizon + (air.zenith - air.horizon) * np.sqrt(np.clip(climb, 0, 1))
    around = np.where(climb > -0.02, sky, air.bounce * 0.5)
    gloss = surface.gloss[:, None]
    fresnel = gloss * (0.05 + 0.85 * (1 - cosine) ** 4)
    spark = gloss * np.clip((mirrored * air.sun_direction).sum(1, keepdims=True), 0, 1) ** 70
    glowing = surface.glow * (0.12 + air.lamps)
    radiance: Floats = surface.albedo * arriving + around * fresnel + 2.2 * air.sun * spark + glowing
    return radiance
