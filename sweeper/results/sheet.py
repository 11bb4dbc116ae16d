"""Draw a sheet of samples from the same latents: the teacher, then students and control of each d."""

from PIL import Image, ImageDraw, ImageFont

from sweeper.execution.samples import load_samples
from sweeper.results.comparison import Comparison, Sample, samples
from trainables.files import replacing

COLUMNS = 12
_SCALE, _MARGIN, _GAP = 2, 8, 4


def sample_label(sample: Sample) -> str:
    """Return the kind and size, such as `joint student, d=2`, and the updates of a trial that has not finished."""
    stopped = "" if sample.finished else f", at {sample.updates:,} updates"
    return f"{sample.kind}, {sample.name}{stopped}"


def draw_sheet(comparison: Comparison) -> None:
    """Write a sheet to `store.picture(name)`: one trial per row, one latent per column. Write none without samples."""
    rows = [(sample_label(sample), load_samples(sample.picture, COLUMNS)) for sample in samples(comparison)]
    rows = [(label, tiles) for label, tiles in rows if tiles]
    if rows:
        with replacing(comparison.store.picture(comparison.name)) as temporary:
            sheet(rows).save(temporary, format="PNG")


def sheet(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Draw labelled rows of COLUMNS tiles."""
    width = max(tile.width for _, tiles in rows for tile in tiles) * _SCALE  # that of a teacher may be the largest
    side = width + _GAP
    font = ImageFont.load_default(size=16)
    left = 2 * _MARGIN + round(max(font.getlength(label) for label, _ in rows))
    image = Image.new("RGB", (left + COLUMNS * side, len(rows) * side), "white")
    pen = ImageDraw.Draw(image)
    for y, (label, tiles) in enumerate(rows):
        pen.text((_MARGIN, y * side + side // 2), label, fill="black", font=font, anchor="lm")
        for x, tile in enumerate(tiles):
            large = tile.resize((width, width), Image.Resampling.NEAREST)
            image.paste(large, (left + x * side, y * side))
    return image
