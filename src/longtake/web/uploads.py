"""Files of others: read within bounds, named by us. Of an image nothing is kept but its pixels."""

from __future__ import annotations

import base64
import binascii
import os
import time
import warnings
from pathlib import Path
from secrets import token_hex
from typing import Any

from longtake.web.folder import link
from longtake.web.refusal import Refusal
from longtake.web.settings import Limits
from longtake.web.store import Store

__all__ = ["Uploads"]

MOVIES = "mp4, mov, webm and mkv"


class Uploads:
    """The uploads of a studio: files in a folder, and what is known of them in the store."""

    def __init__(self, folder: Path, store: Store, limits: Limits) -> None:
        self.folder, self.store, self.limits = folder, store, limits

    def path(self, id: str) -> Path:
        """The file of an upload.

        Raises:
            Refusal: there is none.
        """
        self.about(id)
        return self.folder / id

    def about(self, id: str) -> dict[str, Any]:
        """What is known of an upload.

        Raises:
            Refusal: there is none.
        """
        about = self.store.upload(id)
        if about is None or not (self.folder / id).is_file():
            raise Refusal("not_found", f"there is no upload {id[:80]!r}; POST /v1/uploads makes one")
        return about

    def blank(self) -> Path:
        """A place for a file that is coming in."""
        return self.folder / f"incoming-{token_hex(12)}"

    def take(self, incoming: Path, kinds: tuple[str, ...] = ("image", "video")) -> dict[str, Any]:
        """Makes an upload of a file, which is gone then. It blocks.

        Raises:
            Refusal: it is too large, or of no kind that can be read.
        """
        try:
            with open(incoming, "rb") as file:
                head = file.read(64)
            return self._movie(incoming, kinds) if _is_movie(head) else self._image(incoming, kinds)
        finally:
            incoming.unlink(missing_ok=True)

    def take_data(self, url: str) -> dict[str, Any]:
        """Makes an upload of a data URL.

        Raises:
            Refusal: it is none, or no image.
        """
        head, comma, text = url.partition(",")
        if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
            raise Refusal(
                "invalid_request",
                "an image_url is a data URL, data:image/png;base64,...; nothing is fetched from elsewhere",
                "input_reference",
            )
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal("invalid_request", "the data URL is no base64; encode it anew", "input_reference") from None
        incoming = self.blank()
        incoming.write_bytes(content)
        return self.take(incoming, ("image",))

    def keep(self, path: Path, about: dict[str, Any]) -> dict[str, Any]:
        """Makes an upload of a file of ours; it is moved."""
        id = f"upload_{token_hex(12)}"
        os.replace(path, self.folder / id)
        about = {"id": id, **about}
        self.store.add_upload(id, about)
        return about

    def link(self, path: Path, about: dict[str, Any]) -> dict[str, Any]:
        """Makes an upload of a file of ours that stays where it is."""
        incoming = self.blank()
        link(path, incoming)
        return self.keep(incoming, about)

    def tidy(self) -> int:
        """Lets go of uploads that are old and that no job was asked for with; returns how many."""
        before, gone = time.time() - 24 * 3600 * self.limits.unused_days, 0
        for path in self.folder.glob("upload_*"):
            if path.stat().st_ctime < before and not self.store.is_used(path.name):
                path.unlink(missing_ok=True)
                self.store.forget_upload(path.name)
                gone += 1
        return gone

    def _image(self, incoming: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
        from PIL import Image

        from longtake.errors import InputError
        from longtake.media import load_image, save_image

        if "image" not in kinds:
            raise Refusal("unsupported_media", f"this is no video that can be read; {MOVIES} would do", "video")
        if incoming.stat().st_size > self.limits.image_bytes:
            raise Refusal(
                "too_large",
                f"the image is larger than {self.limits.image_bytes >> 20} MiB; a smaller one would do",
                "file",
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(incoming) as image:  # reads the head alone
                    pixels = image.width * image.height
        except Image.DecompressionBombError:
            pixels = self.limits.image_pixels + 1
        except Exception:  # Pillow's readers raise whatever they stumble over
            pixels = 0
        if pixels > self.limits.image_pixels:
            most = self.limits.image_pixels // 10**6
            raise Refusal("too_large", f"the image has more than {most} megapixels; a smaller one would do", "file")
        try:
            picture = load_image(incoming)
        except InputError:
            raise Refusal(
                "unsupported_media",
                f"this cannot be read; images are PNG, JPEG, WebP, TIFF, GIF or BMP, videos are {MOVIES}",
                "file",
            ) from None
        clean = self.blank()
        save_image(picture, clean)
        height, width = picture.shape[:2]
        return self.keep(clean, {"kind": "image", "width": width, "height": height, "images": 1, "seconds": 0.0})

    def _movie(self, incoming: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
        if "video" not in kinds:
            raise Refusal("unsupported_media", "this is a video; an image would do", "input_reference")
        if incoming.stat().st_size > self.limits.video_bytes:
            raise Refusal(
                "too_large",
                f"the video is larger than {self.limits.video_bytes >> 20} MiB; a shorter one would do",
                "file",
            )
        return self.keep(incoming, {"kind": "video", **_look(incoming, self.limits)})


def _is_movie(head: bytes) -> bool:
    """True if a file begins as MP4, MOV, WebM, Matroska or AVI do."""
    boxed = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip") and head[8:12] not in (b"avif", b"heic")
    return boxed or head.startswith(b"\x1a\x45\xdf\xa3") or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")


def _look(path: Path, limits: Limits) -> dict[str, Any]:
    """Size and length of a video; it is not decoded but for its first picture."""
    import av
    import av.error

    unreadable = Refusal("unsupported_media", f"the video cannot be read; {MOVIES} with pictures would do", "file")
    long = Refusal(
        "too_large", f"the video is longer than {limits.video_seconds / 60:g} minutes; a part of it would do", "file"
    )
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise unreadable
            stream = container.streams.video[0]
            if not stream.codec_context:
                raise unreadable
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > limits.video_pixels or width * height <= 0:
                raise Refusal("too_large", "the video's pictures are too large; 8192 x 4352 would do", "file")
            images, last, first = 0, 0.0, None
            for packet in container.demux(stream):
                if packet.pts is None or packet.time_base is None:
                    continue
                time = float(packet.pts * packet.time_base)
                first = time if first is None else min(first, time)
                images, last = images + 1, max(last, time)
                if last - first > limits.video_seconds or images > 240 * limits.video_seconds:
                    raise long
            rate = float(stream.average_rate or 0) or 1.0
            container.seek(0)
            next(container.decode(stream))
    except (OSError, ValueError, StopIteration, av.error.FFmpegError):
        raise unreadable from None
    return {"width": width, "height": height, "images": images, "seconds": round(last - (first or 0.0) + 1 / rate, 3)}
