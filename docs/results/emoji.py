"""Write the pictures of the font Noto Color Emoji as a folder of PNG files, on white, 136 × 136 (docs/results.md).

python docs/results/emoji.py NotoColorEmoji.ttf FOLDER
"""

import io
import sys
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image


def main(font: Path, folder: Path) -> None:
    """Write one file per glyph, named by the glyph."""
    folder.mkdir(parents=True, exist_ok=True)
    (glyphs,) = TTFont(font)["CBDT"].strikeData
    for name, glyph in glyphs.items():
        picture = Image.open(io.BytesIO(glyph.imageData)).convert("RGBA")
        side = max(picture.size)
        square = Image.new("RGBA", (side, side), "white")
        square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        square.convert("RGB").save(folder / f"{name}.png")
    print(f"{len(glyphs)} pictures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
