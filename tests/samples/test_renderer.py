from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("scripts_importable")


def small_frame(seed: int) -> tuple[np.ndarray, list]:
    from roadsim.ground import paint_ground
    from roadsim.render import expose
    from roadsim.scenes import MOUNTS, lens_for, random_air, random_scene
    from roadsim.street import lay_out

    street = lay_out(seed, length_m=160)
    scene = random_scene(street, paint_ground(street), seed)
    air, _, _ = random_air(seed)
    return expose(scene, lens_for(320), MOUNTS["front"], t_s=0.2, air=air)


def test_one_seed_gives_the_same_picture_and_labels_twice() -> None:
    (first, seen_first), (second, seen_second) = small_frame(7), small_frame(7)
    assert np.array_equal(first, second)
    assert seen_first == seen_second


def test_another_seed_gives_another_picture() -> None:
    assert not np.array_equal(small_frame(7)[0], small_frame(8)[0])


def test_what_stands_behind_a_truck_is_told_as_occluded() -> None:
    from roadsim.actors import Actor, Path
    from roadsim.ground import paint_ground
    from roadsim.light import day
    from roadsim.render import Scene, expose
    from roadsim.scenes import MOUNTS, lens_for
    from roadsim.street import lay_out

    street = lay_out(3, length_m=160)
    truck = Actor(1, "truck", Path.steady(20.0, -1.7, 0.0), "box")
    car = Actor(2, "car", Path.steady(29.0, -1.7, 0.0), "sedan")
    scene = Scene(street, paint_ground(street), (truck, car), Path.steady(0.0, -1.7, 0.0), 3)
    _, seen = expose(scene, lens_for(640), MOUNTS["front"], t_s=0.0, air=day(np.random.default_rng(1)), glances=1)
    occlusion = {one.track_id: one.occlusion for one in seen}
    assert occlusion[1] < 0.1
    assert occlusion[2] > 0.7


def test_seeds_of_the_recordings_are_never_trained_on() -> None:
    from roadsim.scenes import CALIBRATION_SEED, DRIVE_SEED, TRAINING_SEEDS

    assert DRIVE_SEED not in TRAINING_SEEDS
    assert CALIBRATION_SEED not in TRAINING_SEEDS
