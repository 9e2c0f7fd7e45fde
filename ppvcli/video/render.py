"""Videos drawn by our own code: a figure of capsules doing one of ten actions in front of a wall. No footage.

`python -m ppvcli.video.render OUT.mp4 --action wave2` makes the sample clip of the wheel. Sizes, colours and rhythms
are close to those of the Weizmann set (180x144 at 25 fps, a person 66 pixels tall), so that a model trained on real
people knows what it sees; tests render whatever else they need.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ppvcli.errors import UnknownNameError, VideoError
from ppvcli.files import replacing

Frames = npt.NDArray[np.uint8]
Point = tuple[float, float]
Colour = tuple[int, int, int]

WIDTH, HEIGHT, FPS = 180, 144, 25
GROUND_Y = 112.0
OVERSAMPLING = 4
SHUTTER_S = 0.5 / FPS

# lengths in pixels of a figure 66 pixels tall
TORSO, NECK, HEAD_W, HEAD_H = 22.5, 7.0, 7.4, 9.6
UPPER_ARM, FOREARM, HAND = 11.5, 10.5, 3.8
THIGH, SHIN, FOOT = 15.0, 14.5, 5.0

JACKET: Colour = (60, 61, 72)
JACKET_FAR: Colour = (50, 51, 61)
TROUSERS: Colour = (40, 44, 47)
TROUSERS_FAR: Colour = (33, 36, 39)
SKIN: Colour = (172, 138, 122)
HAIR: Colour = (27, 24, 25)
SHOES: Colour = (28, 26, 29)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A figure at one moment. Angles in degrees from hanging straight down, each of its own segment, not of the joint.

    Seen from the front, positive is outwards; from the side, positive is the way the figure faces.
    """

    x: float
    """Of the hips, in pixels."""
    front: bool
    arms: tuple[tuple[float, float], tuple[float, float]]
    """(upper arm, forearm) of the arm on the viewer's left and right, or the far and the near one."""
    legs: tuple[tuple[float, float], tuple[float, float]]
    """(thigh, shin), likewise."""
    facing: int = -1
    """Side view: -1 looks left, 1 right."""
    lean: float = 0.0
    """Of the trunk, forward, in degrees."""
    lift: float = 0.0
    """Of the lowest foot above the ground, in pixels."""
    leg_scale: float = 1.0
    """Front view: legs look shorter when the knees bend towards the viewer."""


def render_action(action: str, *, num_frames: int = 48, seed: int = 0) -> Frames:
    """A figure doing `action` for `num_frames` at 25 fps: uint8 [T, 144, 180, 3] RGB; `seed` makes wall and noise.

    Raises:
        UnknownNameError: `action` is none of `ACTIONS`.
    """
    if action not in ACTIONS:
        raise UnknownNameError("action", action, ACTIONS, hint=f"use one of: {', '.join(ACTIONS)}")
    rng = np.random.default_rng(seed)
    wall = _background(rng)
    frames = np.empty((num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index in range(num_frames):
        moments = (index / FPS, index / FPS + SHUTTER_S)
        exposures = [_draw(wall, ACTIONS[action](moment)) for moment in moments]
        frame = np.mean(exposures, axis=0) + rng.normal(0, 1.2, size=(HEIGHT, WIDTH, 1))
        frames[index] = np.clip(frame, 0, 255)
    return frames


def write_video(
    path: str | Path,
    frames_thwc: Frames,
    *,
    fps: int | Fraction = FPS,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: Mapping[str, str] | None = None,
) -> None:
    """Encodes uint8 RGB frames into the container that the suffix of `path` names; the file appears once complete.

    Raises:
        VideoError: FFmpeg has no such encoder or container, or refuses the frame size.
    """
    path = Path(path)
    height, width = frames_thwc.shape[1:3]
    try:
        with replacing(path) as temporary, av.open(str(temporary.absolute()), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(fps), options=dict(options or {}))
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            stream.codec_context.thread_count = 1
            for frame_hwc in frames_thwc:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_hwc), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"can't write {path} with {codec}: {error}", hint="choose another codec or suffix") from error


def _swing(t: float, period: float) -> float:
    """0 at the start, 1 half a period later, 0 again, smoothly."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * t / period)


def _across(t: float, start: float, speed: float) -> float:
    """A path at `speed` pixels a second that re-enters on the other side."""
    margin = 20
    return (start + speed * t + margin) % (WIDTH + 2 * margin) - margin


def _wave1(t: float) -> Pose:
    up = _swing(t, 1.12)
    return Pose(x=62, front=True, arms=((100 + 70 * up, 97 + 118 * up), (5, 2)), legs=((1, 1), (1, 1)))


def _wave2(t: float) -> Pose:
    up = _swing(t, 1.2)
    arm = (92 + 72 * up, 92 + 122 * up)
    return Pose(x=62, front=True, arms=(arm, arm), legs=((1, 1), (1, 1)))


def _jack(t: float) -> Pose:
    up = _swing(t, 1.16)
    arm, leg = (8 + 160 * up, 6 + 172 * up), (1 + 15 * up, 1 + 17 * up)
    return Pose(x=62, front=True, arms=(arm, arm), legs=(leg, leg), lift=5 * math.sin(math.pi * up) ** 2)


def _pjump(t: float) -> Pose:
    phase = t / 0.72 % 1
    air = max(0.0, (phase - 0.4) / 0.6)
    crouch = max(0.0, math.sin(math.pi * phase / 0.4)) if phase < 0.4 else 0.0
    arm, leg = (14 - 4 * air, 6 + 6 * crouch), (2, 1)
    lift = 44 * air * (1 - air)
    return Pose(x=62, front=True, arms=(arm, arm), legs=(leg, leg), lift=lift, leg_scale=1 - 0.24 * crouch)


def _side(t: float) -> Pose:
    apart = _swing(t, 0.6)
    leg = (1 + 19 * apart, 1 + 21 * apart)
    x = _across(t, 142, -44)
    return Pose(x=x, front=True, arms=((14, 8), (14, 8)), legs=(leg, leg), lift=3 * (1 - apart) ** 2)


def _bend(t: float) -> Pose:
    down = _swing(t, 2.3)
    arm = (8 + 14 * down, 22 - 12 * down)
    leg = (4 * down, -7 * down)
    return Pose(x=72, front=False, arms=(arm, (arm[0] - 5, arm[1] - 6)), legs=(leg, leg), lean=104 * down)


def _stride(turn: float, *, reach: float, bend: float, centre: float) -> tuple[float, float]:
    """Thigh and shin of one leg of a gait at `turn` of its cycle: the knee folds while the leg swings forward."""
    phase = 2 * math.pi * turn
    thigh = centre + reach * math.sin(phase)
    fold = max(0.0, math.cos(phase + 0.5)) ** 1.5
    return thigh, thigh - 5 - bend * fold


def _walk(t: float) -> Pose:
    turn = t / 1.12 + 0.2
    legs = (_stride(turn, reach=23, bend=42, centre=1), _stride(turn + 0.5, reach=23, bend=42, centre=1))
    swing = 20 * math.sin(2 * math.pi * turn)
    arms = ((-swing, 14 - swing), (swing, 14 + swing))
    return Pose(x=_across(t, 152, -51), front=False, arms=arms, legs=legs, lean=3)


def _run(t: float) -> Pose:
    turn = t / 0.66 + 0.2
    legs = (_stride(turn, reach=33, bend=78, centre=6), _stride(turn + 0.5, reach=33, bend=78, centre=6))
    swing = 26 * math.sin(2 * math.pi * turn)
    lift = 3 * math.sin(2 * math.pi * turn) ** 2
    arms = ((-swing - 12, 48 - swing), (swing - 12, 48 + swing))
    return Pose(x=_across(t, 150, -88), front=False, arms=arms, legs=legs, lean=8, lift=lift)


def _skip(t: float) -> Pose:
    phase = t / 0.44 % 1
    air = math.sin(math.pi * phase)
    legs = ((4 + 8 * air, -74 + 10 * air), (6 - 18 * (phase - 0.2), -8 - 20 * (1 - air)))
    arms = ((-10 + 14 * air, 48 + 14 * air), (-16 + 14 * air, 42 + 14 * air))
    return Pose(x=_across(t, 142, -64), front=False, arms=arms, legs=legs, lean=4, lift=5 * air)


def _jump(t: float) -> Pose:
    phase = t / 0.48 % 1
    air = max(0.0, math.sin(math.pi * (phase - 0.25) / 0.75)) if phase > 0.25 else 0.0
    crouch = math.sin(math.pi * phase / 0.25) if phase < 0.25 else 0.0
    leg = (6 + 14 * crouch - 4 * air, -10 - 12 * crouch - 16 * air)
    arms = ((-6 + 10 * air, 56 + 8 * air), (-12 + 10 * air, 50 + 8 * air))
    x = _across(t, 40, 58)
    return Pose(x=x, front=False, facing=1, arms=arms, legs=(leg, leg), lean=4 + 6 * crouch, lift=6 * air)


ACTIONS: dict[str, Callable[[float], Pose]] = {
    "bend": _bend,
    "jack": _jack,
    "jump": _jump,
    "pjump": _pjump,
    "run": _run,
    "side": _side,
    "skip": _skip,
    "walk": _walk,
    "wave1": _wave1,
    "wave2": _wave2,
}
"""Action -> the pose at a time in seconds."""


def _background(rng: np.random.Generator) -> Image.Image:
    """A slab wall, lighter above, over a pavement and a road, with a dark door at the right edge; oversampled."""
    size = (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING)
    image = Image.new("RGB", size, (160, 161, 164))
    draw = ImageDraw.Draw(image)

    def block(left: float, top: float, right: float, bottom: float, colour: tuple[float, ...]) -> None:
        corners = [round(value * OVERSAMPLING) for value in (left, top, right, bottom)]
        draw.rectangle(corners, fill=(round(colour[0]), round(colour[1]), round(colour[2])))

    for column in range(0, WIDTH, 5):
        edge = rng.uniform(58, 76)
        top = -rng.uniform(0, 14)
        while top < 110:
            base = (162, 163, 165) if top < edge else (141, 137, 138)
            shade = rng.normal(0, 5)
            bottom = top + rng.uniform(9, 16)
            block(column, top, column + 4.7, bottom, tuple(value + shade for value in base))
            top = bottom + 0.3
    block(0, 110, WIDTH, 119, (91, 83, 94))
    block(0, 119, WIDTH, 122, (104, 107, 122))
    block(0, 122, WIDTH, 128, (80, 81, 94))
    block(0, 128, WIDTH, HEIGHT, (72, 72, 82))
    block(167, 0, WIDTH, 45, (38, 52, 54))
    return image


def _draw(background: Image.Image, pose: Pose) -> npt.NDArray[np.float64]:
    """One sharp frame: float64 [144, 180, 3], antialiased by oversampling."""
    image = background.copy()
    draw = ImageDraw.Draw(image)
    hips, offsets, facing = _place(pose)
    lean = math.radians(pose.lean) * (0 if pose.front else 1)
    chest = (hips[0] + facing * TORSO * math.sin(lean), hips[1] - TORSO * math.cos(lean))
    shadow = [(hips[0] - 9, GROUND_Y - 1), (hips[0] + 9, GROUND_Y + 2)]
    draw.ellipse([_scaled(point) for point in shadow], fill=(70, 63, 73))
    far, near = 0, 1
    _leg(draw, hips, pose, side=far, offset=offsets[far], facing=facing)
    if not pose.front:
        _arm(draw, chest, pose, side=far, facing=facing)
    _leg(draw, hips, pose, side=near, offset=offsets[near], facing=facing)
    _trunk(draw, hips, chest, pose)
    _head(draw, chest, pose, lean=lean, facing=facing)
    for side in (far, near) if pose.front else (near,):
        _arm(draw, chest, pose, side=side, facing=facing)
    return np.asarray(image.reduce(OVERSAMPLING), dtype=np.float64)


def _place(pose: Pose) -> tuple[Point, tuple[float, float], int]:
    """Where the hips are so that the lower foot is `lift` above the ground, each leg's offset, the direction."""
    reach = max(
        THIGH * math.cos(math.radians(thigh)) + SHIN * math.cos(math.radians(shin)) for thigh, shin in pose.legs
    )
    hips = (pose.x, GROUND_Y - 1.5 - pose.lift - reach * pose.leg_scale)
    return hips, ((-2.7, 2.7) if pose.front else (0.4, -0.4)), (1 if pose.front else pose.facing)


def _leg(draw: ImageDraw.ImageDraw, hips: Point, pose: Pose, *, side: int, offset: float, facing: int) -> None:
    thigh, shin = pose.legs[side]
    outward = (-1, 1)[side] if pose.front else facing
    colour = TROUSERS if pose.front or side == 1 else TROUSERS_FAR
    hip = (hips[0] + offset, hips[1])
    knee = _along(hip, thigh, THIGH * pose.leg_scale, outward)
    ankle = _along(knee, shin, SHIN * pose.leg_scale, outward)
    _capsule(draw, hip, knee, 6.6, colour)
    _capsule(draw, knee, ankle, 4.8, colour)
    toe_angle = 62 if pose.front else 88 + min(0.0, shin) * 0.8
    toe = _along(ankle, toe_angle, 1.6 if pose.front else FOOT - 1, outward)
    _capsule(draw, ankle, toe, 3.2, SHOES)


def _arm(draw: ImageDraw.ImageDraw, chest: Point, pose: Pose, *, side: int, facing: int) -> None:
    upper, fore = pose.arms[side]
    outward = (-1, 1)[side] if pose.front else facing
    colour = JACKET if pose.front or side == 1 else JACKET_FAR
    shoulder = (chest[0] + outward * 5.2, chest[1] + 1.4) if pose.front else (chest[0], chest[1] + 2)
    elbow = _along(shoulder, upper, UPPER_ARM, outward)
    wrist = _along(elbow, fore, FOREARM, outward)
    _capsule(draw, wrist, _along(wrist, fore, HAND, outward), 2.8, SKIN)
    _capsule(draw, shoulder, elbow, 4.8, colour)
    _capsule(draw, elbow, wrist, 3.9, colour)


def _trunk(draw: ImageDraw.ImageDraw, hips: Point, chest: Point, pose: Pose) -> None:
    hem = (hips[0], hips[1] + 2.5)
    if not pose.front:
        _capsule(draw, chest, (hips[0], hips[1] + 0.5), 9.4, JACKET)
        return
    for offset in (-2.7, 0.0, 2.7):
        _capsule(draw, (chest[0] + offset * 1.1, chest[1] + 1.8), (hem[0] + offset, hem[1] - 2), 7.6, JACKET)


def _head(draw: ImageDraw.ImageDraw, chest: Point, pose: Pose, *, lean: float, facing: int) -> None:
    tilt = lean * 1.1
    centre = (chest[0] + facing * NECK * math.sin(tilt), chest[1] - NECK * math.cos(tilt))
    _capsule(draw, chest, centre, 3.4, SKIN)
    _ellipse(draw, centre, HEAD_W, HEAD_H, HAIR)
    if pose.front:
        _ellipse(draw, (centre[0], centre[1] + 1.3), HEAD_W * 0.72, HEAD_H * 0.62, SKIN)
    else:
        face = (centre[0] + facing * (1.9 * math.cos(tilt) + 0.2), centre[1] + 1.2 + 1.9 * math.sin(tilt))
        _ellipse(draw, face, HEAD_W * 0.5, HEAD_H * 0.56, SKIN)


def _along(start: Point, angle: float, length: float, outward: int) -> Point:
    turn = math.radians(angle)
    return start[0] + outward * length * math.sin(turn), start[1] + length * math.cos(turn)


def _scaled(point: Point) -> Point:
    return point[0] * OVERSAMPLING, point[1] * OVERSAMPLING


def _ellipse(draw: ImageDraw.ImageDraw, centre: Point, width: float, height: float, colour: Colour) -> None:
    corners = [(centre[0] - width / 2, centre[1] - height / 2), (centre[0] + width / 2, centre[1] + height / 2)]
    draw.ellipse([_scaled(corner) for corner in corners], fill=colour)


def _capsule(draw: ImageDraw.ImageDraw, start: Point, end: Point, width: float, colour: Colour) -> None:
    draw.line([_scaled(start), _scaled(end)], fill=colour, width=round(width * OVERSAMPLING))
    for point in (start, end):
        _ellipse(draw, point, width, width, colour)


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m ppvcli.video.render", description="Draw a figure doing an action.")
    parser.add_argument("out", type=Path, help="video file to write, .mp4 for example")
    parser.add_argument("--action", choices=sorted(ACTIONS), default="wave2")
    parser.add_argument("--frames", type=int, default=48, help="at 25 fps")
    parser.add_argument("--seed", type=int, default=0, help="of the wall and the noise")
    arguments = parser.parse_args()
    frames = render_action(arguments.action, num_frames=arguments.frames, seed=arguments.seed)
    write_video(arguments.out, frames, options={"crf": "18"})


if __name__ == "__main__":
    main()
