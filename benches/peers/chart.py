"""A picture of our own to look at: edges, letters, stripes from coarse to fine, circles, a texture and a ramp, 256×256 grey levels."""

import numpy as np


def chart():
    from PIL import Image, ImageDraw, ImageFont

    rows, columns = np.mgrid[:256, :256].astype(float)
    out = 60 + 0.5 * columns + 0.2 * rows
    # Stripes whose period falls from 24 to 4 pixels, at an angle.
    phase = np.cumsum(2 * np.pi / np.linspace(24, 4, 256))
    stripes = 60 * np.sin(phase[columns.astype(int)] + rows / 9)
    out = np.where(rows < 70, 128 + stripes, out)
    circles = np.hypot(rows - 180, columns - 70)
    out = np.where(circles < 50, 128 + 70 * np.cos(circles**2 / 90), out)
    # A weave: threads over and under each other.
    weave = 40 * np.sin(2 * np.pi * rows / 7) * (np.sin(2 * np.pi * columns / 14) > 0)
    weave += 40 * np.sin(2 * np.pi * columns / 7) * (np.sin(2 * np.pi * columns / 14) <= 0)
    out = np.where((rows > 150) & (columns > 150), 120 + weave, out)
    image = Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.text((140, 80), "sparse", fill=20, font=ImageFont.load_default(28))
    draw.text((140, 112), "coding of pictures", fill=235, font=ImageFont.load_default(13))
    draw.line((10, 90, 120, 110), fill=230, width=2)
    draw.polygon([(20, 118), (60, 76), (100, 124)], outline=20)
    return np.asarray(image).astype(float)


def side_by_side(lines, path):
    """Lines of pictures of one size, with white between them."""
    from skimage.io import imsave

    def padded(picture):
        return np.pad(np.clip(picture, 0, 255), 2, constant_values=255)

    page = np.vstack([np.hstack([padded(picture) for picture in line]) for line in lines])
    imsave(path, page.round().astype(np.uint8), check_contrast=False)
