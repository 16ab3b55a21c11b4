"""Product photos and charts for the demo, drawn with Pillow, the same on every machine."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

SIZES = [(1600, 1200), (1200, 1600), (1920, 1080), (2048, 1536), (1000, 1000), (2400, 800)]
Color = tuple[int, int, int]


def write_pictures(folder: Path, count: int = 40) -> list[Path]:
    """``count`` pictures of several sizes, three JPEG "photos" to one PNG chart."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write_picture(folder, number) for number in range(1, count + 1)]


def write_picture(folder: Path, number: int) -> Path:
    pick = random.Random(f"picture {number}")
    size = pick.choice(SIZES)
    if number % 4 == 0:
        path = folder / f"chart-{number:03}.png"
        draw_chart(pick, size).save(path, compress_level=1)
    else:
        path = folder / f"photo-{number:03}.jpg"
        draw_photo(pick, size).save(path, quality=88)
    return path


def draw_photo(pick: random.Random, size: tuple[int, int]) -> Image.Image:
    """A lit gradient with soft shapes: like a photograph, it has no large even areas."""
    light = Image.radial_gradient("L").resize(size)
    slope = Image.linear_gradient("L").rotate(pick.choice((0, 90, 180, 270))).resize(size)
    picture = Image.merge("RGB", pick.sample([light, slope, Image.blend(light, slope, 0.4)], 3))
    shapes = picture.copy()
    draw = ImageDraw.Draw(shapes)
    for _ in range(pick.randrange(12, 30)):
        x, y = pick.randrange(size[0]), pick.randrange(size[1])
        radius = pick.randrange(20, max(size) // 6)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=some_color(pick))
    return Image.blend(picture, shapes, 0.6)


def draw_chart(pick: random.Random, size: tuple[int, int]) -> Image.Image:
    """Bars and a line over them, with axes."""
    width, height = size
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    left, bottom = width // 12, height - height // 10
    step = (width - 2 * left) // 12
    color = some_color(pick)
    tops = []
    for month in range(12):
        top = bottom - pick.randrange(height // 10, bottom - height // 10)
        x = left + month * step
        draw.rectangle((x + step // 6, top, x + step - step // 6, bottom), fill=color)
        tops.append((x + step // 2, max(0, top - height // 20)))
        draw.text((x + step // 3, bottom + 8), str(month + 1), fill="black")
    draw.line(tops, fill=some_color(pick), width=max(3, height // 200), joint="curve")
    draw.line((left, height // 20, left, bottom), fill="black", width=3)
    draw.line((left, bottom, width - left, bottom), fill="black", width=3)
    return picture


def some_color(pick: random.Random) -> Color:
    return pick.randrange(256), pick.randrange(256), pick.randrange(256)
