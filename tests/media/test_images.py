import io

import numpy as np
import pytest
from PIL import Image

from longtake.errors import InputError
from longtake.media import fit, load_image, save_image

QUADRANTS = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255), (1, 1): (255, 255, 0)}


@pytest.fixture
def colors():
    """A picture of 16 x 24 whose four quarters are red, green, blue and yellow."""
    image = np.zeros((16, 24, 3), np.uint8)
    for (row, column), color in QUADRANTS.items():
        image[8 * row : 8 * row + 8, 12 * column : 12 * column + 12] = color
    return image


def noisy(height=20, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_a_picture_that_is_kept_without_loss_is_read_exactly(colors, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(colors).save(path, **({"lossless": True} if suffix == "webp" else {}))
    loaded = load_image(path)
    assert loaded.dtype == np.uint8
    assert np.array_equal(loaded, colors)


def test_an_image_that_is_saved_is_read_back(tmp_path):
    save_image(noisy(), tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), noisy())


# What each value of the tag Orientation says was done to the picture (EXIF 2.3, section 4.6.4).
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_turned_as_its_exif_says(colors, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](colors)))
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_image(tmp_path / "a.png"), colors)


def test_transparency_lies_over_white(tmp_path):
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[..., 0] = 200
    layer[:, 2:4, 3], layer[:, 4:, 3] = 128, 255
    Image.fromarray(layer).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert np.array_equal(loaded[:, :2], np.full((4, 2, 3), 255))
    half = np.array([200 * 128 + 255 * 127, 255 * 127, 255 * 127]) / 255
    assert np.abs(loaded[:, 2:4] - half).max() <= 1  # rounding
    assert np.array_equal(loaded[:, 4:], np.broadcast_to((200, 0, 0), (4, 2, 3)))


def test_gray_with_transparency_lies_over_white(tmp_path):
    Image.fromarray(np.array([[[50, 0], [50, 255]]], np.uint8), "LA").save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").tolist() == [[[255] * 3, [50] * 3]]


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
    Image.fromarray(gray).save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), np.repeat(gray[..., None], 3, 2))


def test_black_and_white_is_read(tmp_path):
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1").save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[..., 0].tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_of_gray_keep_their_brightness(tmp_path, suffix):
    gray = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Image.fromarray(gray).save(tmp_path / f"a.{suffix}")
    assert load_image(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_dark_picture_of_sixteen_bits_stays_dark(tmp_path):
    Image.fromarray(np.full((2, 2), 200, np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").max() == 1


def test_a_palette_is_looked_up(colors, tmp_path):
    Image.fromarray(colors).convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), colors)


def test_a_transparent_entry_of_a_palette_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "a.gif", transparency=1)
    assert load_image(tmp_path / "a.gif").tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_print_colors_become_screen_colors(colors, tmp_path):
    Image.fromarray(colors).convert("CMYK").save(tmp_path / "a.tiff")
    assert np.array_equal(load_image(tmp_path / "a.tiff"), colors)
    Image.fromarray(colors).convert("CMYK").save(tmp_path / "a.jpg", quality=95, subsampling=0)
    assert np.abs(load_image(tmp_path / "a.jpg").astype(int) - colors).mean() < 4  # JPEG's loss at hard edges


def test_an_animation_gives_its_first_image(tmp_path):
    first, second = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert load_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        load_image(path)
    assert str(path) in str(caught.value)


def test_a_missing_image_is_named(tmp_path):
    refused(tmp_path / "nowhere.png", "there is no such image")


def test_a_folder_is_no_picture(tmp_path):
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize(
    "content", [b"", b"a letter to you", bytes(1000), b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_what_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "not a picture that can be read; PNG, JPEG")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_a_picture_that_is_cut_short_is_refused(tmp_path, kind):
    file = io.BytesIO()
    Image.fromarray(noisy()).save(file, kind)
    for part in (0.3, 0.6, 0.9):
        (tmp_path / "a").write_bytes(file.getvalue()[: int(len(file.getvalue()) * part)])
        refused(tmp_path / "a", "cannot be read|can be read")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "AVIF"])
def test_whatever_the_bytes_are_a_picture_is_read_or_refused(tmp_path, kind):
    file, rng = io.BytesIO(), np.random.default_rng(1)
    Image.fromarray(noisy()).save(file, kind)
    for _ in range(60):
        content = bytearray(file.getvalue())
        for at in rng.integers(0, min(400, len(content)), 3):
            content[at] = rng.integers(0, 256)
        (tmp_path / "a").write_bytes(content)
        try:
            assert load_image(tmp_path / "a").shape[2] == 3
        except InputError as error:
            assert str(tmp_path / "a") in str(error)  # noqa: PT017


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_read(tmp_path):
    Image.new("1", (20_000, 10_001)).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "too many pixels; 178 megapixels would do")


def test_a_picture_of_the_right_size_stays_as_it_is(colors):
    assert np.array_equal(fit(colors, 16, 24), colors)


@pytest.mark.parametrize(("height", "width"), [(300, 100), (100, 300), (7, 5), (1, 1), (480, 832), (1, 20_000)])
def test_any_shape_is_fitted(height, width):
    fitted = fit(np.full((height, width, 3), 77, np.uint8), height=96, width=160)
    assert fitted.shape == (96, 160, 3)
    assert fitted.flags.c_contiguous
    assert (fitted == 77).all()


def test_a_wide_picture_keeps_its_center_and_whole_height():
    image = np.zeros((40, 120, 3), np.uint8)
    image[:, 40:80] = 255
    image[0], image[-1] = 100, 200
    fitted = fit(image, 40, 40)
    assert np.array_equal(fitted[1:-1], np.full((38, 40, 3), 255))
    assert (fitted[0] == 100).all()
    assert (fitted[-1] == 200).all()


def test_a_tall_picture_keeps_its_center_and_whole_width():
    image = np.zeros((120, 40, 3), np.uint8)
    image[40:80] = 255
    assert (fit(image, 40, 40) == 255).all()


def test_fitting_keeps_proportions_and_does_not_shift():
    """A ramp that is scaled by the same factor on both sides stays a ramp, and its middle stays in the middle."""
    y, x = np.mgrid[:64, :128]
    ramp = np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8)
    fitted = fit(ramp, 32, 32).astype(float)
    wanted = np.arange(32) * 2 + 0.5  # two pixels each
    assert np.abs(fitted[16, 2:-2, 0] - (32 + wanted[2:-2])).max() <= 1  # rounding
    assert np.abs(fitted[2:-2, 16, 1] - wanted[2:-2]).max() <= 1
