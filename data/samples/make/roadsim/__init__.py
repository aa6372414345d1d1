"""A seeded software renderer of a road drive: numpy and OpenCV only.

World frame: x along the road, y left, z up, metres (ISO 8855). Pictures are (H, W, 3) uint8 BGR.
`world` lays a street out, `actors` moves who is on it, `render` takes one exposure and says what is in it.
"""
