"""Pictures of a road through a windscreen, drawn from a pinhole camera's geometry.

A point X metres to the right of the lane's middle and Z metres ahead appears at x = centre + F * X / Z; the road, H
below the camera, at y = horizon + F * H / Z.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageDraw

from streamer.feeds.scenario import OBSTACLES

WIDTH, HEIGHT = 320, 180  # pixels
QUALITY = 80
FOCAL = 210.0  # pixels
CAMERA_M = 1.4
HORIZON = 74.0  # pixels from the top
LANE_M = 3.5
NEAR_M, FAR_M = 2.8, 160.0
DASH_M, DASH_EVERY_M = 3.0, 9.0

Colour = tuple[int, int, int]


class Light(NamedTuple):
    """How a time of day and a weather look."""

    sky_top: Colour
    sky_low: Colour
    ground: Colour
    road: Colour
    hills: Colour
    brightness: float
    rain: bool


LOOK_OF_LIGHTS = (  # in the order of scenario.LIGHTS
    Light((74, 134, 206), (188, 216, 240), (96, 140, 72), (92, 94, 98), (96, 124, 120), 1.0, False),
    Light((150, 158, 168), (206, 210, 214), (98, 118, 84), (86, 88, 92), (118, 128, 128), 0.95, False),
    Light((110, 118, 130), (160, 166, 172), (76, 96, 70), (66, 69, 75), (90, 98, 102), 0.85, True),
    Light((58, 52, 104), (244, 160, 104), (82, 84, 60), (70, 66, 72), (78, 62, 84), 0.85, False),
    Light((8, 10, 26), (24, 28, 52), (22, 30, 24), (44, 45, 52), (14, 16, 30), 0.7, False),
)
CAR_COLOURS: tuple[Colour, ...] = ((178, 40, 40), (44, 74, 150), (226, 226, 228), (58, 60, 64), (206, 164, 52))
COATS: tuple[Colour, ...] = ((214, 84, 44), (58, 92, 170), (206, 190, 60), (150, 60, 130), (230, 230, 230))


class Scene:
    """The look of one drive.

    Args:
        seed: Of the drive: the same seed draws the same pictures.
        light: An index of ``scenario.LIGHTS``.
    """

    def __init__(self, seed: int, light: int) -> None:
        self._seed = seed
        rng = np.random.default_rng((seed, 1))
        self._light = LOOK_OF_LIGHTS[light]
        self._trees = [
            (float(rng.uniform(0, 120)), float(side * rng.uniform(6.5, 14)), float(rng.uniform(3, 7)))
            for side in (-1.6, 1.0)
            for _ in range(9)
        ]
        self._backdrop = self._draw_backdrop(rng)

    def frame(self, index: int, distance_m: float, curvature: float, obstacle: tuple[int, float] | None) -> bytes:
        """A JPEG of WIDTH x HEIGHT.

        Args:
            index: Of the frame in its drive; chooses its noise and passers-by.
            distance_m: Driven since the start.
            curvature: Of the road, -1 (left) to 1 (right).
            obstacle: Which one (``Segment.thing``) and how far ahead in metres; ``None`` if the lane is free.
        """
        picture = self._backdrop.copy()
        draw = ImageDraw.Draw(picture)
        bend = curvature * 0.0035
        self._draw_road(draw, distance_m, bend)
        things = self._roadside(distance_m, index) + self._traffic(index)
        if obstacle is not None:
            things.append(self._in_lane(*obstacle))
        for ahead_m, right_m, kind, which in sorted(things, reverse=True):
            self._draw_thing(draw, ahead_m, right_m, kind, which, bend)
        return self._expose(picture, index)

    def _draw_backdrop(self, rng: np.random.Generator) -> Image.Image:
        light = self._light
        rows = np.clip(np.arange(HEIGHT) / HORIZON, 0, 1)[:, None]
        sky = (1 - rows) * np.array(light.sky_top) + rows * np.array(light.sky_low)
        pixels = np.repeat(sky[:, None, :], WIDTH, axis=1)
        pixels[int(HORIZON) :] = light.ground
        picture = Image.fromarray(pixels.astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        ridge = HORIZON - 6 - np.cumsum(rng.normal(0, 1.6, 17)).clip(-4, 16)
        points = [(i * WIDTH / 16, float(y)) for i, y in enumerate(ridge)]
        draw.polygon([(0, HORIZON), *points, (WIDTH, HORIZON)], fill=light.hills)
        for _ in range(int(rng.integers(0, 7))):
            left, wide, high = rng.uniform(0, WIDTH), rng.uniform(10, 30), rng.uniform(8, 30)
            shade = tuple(int(c * 0.8) for c in light.hills)
            draw.rectangle((left, HORIZON - high, left + wide, HORIZON), fill=shade)
        return picture

    def _draw_road(self, draw: ImageDraw.ImageDraw, distance_m: float, bend: float) -> None:
        depths = np.geomspace(NEAR_M, FAR_M, 14)
        draw.polygon(_strip(depths, -1.5 * LANE_M - 0.6, 0.5 * LANE_M + 0.6, bend), fill=self._light.road)
        line = (228, 226, 214) if self._light.brightness > 0.75 else (170, 170, 160)
        for right_m in (-1.5 * LANE_M, 0.5 * LANE_M):
            draw.polygon(_strip(depths, right_m - 0.08, right_m + 0.08, bend), fill=line)
        first_m = -(distance_m % DASH_EVERY_M)
        for start_m in np.arange(first_m, 70, DASH_EVERY_M):
            near, far = max(start_m, NEAR_M), start_m + DASH_M
            if far > near:
                dash = _strip(np.array([near, far]), -0.5 * LANE_M - 0.08, -0.5 * LANE_M + 0.08, bend)
                draw.polygon(dash, fill=line)

    def _roadside(self, distance_m: float, index: int) -> list[tuple[float, float, str, int]]:
        things = []
        for number, (at_m, right_m, _) in enumerate(self._trees):
            ahead_m = (at_m - distance_m) % 120 + NEAR_M
            things.append((ahead_m, right_m, "tree", number))
        rng = np.random.default_rng((self._seed, 2, index // 25))  # passers-by stay for some seconds
        if rng.random() < 0.5:  # on the pavement: a distraction, not in the way
            things.append((float(rng.uniform(7, 20)), float(rng.uniform(3.4, 4.6)), "pedestrian", int(rng.integers(5))))
        if rng.random() < 0.4:
            things.append((float(rng.uniform(8, 22)), 3.6, "car", int(rng.integers(5))))
        return things

    def _traffic(self, index: int) -> list[tuple[float, float, str, int]]:
        block, within = divmod(index, 40)
        rng = np.random.default_rng((self._seed, 3, block))
        if rng.random() < 0.5:
            return []
        ahead_m = float(rng.uniform(45, 70)) - within * float(rng.uniform(1.0, 1.8))
        return [(ahead_m, -LANE_M, "oncoming", int(rng.integers(5)))] if ahead_m > 4 else []

    def _in_lane(self, which: int, ahead_m: float) -> tuple[float, float, str, int]:
        right_m = np.random.default_rng((self._seed, 4, which)).uniform(-0.7, 0.7)
        return ahead_m, float(right_m), OBSTACLES[which % len(OBSTACLES)], which

    def _draw_thing(
        self, draw: ImageDraw.ImageDraw, ahead_m: float, right_m: float, kind: str, which: int, bend: float
    ) -> None:
        x, y = _project(ahead_m, right_m, bend)
        scale = FOCAL / ahead_m  # pixels a metre
        if kind == "tree":
            high = self._trees[which][2] * scale
            draw.rectangle((x - 0.15 * scale, y - high * 0.5, x + 0.15 * scale, y), fill=self._dim((84, 62, 44)))
            draw.ellipse((x - high * 0.3, y - high, x + high * 0.3, y - high * 0.35), fill=self._dim((52, 98, 48)))
        elif kind in ("car", "oncoming"):
            self._draw_car(draw, x, y, scale, CAR_COLOURS[which % 5], oncoming=kind == "oncoming")
        elif kind == "cyclist":
            for side in (-0.1, 0.1):
                draw.ellipse(
                    (x + (side - 0.07) * scale, y - 0.7 * scale, x + (side + 0.07) * scale, y), outline=(20,) * 3
                )
            _person(draw, x, y - 0.35 * scale, scale, COATS[which % 5])
        else:
            _person(draw, x, y, scale, COATS[which % 5])

    def _draw_car(
        self, draw: ImageDraw.ImageDraw, x: float, y: float, scale: float, paint: Colour, oncoming: bool
    ) -> None:
        half, high = 0.9 * scale, 1.45 * scale
        paint = self._dim(paint)
        draw.rectangle((x - half, y - high * 0.62, x + half, y - 0.15 * scale), fill=paint)
        roof = [(x - half * 0.85, y - high * 0.6), (x - half * 0.65, y - high), (x + half * 0.65, y - high)]
        draw.polygon([*roof, (x + half * 0.85, y - high * 0.6)], fill=paint)
        glass = [
            (x - half * 0.7, y - high * 0.64),
            (x - half * 0.56, y - high * 0.94),
            (x + half * 0.56, y - high * 0.94),
        ]
        draw.polygon([*glass, (x + half * 0.7, y - high * 0.64)], fill=(40, 50, 62))
        for side in (-1, 1):
            wheel = x + side * half * 0.75
            draw.rectangle((wheel - 0.14 * scale, y - 0.3 * scale, wheel + 0.14 * scale, y), fill=(18, 18, 20))
            lamp = x + side * half * 0.78
            shine = (250, 246, 214) if oncoming else (226, 34, 30)
            draw.rectangle((lamp - 0.16 * scale, y - 0.78 * scale, lamp + 0.16 * scale, y - 0.58 * scale), fill=shine)

    def _dim(self, colour: Colour) -> Colour:
        red, green, blue = (int(channel * max(self._light.brightness, 0.55)) for channel in colour)
        return red, green, blue

    def _expose(self, picture: Image.Image, index: int) -> bytes:
        """Rain, sensor noise and the camera's exposure; then JPEG."""
        rng = np.random.default_rng((self._seed, 5, index))
        if self._light.rain:
            draw = ImageDraw.Draw(picture)
            for x, y in rng.uniform((0, 0), (WIDTH, HEIGHT), (40, 2)):
                draw.line((x, y, x - 2, y + 9), fill=(182, 188, 196))
        pixels = np.asarray(picture, dtype=np.int16)
        grain = rng.integers(-7, 8, (HEIGHT // 2, WIDTH // 2, 1), dtype=np.int16).repeat(2, 0).repeat(2, 1)
        exposed = np.clip(pixels * rng.uniform(0.9, 1.1) + grain, 0, 255).astype(np.uint8)
        encoded: bytes = simplejpeg.encode_jpeg(exposed, quality=QUALITY)
        return encoded


def _project(ahead_m: float, right_m: float, bend: float) -> tuple[float, float]:
    x = WIDTH / 2 + FOCAL * (right_m + bend * ahead_m**2) / ahead_m
    return x, HORIZON + FOCAL * CAMERA_M / ahead_m


def _strip(
    depths: np.ndarray[tuple[int], np.dtype[np.float64]], left_m: float, right_m: float, bend: float
) -> list[tuple[float, float]]:
    """Outline of a strip of the ground between two distances from the lane's middle."""
    left = [_project(float(depth), left_m, bend) for depth in depths]
    return left + [_project(float(depth), right_m, bend) for depth in depths[::-1]]


def _person(draw: ImageDraw.ImageDraw, x: float, y: float, scale: float, coat: Colour) -> None:
    draw.rectangle((x - 0.2 * scale, y - 0.8 * scale, x - 0.03 * scale, y), fill=(38, 40, 54))
    draw.rectangle((x + 0.03 * scale, y - 0.8 * scale, x + 0.2 * scale, y), fill=(38, 40, 54))
    draw.rectangle((x - 0.28 * scale, y - 1.45 * scale, x + 0.28 * scale, y - 0.75 * scale), fill=coat)
    draw.ellipse((x - 0.15 * scale, y - 1.78 * scale, x + 0.15 * scale, y - 1.46 * scale), fill=(206, 164, 134))
