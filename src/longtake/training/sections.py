"""Stages `base` and `pack`: a video model from nothing, and the next-frame-section model made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from longtake.backbones import Backbone, PromptEncoder
from longtake.backbones.pixels import to_images
from longtake.backbones.rollout import roll_out
from longtake.flow import denoise, draw_sigmas, interpolate, target_velocity
from longtake.packing import History, fit_codebook, fit_of, pack
from longtake.plan import Section, make_plan, order_of
from longtake.schedule import parse
from longtake.training.cache import Tracks
from longtake.training.config import SectionConfig
from longtake.training.corruption import ErrorBank, Seen, corrupt
from longtake.training.loop import Stage
from longtake.training.windows import Window, draw_window, every_window

__all__ = ["SectionStage"]


class SectionStage(Stage):
    """Velocity matching on sections that see what a plan lets them see."""

    def __init__(
        self, config: SectionConfig, backbone: Backbone, tracks: Tracks, held_out: Tracks, rank: int = 0
    ) -> None:
        self.config, self.backbone, self.rank = config, backbone, rank
        self.tracks, self.held_out = tracks, held_out
        assert isinstance(backbone.prompts, PromptEncoder)
        self.prompts = backbone.prompts
        self.transformer, self.text_encoder = backbone.transformer, self.prompts.encoder
        self.device, self.dtype = tracks.latents.device, getattr(torch, config.dtype)
        self.shift = backbone.shift_at(parse(next(iter(config.schedules.values()))), *tracks.latents.shape[3:])
        self.numbers = self._tokenize(tracks)
        self.held_out_numbers = self._tokenize(held_out)
        self.nothing = self._tokens([""])[0]
        self.sizes = config.discrete.sizes if config.stage == "pack" and config.discrete.share else ()
        missing = [size for size in self.sizes if size not in backbone.codebooks]
        if missing:
            vectors, others = self._vectors(tracks), self._vectors(held_out)
            books = {size: fit_codebook(vectors, size, config.loop.seed) for size in missing}
            fits = [fit_of(book, others) for book in books.values()]
            self.found = {
                **{f"words_{fit.size}_explained": fit.explained for fit in fits},
                **{f"words_{fit.size}_unused": float(fit.dead) for fit in fits},
            }
            self.backbone = replace(backbone, codebooks={**backbone.codebooks, **books})
        self.bank = self._new_bank() if config.stage == "pack" and config.corruption.recycle.share else None
        if config.compile:
            torch._dynamo.config.recompile_limit = 64  # one graph for each length of history
            for block in (*self.transformer.blocks, *self.text_encoder.encoder.block):
                block.compile(dynamic=False)

    def _tokens(self, captions: list[str]) -> Tensor:
        return self.prompts.tokens(captions).to(self.device)

    def _tokenize(self, tracks: Tracks) -> Tensor:
        """Token numbers "track section wording s", absent sections repeating the last."""
        most = max(len(c) for c in tracks.captions)
        flat = [w for track in tracks.captions for k in range(most) for w in track[min(k, len(track) - 1)]]
        tokens = self._tokens(flat)
        return tokens.view(len(tracks.captions), most, -1, tokens.shape[-1])

    def _vectors(self, tracks: Tracks) -> Tensor:
        """Latent pixels of clips, drawn evenly."""
        count, draw = self.config.discrete.vectors, torch.Generator().manual_seed(self.config.loop.seed)
        lengths, (h, w) = torch.tensor(tracks.lengths), tracks.latents.shape[3:]
        track = torch.randint(len(lengths), (count,), generator=draw)
        frame = (torch.rand(count, generator=draw) * lengths[track]).long()
        row, column = (torch.randint(side, (count,), generator=draw) for side in (h, w))
        track, frame, row, column = (drawn.to(self.device) for drawn in (track, frame, row, column))
        return tracks.latents[track, frame, :, row, column].float()

    def _new_bank(self) -> ErrorBank:
        channels, height, width = self.tracks.latents.shape[2:]
        shape = channels, self.config.generated, height, width
        return ErrorBank(self.config.corruption.recycle.size, shape, self.device, self.dtype)

    def memory(self) -> Mapping[str, Tensor]:
        """The bank of errors, if there is one."""
        return {} if self.bank is None else {f"bank/{name}": tensor for name, tensor in self.bank.state().items()}

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Transformer (with its history patchify) and text encoder."""
        for name, parameter in self.transformer.named_parameters():
            if self.config.stage == "pack" or "history_patch_embed" not in name:
                yield f"transformer.{name}", parameter
        for name, parameter in self.text_encoder.named_parameters():
            yield f"text_encoder.{name}", parameter

    def _predict(self, section: Section, history: History, noisy: Tensor, sigma: Tensor, numbers: Tensor) -> Tensor:
        packed = pack(section, history, self.backbone.patchify, self.backbone.axes)
        text = self.prompts.embed(numbers)
        return self.backbone.velocity(noisy, sigma, text, packed)

    def _history(self, window: Window, seen: Seen, keys: Tensor, size: int = 0) -> History:
        """What is known to a section, rounded to a codebook of `size` words if that is not 0."""
        frames = seen.frames
        history = History(discretization=self.backbone.discretization({"*": size} if size else {}))
        history.remember([0], frames[:, :, :1], exact=True)
        history.remember(range(1, frames.shape[2]), frames[:, :, 1:], sigma=seen.sigma[:, 1:])
        if window.given:
            history.remember([window.key], keys[:, window.given - 1, :, None], exact=True)
        return history

    def loss(self, step: int) -> Mapping[str, Tensor]:
        """The mean squared error of the velocity on a batch of random tracks."""
        c = self.config
        shared = np.random.default_rng((c.loop.seed, step))  # one for all ranks
        window = draw_window(c, self.tracks.lengths[0], shared)
        draw = np.random.default_rng((c.loop.seed, step, self.rank))
        generator = torch.Generator(self.device).manual_seed(int(draw.integers(1 << 62)))
        chosen = self._sent(draw.integers(self.tracks.with_frames(window.frames), size=c.batch))
        frames = self.tracks.latents[chosen, : window.frames].transpose(1, 2)
        wording = self._sent(draw.integers(self.numbers.shape[2], size=c.batch))
        numbers = self.numbers[chosen, window.place, wording]
        numbers = self._drop_words(numbers, generator)
        target = frames[:, :, window.made]
        sigma = draw_sigmas(c.batch, generator, self.shift, c.uniform_share)
        noise = torch.randn(target.shape, generator=generator, device=self.device, dtype=torch.float32)
        noisy = interpolate(target.float(), noise, sigma)
        size = int(draw.choice(self.sizes)) if self.sizes and draw.random() < c.discrete.share else 0
        keeps = self.bank is not None and shared.random() < c.corruption.recycle.update
        resamples = c.stage == "pack" and c.corruption.resample.share > shared.random()
        keys = self.tracks.keys[chosen]
        if size or keeps:
            seen = Seen.clean(frames)
        else:
            words = self.numbers[chosen, :, wording]
            own = self._own(window, frames, keys, words, generator) if resamples else None
            seen = corrupt(frames, c.corruption, generator, window.near(c.corruption.prefix.frames), own, self.bank)
        history = self._history(window, seen, keys, size)
        velocity = self._predict(window.section, history, noisy.to(self.dtype), sigma, numbers)
        if self.bank is not None and keeps and not size:
            self.bank.keep(denoise(lambda x, s: velocity.float(), noisy, sigma) - target, sigma)
        return {"loss": torch.nn.functional.mse_loss(velocity.float(), target_velocity(target.float(), noise))}

    @torch.no_grad()
    def _own(self, window: Window, frames: Tensor, keys: Tensor, numbers: Tensor, generator: torch.Generator) -> Tensor:
        """The frames, with the last sections made before as the model makes them of the true ones, noised."""
        c, frames = self.config.corruption.resample, frames.clone()
        for section in window.made_before(c.sections):
            made = slice(section.frames[0], section.frames[-1] + 1)
            history = self._history(window, Seen.clean(frames), keys)
            words = numbers[:, (made.start - 1) // self.config.generated]
            sigma = draw_sigmas(len(frames), generator, c.shift)
            noise = torch.randn(frames[:, :, made].shape, generator=generator, device=self.device)

            def velocity(x: Tensor, level: Tensor, section=section, history=history, words=words) -> Tensor:  # noqa: ANN001
                return self._predict(section, history, x.to(self.dtype), level, words).float()

            with torch.compiler.set_stance("force_eager"):  # its shapes are others: not worth graphs of their own
                clean = denoise(velocity, interpolate(frames[:, :, made].float(), noise, sigma), sigma, c.steps)
            frames[:, :, made] = clean.to(frames.dtype)
        return frames

    def _sent(self, drawn: np.ndarray) -> Tensor:
        """The numbers on the device; the host does not wait for them, so that it can go on issuing work."""
        numbers = torch.from_numpy(drawn)
        return numbers.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else numbers

    def _drop_words(self, numbers: Tensor, generator: torch.Generator) -> Tensor:
        unknown = torch.rand(numbers.shape, generator=generator, device=self.device) < self.config.word_drop
        numbers = torch.where(unknown & (numbers > 2), 2, numbers)
        silent = torch.rand(len(numbers), 1, generator=generator, device=self.device) < self.config.caption_drop
        return torch.where(silent, self.nothing, numbers)

    @torch.no_grad()
    def fixed_loss(self, tracks: Tracks, numbers: Tensor, count: int) -> float:
        """The loss on the first tracks of every window, at nine noise levels, always the same noise."""
        losses = []
        for place, window in enumerate(every_window(self.config, tracks.lengths[0])):
            n = min(count, tracks.with_frames(window.frames))
            frames = tracks.latents[:n, : window.frames].transpose(1, 2)
            target = frames[:, :, window.made]
            generator = torch.Generator(self.device).manual_seed(place)
            noise = torch.randn(target.shape, generator=generator, device=self.device, dtype=torch.float32)
            sigma = (torch.arange(n, device=self.device) % 9 + 1) / 10.0
            noisy = interpolate(target.float(), noise, sigma).to(self.dtype)
            history = self._history(window, Seen.clean(frames), tracks.keys[:n])
            velocity = self._predict(window.section, history, noisy, sigma, numbers[:n, window.place, 0])
            losses.append(torch.nn.functional.mse_loss(velocity.float(), target_velocity(target.float(), noise)).item())
        return float(np.mean(losses))

    @torch.no_grad()
    def write_samples(self, path: Path, sections: int = 3) -> None:
        """Some held-out clips beside what the model makes of their first image and captions, as one moving picture."""
        c, count = self.config, min(self.config.sample_clips, len(self.held_out.lengths))
        if c.stage == "base":
            return  # a plain video model has no history to go on from
        order = self.backbone.settings.order
        schedule = parse(c.schedules[order_of(order)])
        sections = min(sections, (self.held_out.lengths[0] - 1) // schedule.generated)
        plan = make_plan(schedule, 1 + schedule.generated * sections, order=order, gaps=c.gaps)
        true = self.held_out.latents[:count, : plan.frames].transpose(1, 2)
        prompts = [[words[0] for words in track] for track in self.held_out.captions[:count]]
        made = roll_out(self.backbone, plan, true[:, :, :1], prompts, c.loop.seed)
        images = [to_images(self.backbone.codec.decode(one)) for half in (true, made) for one in half.split(1)]
        film = rearrange(np.concatenate(images), "(half n) T H W c -> T (n H) (half W) c", half=2)
        pictures = [Image.fromarray(picture) for picture in film]
        path.parent.mkdir(parents=True, exist_ok=True)
        duration = round(1000 / self.backbone.settings.fps)
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0, quality=80)

    def evaluate(self, folder: Path, step: int) -> Mapping[str, float]:
        """The same loss on training tracks and on held-out ones."""
        count = self.config.held_out_clips
        with torch.compiler.set_stance("force_eager"):  # its shapes are others: not worth graphs of their own
            self.write_samples(folder / "samples" / f"{step:06d}.webp")
            return {
                "training_loss": self.fixed_loss(self.tracks, self.numbers, count),
                "held_out_loss": self.fixed_loss(self.held_out, self.held_out_numbers, count),
            }

    def export(self, folder: Path) -> Path:
        """Writes the whole model folder."""
        self.backbone.save(folder)
        return folder
