"""Draw a sheet of samples from the same latents: the teacher, then students and control of each d."""

from PIL import Image, ImageDraw, ImageFont

from sweeper.execution.samples import load_samples
from sweeper.results.comparison import Comparison, Sample, samples
from trainables.files import replacing

_COLUMNS, _SCALE, _LABEL, _GAP = 12, 2, 270, 4


def sample_label(sample: Sample) -> str:
    """Return the kind and shape, such as `joint student, d=2`, and the updates of a trial that has not finished."""
    stopped = "" if sample.finished else f", at {sample.updates:,} updates"
    return f"{sample.kind}, {sample.shape.label}{stopped}"


def draw_sheet(comparison: Comparison) -> None:
    """Write a sheet to `store.picture(name)`: one trial per row, one latent per column. Write none without samples."""
    rows = [
        (sample_label(s), load_samples(comparison.store.samples(s.signature, s.updates), _COLUMNS))
        for s in samples(comparison)
    ]
    rows = [(label, tiles) for label, tiles in rows if tiles]
    if not rows:
        return
    side = rows[0][1][0].width * _SCALE + _GAP
    sheet = Image.new("RGB", (_LABEL + _COLUMNS * side, len(rows) * side), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for y, (label, tiles) in enumerate(rows):
        pen.text((8, y * side + side // 2), label, fill="black", font=font, anchor="lm")
        for x, tile in enumerate(tiles):
            large = tile.resize([s * _SCALE for s in tile.size], Image.Resampling.NEAREST)
            sheet.paste(large, (_LABEL + x * side, y * side))
    with replacing(comparison.store.picture(comparison.name)) as temporary:
        sheet.save(temporary, format="PNG")
