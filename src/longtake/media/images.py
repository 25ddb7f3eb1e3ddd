"""Pictures of any size and mode become start images."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from longtake.errors import InputError

__all__ = ["fit", "load_image", "save_image"]

LARGEST = 178_956_970  # pixels; beyond it Pillow takes a picture for a decompression bomb


def load_image(path: Path) -> np.ndarray:
    """The picture as uint8 "H W 3": turned as its EXIF says, transparency over white, any mode to RGB.

    Color profiles are not applied.

    Raises:
        InputError: the file is missing, is no picture, is cut short, or is larger than 178 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities of a file that is then read, or refused below
            with Image.open(path) as image:
                if image.width * image.height > LARGEST:
                    raise Image.DecompressionBombError
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such image") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: the picture has too many pixels; {LARGEST // 10**6} megapixels would do") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{path}: not a picture that can be read; PNG, JPEG, WebP, TIFF, GIF or BMP would do"
        ) from None
    except Exception as error:  # on a broken file Pillow's decoders raise whatever they stumble over
        raise InputError(f"{path}: the picture cannot be read ({error})") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits or more of gray
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0.0) > 255.0 else 255.0
        gray = (values.clip(0, top) * (255.0 / top)).round().astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, layer).convert("RGB"))
    return np.array(image.convert("RGB"))


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture at that size: scaled (Lanczos) until it covers it, then cropped around its center.

    >>> fit(np.zeros((300, 100, 3), np.uint8), height=96, width=160).shape
    (96, 160, 3)
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    scale = max(height / rows, width / columns)
    h, w = height / scale, width / scale  # what is kept of the picture
    box = ((columns - w) / 2, (rows - h) / 2, (columns + w) / 2, (rows + h) / 2)
    box = (max(0.0, box[0]), max(0.0, box[1]), min(columns, box[2]), min(rows, box[3]))  # rounding can overstep
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=box))


def save_image(image: np.ndarray, path: Path) -> None:
    """Writes a uint8 picture "H W 3" as PNG."""
    Image.fromarray(image).save(path, format="PNG")
