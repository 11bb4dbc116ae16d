"""A sheet of samples: from the same latents, teacher, student and control at each d."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sweeper.job import load_generator
from sweeper.selection import best, controls_of
from sweeper.store import Manifest, Store
from sweeper.sweep import Sweep
from trainables.files import replacing
from trainables.latents import latents
from trainables.training import render

COLUMNS = 12
_SCALE, _LABEL, _GAP = 2, 150, 4


def draw_samples(store: Store, teachers: Manifest, students: Manifest) -> None:
    """Write the sheet of a student sweep to `store.picture(sweep)`."""
    assert students.teacher is not None
    controls, distilled = controls_of(store, teachers, students), Sweep.read(students, store)
    pinned = students.teacher
    rows = [(f"teacher d={store.need(pinned.signature).spec.d}", pinned.signature, pinned.updates)]
    for d in sorted(distilled.strata):
        for name, sweep in (("student", distilled), ("control", controls)):
            trials = best(sweep, d) if d in sweep.strata else None
            if trials:
                rows.append((f"{name} d={d}", trials[0], sweep.manifest.updates))
    z = latents("picture", 0, COLUMNS)
    images = [render(load_generator(store, signature, updates), z) for _, signature, updates in rows]
    side = images[0].shape[-1] * _SCALE + _GAP
    sheet = Image.new("RGB", (_LABEL + COLUMNS * side, len(rows) * side), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for y, ((label, _, _), row) in enumerate(zip(rows, images, strict=True)):
        pen.text((8, y * side + side // 2), label, fill="black", font=font, anchor="lm")
        for x, pixels in enumerate(row):
            tile = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
            picture = Image.fromarray(tile.transpose(1, 2, 0))
            sheet.paste(
                picture.resize([s * _SCALE for s in picture.size], Image.Resampling.NEAREST),
                (_LABEL + x * side, y * side),
            )
    with replacing(store.picture(students.name)) as temporary:
        sheet.save(temporary, format="PNG")
