"""The latent frames that are known so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.packing.codebook import Discretization
from longtake.schedule import Kernel

__all__ = ["History"]


class History:
    """Latent frames by absolute number, for a batch of videos that are made side by side.

    With `missing="zeros"` frames that are not known read as zeros, as the released FramePack models were trained; by
    default reading them is an error, and plans do not ask for them. With a `discretization` sections are shown
    frames rounded to words, but for those that are exact: the user's own images, which have nothing to round away.
    Frames that have noise in them can be kept with their level, for models that are told it.

    >>> history = History()
    >>> history.remember([0], torch.ones(1, 16, 1, 12, 20))
    >>> sorted(history.known), history.read([0]).shape
    ([0], torch.Size([1, 16, 1, 12, 20]))
    """

    def __init__(
        self, missing: Literal["absent", "zeros"] = "absent", discretization: Discretization | None = None
    ) -> None:
        self.missing: Literal["absent", "zeros"] = missing
        self.discretization = discretization
        self._frames: dict[int, Tensor] = {}
        self._exact: set[int] = set()
        self._sigmas: dict[int, Tensor] = {}  # of frames that are not clean, one a video

    @property
    def known(self) -> frozenset[int]:
        """The numbers of the frames that are known."""
        return frozenset(self._frames)

    @property
    def exact(self) -> frozenset[int]:
        """Those of them that are real images."""
        return frozenset(self._exact & self._frames.keys())

    def copy(self) -> History:
        """A history of the same frames that can be changed by itself."""
        other = History(self.missing, self.discretization)
        other._frames, other._exact, other._sigmas = dict(self._frames), set(self._exact), dict(self._sigmas)
        return other

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Batch, channels, height and width of each frame.

        Raises:
            LookupError: nothing is known yet, not even the start frame.
        """
        for frame in self._frames.values():
            b, c, h, w = frame.shape
            return b, c, h, w
        raise LookupError("the history is empty: remember the start frame before packing a section")

    def remember(
        self,
        frames: Sequence[int],
        latents: Float[Tensor, "b c t h w"],
        exact: bool = False,
        sigma: Float[Tensor, "b t"] | None = None,
    ) -> None:
        """Keeps `latents` under these numbers; a frame that is known already is replaced.

        `exact` frames are real images, not made ones. `sigma` is how much noise is in each frame; without it, none.

        Raises:
            ValueError: there are more or fewer numbers than latent frames, or their shape is not that of the others.
        """
        if len(frames) != latents.shape[2]:
            raise ValueError(f"{len(frames)} frame numbers for {latents.shape[2]} latent frames")
        b, c, _, h, w = latents.shape
        if self._frames and self.shape != (b, c, h, w):
            raise ValueError(f"frames of shape {(b, c, h, w)} in a history of shape {self.shape}")
        self._frames.update(zip(frames, latents.unbind(2), strict=True))
        (self._exact.update if exact else self._exact.difference_update)(frames)
        for place, frame in enumerate(frames):
            self._sigmas.pop(frame, None)
            if sigma is not None:
                self._sigmas[frame] = sigma[:, place]

    def forget(self, frames: Iterable[int]) -> None:
        """Drops frames that nothing will read again."""
        for frame in frames:
            self._frames.pop(frame, None)
            self._sigmas.pop(frame, None)

    def read(self, frames: Sequence[int]) -> Float[Tensor, "b c t h w"]:
        """The latents of these frames, in this order.

        Raises:
            KeyError: a frame is not known and missing frames are absent.
        """
        if self.missing == "zeros":
            zeros = torch.zeros_like(next(iter(self._frames.values())))
            return torch.stack([self._frames.get(f, zeros) for f in frames], dim=2)
        return torch.stack([self._frames[f] for f in frames], dim=2)

    def levels(self, frames: Sequence[int]) -> Float[Tensor, "b t"]:
        """How much noise is in each of these frames, in float32; frames that are not known are clean zeros."""
        clean = next(iter(self._frames.values())).new_zeros(self.shape[0], dtype=torch.float32)
        return torch.stack([self._sigmas.get(f, clean) for f in frames], dim=1).float()

    def show(self, frames: Sequence[int], kernel: Kernel) -> Float[Tensor, "b c t h w"]:
        """The latents of these frames as a kernel of a section is to see them: rounded to words, if to any.

        Raises:
            KeyError: a frame is not known and missing frames are absent.
        """
        latents = self.read(frames)
        codebook = self.discretization and self.discretization.of(str(kernel))
        if not (self.discretization and codebook):
            return latents
        rounded = [f in self._frames and (self.discretization.exact_too or f not in self._exact) for f in frames]
        if all(rounded):
            return codebook.quantize(latents)
        mask = torch.tensor(rounded, device=latents.device).view(1, 1, -1, 1, 1)
        return torch.where(mask, codebook.quantize(latents), latents)
