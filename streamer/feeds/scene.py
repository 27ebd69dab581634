"""Pictures of a road from a car, drawn from a pinhole camera's geometry.

A point X metres to the right of the camera's axis and Z metres ahead of it appears at x = centre + F * X / Z; the
road, H below the camera, at y = horizon + F * H / Z. A camera that does not look ahead is turned about the vertical.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageDraw

from streamer.feeds.scenario import BEHIND, OBSTACLES

WIDTH, HEIGHT = 320, 180  # pixels
QUALITY = 80
FOCAL = 210.0  # pixels
CAMERA_M = 1.4
HORIZON = 74.0  # pixels from the top
LANE_M = 3.5
NEAR_M, FAR_M = 2.8, 160.0
DASH_M, DASH_EVERY_M = 3.0, 9.0
TREES_M = 120.0  # along the road, after which the same trees come again
IN_SIGHT_M = 0.8  # a thing nearer to the camera's plane is not drawn

Colour = tuple[int, int, int]
Thing = tuple[float, float, str, int]  # how far ahead and how far to the right, m; what it is, and which of its kind


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
VANS: tuple[tuple[Colour, Colour], ...] = (  # body and band of emergency vehicles, in the order of scenario.SIRENS
    ((236, 236, 232), (222, 72, 36)),
    ((206, 212, 220), (28, 62, 158)),
    ((196, 28, 26), (238, 234, 226)),
)
BLUE, BLUE_OFF = (64, 112, 255), (24, 34, 84)
COATS: tuple[Colour, ...] = ((214, 84, 44), (58, 92, 170), (206, 190, 60), (150, 60, 130), (230, 230, 230))


class Scene:
    """The look of one drive through one camera.

    Args:
        seed: Of the drive: the same seed draws the same pictures.
        light: An index of ``scenario.LIGHTS``.
        yaw_deg: Where the camera looks, clockwise from ahead, 0 to 359.
        name: Written into each picture; empty: nothing is.
    """

    def __init__(self, seed: int, light: int, yaw_deg: int = 0, name: str = "") -> None:
        self._seed = seed
        self._name = name
        self._cos, self._sin = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
        self._grain = (seed, 61, yaw_deg) if yaw_deg else (seed, 5)
        # the stretch of road that the camera sees, from far behind to far ahead
        self._ahead, self._behind = yaw_deg != 180, yaw_deg != 0
        steps = np.geomspace(NEAR_M, FAR_M, 14)
        beside = [np.linspace(-NEAR_M, NEAR_M, 9)[1:-1]] if self._ahead and self._behind else []
        self._along = np.concatenate([-steps[::-1]] * self._behind + beside + [steps] * self._ahead)
        rng = np.random.default_rng((seed, 1))
        self._light = LOOK_OF_LIGHTS[light]
        self._trees = [
            (float(rng.uniform(0, 120)), float(side * rng.uniform(6.5, 14)), float(rng.uniform(3, 7)))
            for side in (-1.6, 1.0)
            for _ in range(9)
        ]
        self._backdrop = self._draw_backdrop(np.random.default_rng((seed, 62, yaw_deg)) if yaw_deg else rng)

    def frame(
        self,
        index: int,
        distance_m: float,
        curvature: float,
        obstacle: tuple[int, float] | None = None,
        follower: tuple[int, int, float] | None = None,
    ) -> bytes:
        """A JPEG of WIDTH x HEIGHT.

        Args:
            index: Of the frame in its drive; chooses its noise and passers-by.
            distance_m: Driven since the start.
            curvature: Of the road, -1 (left) to 1 (right).
            obstacle: Which one (``Segment.thing``) and how far ahead in metres; ``None`` if the lane is free.
            follower: An index of ``scenario.BEHIND``, which of its kind, and how far behind in metres.
        """
        picture = self._backdrop.copy()
        draw = ImageDraw.Draw(picture)
        bend = curvature * 0.0035
        self._draw_road(draw, distance_m, bend)
        things = self._roadside(distance_m, index) + self._traffic(index)
        if obstacle is not None and self._ahead:
            things.append(self._in_lane(*obstacle))
        if follower is not None and self._behind:
            things.append(self._in_pursuit(*follower))
        seen = [(*self._turned(ahead_m, right_m, bend), kind, which) for ahead_m, right_m, kind, which in things]
        for depth_m, across_m, kind, which in sorted(seen, reverse=True):
            if depth_m > IN_SIGHT_M:
                self._draw_thing(draw, depth_m, across_m, kind, which, index)
        if self._name:
            draw.text((4, HEIGHT - 14), self._name, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
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
        self._strip(draw, self._along, (-1.5 * LANE_M - 0.6, 0.5 * LANE_M + 0.6), bend, self._light.road)
        line = (228, 226, 214) if self._light.brightness > 0.75 else (170, 170, 160)
        for right_m in (-1.5 * LANE_M, 0.5 * LANE_M):
            self._strip(draw, self._along, (right_m - 0.08, right_m + 0.08), bend, line)
        first_m = -(distance_m % DASH_EVERY_M)
        for start_m in np.arange(first_m - 8 * DASH_EVERY_M * self._behind, 70 * self._ahead, DASH_EVERY_M):
            near, far = max(start_m, self._along[0]), min(start_m + DASH_M, self._along[-1])
            if far > near:
                self._strip(draw, np.array([near, far]), (-0.5 * LANE_M - 0.08, -0.5 * LANE_M + 0.08), bend, line)

    def _strip(
        self,
        draw: ImageDraw.ImageDraw,
        along_m: np.ndarray[tuple[int], np.dtype[np.float64]],
        borders_m: tuple[float, float],
        bend: float,
        fill: Colour,
    ) -> None:
        """Draw a strip of the ground along the road, between two distances from the lane's middle."""
        left, right = ([self._turned(float(at_m), border, bend) for at_m in along_m] for border in borders_m)
        outline = _in_sight(left + right[::-1])
        if outline:
            draw.polygon([_project(*point) for point in outline], fill=fill)

    def _turned(self, ahead_m: float, right_m: float, bend: float) -> tuple[float, float]:
        """A point of the road as seen from the car -> how far ahead of this camera and to the right of its axis."""
        right_m += bend * ahead_m**2
        return ahead_m * self._cos + right_m * self._sin, right_m * self._cos - ahead_m * self._sin

    def _roadside(self, distance_m: float, index: int) -> list[Thing]:
        things: list[Thing] = []
        for number, (at_m, right_m, _) in enumerate(self._trees):
            ahead_m = (at_m - distance_m) % TREES_M + NEAR_M
            things += [(at, right_m, "tree", number) for at in self._around(ahead_m)]
        if self._ahead:
            things += self._passers_by(np.random.default_rng((self._seed, 2, index // 25)), 1, "car")
        if self._behind:
            things += self._passers_by(np.random.default_rng((self._seed, 63, index // 25)), -1, "oncoming")
        return things

    def _around(self, ahead_m: float) -> list[float]:
        return [ahead_m] * self._ahead + [ahead_m - TREES_M] * self._behind

    def _passers_by(self, rng: np.random.Generator, sign: int, parked: str) -> list[Thing]:
        """They stay for some seconds: on the pavement a distraction, not in the way."""
        things: list[Thing] = []
        if rng.random() < 0.5:
            at_m, right_m = sign * float(rng.uniform(7, 20)), float(rng.uniform(3.4, 4.6))
            things.append((at_m, right_m, "pedestrian", int(rng.integers(5))))
        if rng.random() < 0.4:
            things.append((sign * float(rng.uniform(8, 22)), 3.6, parked, int(rng.integers(5))))
        return things

    def _traffic(self, index: int) -> list[Thing]:
        block, within = divmod(index, 40)
        rng = np.random.default_rng((self._seed, 3, block))
        if rng.random() < 0.5:
            return []
        ahead_m = float(rng.uniform(45, 70)) - within * float(rng.uniform(1.0, 1.8))
        kind = "oncoming" if ahead_m > 0 else "car"  # its front, then its back
        return [(ahead_m, -LANE_M, kind, int(rng.integers(5)))] if ahead_m > 4 or self._behind else []

    def _in_lane(self, which: int, ahead_m: float) -> Thing:
        right_m = np.random.default_rng((self._seed, 4, which)).uniform(-0.7, 0.7)
        return ahead_m, float(right_m), OBSTACLES[which % len(OBSTACLES)], which

    def _in_pursuit(self, what: int, which: int, away_m: float) -> Thing:
        right_m = np.random.default_rng((self._seed, 64, which)).uniform(-0.5, 0.5)
        return -away_m, float(right_m), "van" if BEHIND[what] == "emergency_vehicle" else "oncoming", which

    def _draw_thing(
        self, draw: ImageDraw.ImageDraw, depth_m: float, across_m: float, kind: str, which: int, index: int
    ) -> None:
        x, y = _project(depth_m, across_m)
        scale = FOCAL / depth_m  # pixels a metre
        if kind == "tree":
            high = self._trees[which][2] * scale
            draw.rectangle((x - 0.15 * scale, y - high * 0.5, x + 0.15 * scale, y), fill=self._dim((84, 62, 44)))
            draw.ellipse((x - high * 0.3, y - high, x + high * 0.3, y - high * 0.35), fill=self._dim((52, 98, 48)))
        elif kind in ("car", "oncoming"):
            self._draw_car(draw, x, y, scale, CAR_COLOURS[which % 5], oncoming=kind == "oncoming")
        elif kind == "van":
            self._draw_van(draw, x, y, scale, which, index)
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

    def _draw_van(self, draw: ImageDraw.ImageDraw, x: float, y: float, scale: float, which: int, index: int) -> None:
        """The front of an emergency vehicle; its two blue lights flash in turns."""
        half, high = 1.05 * scale, 2.4 * scale
        body, band = (self._dim(colour) for colour in VANS[which])
        draw.rectangle((x - half, y - high, x + half, y - 0.2 * scale), fill=body)
        draw.rectangle((x - half, y - high * 0.46, x + half, y - high * 0.36), fill=band)
        draw.rectangle((x - half * 0.86, y - high * 0.9, x + half * 0.86, y - high * 0.52), fill=(40, 50, 62))
        for side in (-1, 1):
            wheel, lamp = x + side * half * 0.78, x + side * half * 0.74
            draw.rectangle((wheel - 0.16 * scale, y - 0.3 * scale, wheel + 0.16 * scale, y), fill=(18, 18, 20))
            draw.rectangle(
                (lamp - 0.18 * scale, y - 0.8 * scale, lamp + 0.18 * scale, y - 0.58 * scale), fill=(250, 246, 214)
            )
            blue = BLUE if (side > 0) == (index // 2 % 2 > 0) else BLUE_OFF
            light = x + side * half * 0.55
            draw.rectangle((light - 0.34 * scale, y - high - 0.24 * scale, light + 0.34 * scale, y - high), fill=blue)

    def _dim(self, colour: Colour) -> Colour:
        red, green, blue = (int(channel * max(self._light.brightness, 0.55)) for channel in colour)
        return red, green, blue

    def _expose(self, picture: Image.Image, index: int) -> bytes:
        """Rain, sensor noise and the camera's exposure; then JPEG."""
        rng = np.random.default_rng((*self._grain, index))
        if self._light.rain:
            draw = ImageDraw.Draw(picture)
            for x, y in rng.uniform((0, 0), (WIDTH, HEIGHT), (40, 2)):
                draw.line((x, y, x - 2, y + 9), fill=(182, 188, 196))
        pixels = np.asarray(picture, dtype=np.int16)
        grain = rng.integers(-7, 8, (HEIGHT // 2, WIDTH // 2, 1), dtype=np.int16).repeat(2, 0).repeat(2, 1)
        exposed = np.clip(pixels * rng.uniform(0.9, 1.1) + grain, 0, 255).astype(np.uint8)
        encoded: bytes = simplejpeg.encode_jpeg(exposed, quality=QUALITY)
        return encoded


def _in_sight(outline: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The part of a polygon in front of the camera (Sutherland & Hodgman 1974); points are (depth, across)."""
    kept = []
    for (depth, across), (next_depth, next_across) in zip(outline, outline[1:] + outline[:1], strict=True):
        if depth > IN_SIGHT_M:
            kept.append((depth, across))
        if (depth > IN_SIGHT_M) != (next_depth > IN_SIGHT_M):
            share = (IN_SIGHT_M - depth) / (next_depth - depth)
            kept.append((IN_SIGHT_M, across + share * (next_across - across)))
    return kept


def _project(depth_m: float, across_m: float) -> tuple[float, float]:
    return WIDTH / 2 + FOCAL * across_m / depth_m, HORIZON + FOCAL * CAMERA_M / depth_m


def _person(draw: ImageDraw.ImageDraw, x: float, y: float, scale: float, coat: Colour) -> None:
    draw.rectangle((x - 0.2 * scale, y - 0.8 * scale, x - 0.03 * scale, y), fill=(38, 40, 54))
    draw.rectangle((x + 0.03 * scale, y - 0.8 * scale, x + 0.2 * scale, y), fill=(38, 40, 54))
    draw.rectangle((x - 0.28 * scale, y - 1.45 * scale, x + 0.28 * scale, y - 0.75 * scale), fill=coat)
    draw.ellipse((x - 0.15 * scale, y - 1.78 * scale, x + 0.15 * scale, y - 1.46 * scale), fill=(206, 164, 134))
