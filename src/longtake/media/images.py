"""Pictures of any size and mode become start images."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from longtake.errors import InputError

__all__ = ["fit", "load_image", "save_image"]

LARGEST = 200_000_000  # pixels; beyond it a picture is taken for a decompression bomb


def load_image(path: Path) -> np.ndarray:
    """The picture as uint8 "H W 3": turned as its EXIF says, transparency over white, any mode to sRGB.

    Raises:
        InputError: the file is missing, is no picture, is cut short, or is larger than 200 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > LARGEST:
                    raise InputError(
                        f"{path}: {image.width} x {image.height} pixels are too many; 200 megapixels would do"
                    )
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such image") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{path}: not a picture that can be read; PNG, JPEG, WebP, TIFF, GIF or BMP would do"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: the picture cannot be read ({error})") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits or more of gray
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0.0) > 255.0 else 255.0
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
    if image.shape[:2] == (height, width):
        return image
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def save_image(image: np.ndarray, path: Path) -> None:
    """Writes a uint8 picture "H W 3" as PNG."""
    Image.fromarray(image).save(path, format="PNG")
