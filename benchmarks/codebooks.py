"""How well a model's codebooks (+D) say held-out latents: the share of variance they keep, and words never used.

    python benchmarks/codebooks.py --clips HELD_OUT --output out/codebooks

HELD_OUT is a folder made by `python -m longtake.toybox` (see docs/guides/train-the-embedded-model.md). Prints a table
and writes numbers.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import torch
from einops import rearrange
from setting import arguments, device_name, open_model

from longtake.backbones.pixels import to_pixels
from longtake.packing import fit_of
from longtake.training.clips import open_clips


@torch.no_grad()
def main() -> None:
    """Measures everything, prints it, writes it."""
    options = arguments(__doc__, "out/codebooks").parse_args()
    backbone, clips = open_model(options), open_clips(options.clips, options.count)
    whole = (clips.images - 1) // backbone.codec.temporal_ratio * backbone.codec.temporal_ratio + 1
    parts = []
    for clip in range(len(clips)):
        pixels = to_pixels(clips.batch([clip], [0], whole), backbone.device, backbone.dtype)
        parts.append(rearrange(backbone.codec.encode(pixels), "b c t h w -> (b t h w) c"))
    vectors = torch.cat(parts)
    fits = [fit_of(codebook, vectors) for _, codebook in sorted(backbone.codebooks.items())]
    numbers = {"device": device_name(options), "clips": len(clips), "vectors": len(vectors)}
    (options.output / "numbers.json").write_text(json.dumps({**numbers, "fits": [asdict(fit) for fit in fits]}))
    print(f"{len(vectors)} latent pixels of {len(clips)} clips; {numbers['device']}\n")
    print("| words | variance kept | mean distance | unused |\n| --- | --- | --- | --- |")
    for fit in fits:
        print(f"| {fit.size} | {fit.explained:.3f} | {fit.error:.2f} | {fit.dead} |")


if __name__ == "__main__":
    main()
