"""Which toys an image shows, read by a small network that was trained on the toybox's truth; and who is kept.

A made video has no truth: where a toy is, and of what color, can only be read from its pixels. The picture is divided
into cells of 8 x 8 pixels. For each the network says whether a toy's middle is in it, of which color and which shape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from longtake.errors import ModelError
from longtake.toybox import DIFFICULTIES, Truth

__all__ = [
    "CELL",
    "COLORS",
    "SHAPES",
    "Kept",
    "Kind",
    "ToyReader",
    "kept",
    "kinds_of",
    "load_reader",
    "middles",
    "read_toys",
    "save_reader",
    "targets_of",
    "train_reader",
]  # fmt: skip

CELL = 8  # pixels
SHAPES = DIFFICULTIES["kind"].shapes
COLORS = DIFFICULTIES["kind"].colors
CLEAR = 0.01  # share of a picture from which on a toy can be expected to be read: 154 pixels of 160 x 96
HALF_SEEN = 0.004  # between this and nothing a toy is neither asked for nor held against the reader


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """What is to be kept of a toy."""

    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.color} {self.shape}"


def kinds_of(truth: Truth) -> tuple[Kind, ...]:
    """The kind of each toy of a clip."""
    return tuple(Kind(toy.color, toy.shape) for toy in truth.toys)


def middles(truth: Truth, height: int, width: int) -> Float[np.ndarray, "T k 2"]:
    """Where the middle of each toy is in each image: row and column in pixels, which may lie beside the picture.

    A camera at p that looks along f, with r on its right and u above it, and a vertical field of view v sees the point
    q at (H / 2) (1 - (q - p) u / z), (W / 2) + (H / 2) (q - p) r / z, where z = tan(v / 2) (q - p) f.
    """
    eye, (yaw, pitch, field) = truth.camera[:, None, :3], np.deg2rad(truth.camera[:, None, 3:].T)
    yaw, pitch, field = yaw.T, pitch.T, field.T
    forward = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], -1)
    right = np.stack([np.sin(yaw), -np.cos(yaw), np.zeros_like(yaw)], -1)
    above = np.cross(right, forward)
    away = truth.poses[..., :3] - eye
    depth = np.tan(field / 2) * np.maximum((away * forward).sum(-1), 1e-3)
    row = height / 2 * (1 - (away * above).sum(-1) / depth)
    column = width / 2 + height / 2 * (away * right).sum(-1) / depth
    return np.stack([row, column], -1).astype(np.float32)


def targets_of(truth: Truth, image: int, height: int, width: int) -> Int[Tensor, "2 h w"]:
    """What is true of each cell: color and shape by number; -1 where there is no toy, -2 where it does not matter.

    The cells around a toy's middle do not matter, nor those around one that is hardly seen. Of two toys in one cell the
    one that shows more is asked for.
    """
    found = torch.full((2, height // CELL, width // CELL), -1)
    places = np.floor(middles(truth, height, width)[image] / CELL).astype(int)
    for k in np.argsort(truth.visibility[image]):
        (row, column), seen = places[k], truth.visibility[image, k]
        if seen > 0 and 0 <= row < found.shape[1] and 0 <= column < found.shape[2]:
            around = found[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            around[around == -1] = -2
            if seen >= HALF_SEEN:
                color, shape = COLORS.index(truth.toys[k].color), SHAPES.index(truth.toys[k].shape)
                found[:, row, column] = torch.tensor([color, shape])
    return found


class ToyReader(nn.Module):
    """For each cell: is the middle of a toy in it, of which color, of which shape (logits)."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 4, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.GroupNorm(8, 2 * width),
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 * width, width, 1), nn.GELU(),
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation), nn.GELU(),
                nn.Conv2d(width, 2 * width, 1), nn.GroupNorm(8, 2 * width),
            )
            for dilation in (1, 2, 1, 2)
        )  # fmt: skip
        self.head = nn.Conv2d(2 * width, 1 + len(COLORS) + len(SHAPES), 1)

    def forward(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b k h w"]:
        """Logits of presence, colors, shapes; pixels are from -1 to 1."""
        x = self.stem(pixels)
        for block in self.blocks:
            x = x + block(functional.gelu(x))
        return self.head(functional.gelu(x))


def loss_of(logits: Float[Tensor, "b k h w"], targets: Int[Tensor, "b 2 h w"]) -> Tensor:
    """Binary cross-entropy of presence where it matters, and cross-entropies of color and shape where a toy is."""
    here = targets[:, 0] >= 0
    presence = functional.binary_cross_entropy_with_logits(logits[:, 0], here.float(), reduction="none")
    loss = presence[targets[:, 0] != -2].mean() * 20
    if here.any():
        of_toys = rearrange(logits, "b k h w -> b h w k")[here]
        _, color, shape = of_toys.split((1, len(COLORS), len(SHAPES)), dim=1)
        loss = (
            loss
            + functional.cross_entropy(color, targets[:, 0][here])
            + functional.cross_entropy(shape, targets[:, 1][here])
        )
    return loss


def train_reader(
    reader: ToyReader,
    images: UInt8[Tensor, "n 3 H W"],
    targets: Int[Tensor, "n 2 h w"],
    steps: int,
    batch: int = 64,
    rate: float = 2e-3,
    seed: int = 0,
) -> Iterator[float]:
    """Trains on images and what is true of their cells; the loss of each step.

    Every second image is seen in the mirror, each a little brighter or darker: a made video need not keep its light.
    """
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(reader.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=draw).to(images.device)
        x, y = images[chosen].float() / 127.5 - 1, targets[chosen].long()
        half = batch // 2
        x, y = (torch.cat([part[:half], part[half:].flip(-1)]) for part in (x, y))
        x = x + (torch.rand(batch, 1, 1, 1, generator=draw) * 0.2 - 0.1).to(x.device)
        loss = loss_of(reader(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()


def save_reader(reader: ToyReader, path: Path) -> None:
    """Writes the weights in half precision."""
    save_file({name: weight.detach().cpu().half().contiguous() for name, weight in reader.state_dict().items()}, path)


def load_reader(path: Path, device: str | torch.device = "cpu") -> ToyReader:
    """The reader that was written there.

    Raises:
        ModelError: there is none, or it is of another kind.
    """
    try:
        weights = load_file(path)
        reader = ToyReader(len(weights["stem.2.bias"]))
        reader.load_state_dict({name: weight.float() for name, weight in weights.items()})
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: not the weights of a toy reader ({error})") from error
    return reader.to(device).eval()


@torch.no_grad()
def read_toys(reader: ToyReader, video: np.ndarray, least: float = 0.5, batch: int = 64) -> list[frozenset[Kind]]:
    """The kinds of toys that each image of a video, uint8 "T H W 3", shows.

    A toy is where presence is at least `least` and higher than in the cells around.
    """
    device = next(reader.parameters()).device
    found = list[frozenset[Kind]]()
    for first in range(0, len(video), batch):
        pixels = torch.from_numpy(video[first : first + batch].copy()).to(device).float() / 127.5 - 1
        logits = reader(rearrange(pixels, "t h w c -> t c h w"))
        presence, color, shape = logits.split((1, len(COLORS), len(SHAPES)), dim=1)
        presence = presence.sigmoid()
        peaks = (presence >= least) & (presence == functional.max_pool2d(presence, 3, stride=1, padding=1))
        for image in range(len(logits)):
            rows, columns = peaks[image, 0].nonzero(as_tuple=True)
            colors, shapes = (part[image, :, rows, columns].argmax(0).tolist() for part in (color, shape))
            found.append(frozenset(Kind(COLORS[c], SHAPES[s]) for c, s in zip(colors, shapes, strict=True)))
    return found


@dataclass(frozen=True, slots=True)
class Kept:
    """Of toys that were there at the start, the share that a section still shows."""

    both: float  # with its color and its shape
    color: float  # a toy of its color, whatever its shape
    shape: float
    toys: int
    others: float  # kinds that a section shows and its scene does not have


def kept(
    expected: Sequence[Collection[Kind]],
    sections: Sequence[Sequence[Collection[Kind]]],
    scenes: Sequence[Collection[Kind]],
    most: float = 0.5,
) -> Kept:
    """Which of the `expected` kinds of each video are shown by a section: are in more than `most` of its images.

    `scenes` are all the kinds of each video's scene: whatever else is shown is wrong.

    >>> red, blue = Kind("red", "ball"), Kind("blue", "ball")
    >>> kept([[red]], [[{red}, {red, blue}, {blue}]], [[red, blue]])
    Kept(both=1.0, color=1.0, shape=1.0, toys=1, others=0.0)
    >>> kept([[red]], [[{blue}, {blue}, {red}]], [[red]])
    Kept(both=0.0, color=0.0, shape=1.0, toys=1, others=1.0)
    """
    verdicts, others = [], []
    for kinds, images, scene in zip(expected, sections, scenes, strict=True):
        shown = {kind for kind in set().union(*images) if np.mean([kind in seen for seen in images]) > most}
        others.append(len(shown - {*scene}))
        verdicts += [
            (
                kind in shown,
                np.mean([any(kind.color == other.color for other in seen) for seen in images]) > most,
                np.mean([any(kind.shape == other.shape for other in seen) for seen in images]) > most,
            )
            for kind in kinds
        ]
    both, color, shape = np.mean(verdicts, axis=0).tolist() if verdicts else (float("nan"),) * 3
    return Kept(both, color, shape, len(verdicts), float(np.mean(others)))
