"""Small pictures of a sample and of attention, and sheets of them."""
from PIL import Image, ImageDraw

from ptm_mini.report.charts import COLOURS, FAINT, INK, as_png, font

SIDE, GAP = 200, 16
ATTENTION, PROMPTS = COLOURS[2], COLOURS[1]


def cover(picture, x, y, size, strength):
    """Lay orange over a part of a picture that is `size` large, the more the nearer `strength` [rows, columns] is to 1."""
    opacity = Image.fromarray((220 * strength).round().byte().numpy())
    picture.paste(ATTENTION, (x, y), opacity.resize(size, Image.Resampling.NEAREST))


def sheet(rows):
    """PNG bytes of pictures in rows, each below its title. rows: list of {title: picture}"""
    whole = Image.new("RGB", (max(map(len, rows)) * (SIDE + GAP) + GAP, len(rows) * (SIDE + 36) + 8), "white")
    for i, row in enumerate(rows):
        for j, (title, picture) in enumerate(row.items()):
            x, y = GAP + j * (SIDE + GAP), 8 + i * (SIDE + 36)
            ImageDraw.Draw(whole).text((x, y), title, INK, font(14))
            whole.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y + 22))
    return as_png(whole)


def curve(wave, used=1.0):
    """A waveform [samples], each column from its least to its greatest sample; what is not used of it on grey."""
    picture = Image.new("RGB", (SIDE, SIDE), FAINT)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, used * SIDE, SIDE), "white")
    for x, part in enumerate((SIDE * (0.5 - 0.48 * wave / wave.abs().max().clamp(min=1e-9))).tensor_split(SIDE)):
        draw.line((x, float(part.min()), x, float(part.max()) + 1), COLOURS[1])
    return picture


def numbered(picture, rows, columns, low_first=False):
    """A picture with the edges of its patches and their tokens' numbers; low_first: the first row of tokens is the lowest."""
    picture = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    draw, height, width = ImageDraw.Draw(picture), SIDE / rows, SIDE / columns
    for token in range(rows * columns):
        row, left = token // columns, token % columns * width
        top = (rows - 1 - row if low_first else row) * height
        draw.rectangle((left, top, left + width, top + height), outline="white")
        draw.text((left + width / 2, top + height / 2), str(token), "white", font(14), anchor="mm",
                  stroke_width=2, stroke_fill="black")
    return picture


def matrix(probabilities, prompts):
    """Attention [N, P + N_c], a row for each query, a column for each key; a blue line behind the first P, the prompts."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    cover(picture, 0, 0, picture.size, (probabilities / probabilities.max()).sqrt())
    x = SIDE * prompts / probabilities.shape[1]
    ImageDraw.Draw(picture).line((x, 0, x, SIDE), PROMPTS, width=2)
    return picture
