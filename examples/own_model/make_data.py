"""Draw traffic lights and write a manifest: lights_data/manifest.jsonl."""

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"green": (20, 200, 60), "red": (220, 30, 20)}


def main(folder: Path, count: int) -> None:
    """A line of the manifest is an example."""
    random.seed(0)
    folder.mkdir(exist_ok=True)
    with (folder / "manifest.jsonl").open("w") as manifest:
        for number in range(count):
            label = random.choice(list(COLOURS))
            picture = Image.new("RGB", (32, 32), (random.randrange(60),) * 3)
            x, y = random.randrange(4, 16), random.randrange(4, 16)
            ImageDraw.Draw(picture).ellipse((x, y, x + 12, y + 12), fill=COLOURS[label])
            picture.save(folder / f"{number}.jpg")
            manifest.write(json.dumps({"image": f"{number}.jpg", "label": label}) + "\n")


if __name__ == "__main__":
    main(Path("lights_data"), 200)
