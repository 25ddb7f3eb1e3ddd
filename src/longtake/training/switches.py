"""What can be done to the history in training, as data: a small table of a config for each switch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "ChannelConfig",
    "CorruptionConfig",
    "DownsampleConfig",
    "DropConfig",
    "FrameNoiseConfig",
    "PrefixConfig",
    "RecycleConfig",
    "ResampleConfig",
    "Share",
    "Switch",
]

Share = Annotated[float, Field(ge=0, le=1)]


class Switch(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FrameNoiseConfig(Switch):
    """A noise level for each frame of the history (Helios; Diffusion Forcing at a share and a noise of 1)."""

    share: Share = 0.0  # of frames
    noise: Share = 0.33  # the largest sigma


class DownsampleConfig(Switch):
    """History without its detail: averages over squares of latent pixels."""

    share: Share = 0.0  # of samples
    factors: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (2, 4)  # sides of the squares


class ChannelConfig(Switch):
    """History in other colors: a gain and a shift for each latent channel."""

    share: Share = 0.0  # of samples
    gain: float = Field(default=0.1, ge=0)  # deviation of the gain around 1
    shift: float = Field(default=0.1, ge=0)  # deviation of the shift around 0; latents have a deviation of 1


class DropConfig(Switch):
    """History with zeros in the place of frames."""

    share: Share = 0.0  # of samples
    frames: Share = 0.5  # of the frames of such a sample


class ResampleConfig(Switch):
    """History as the model itself makes it: sections noised and denoised again, without gradients.

    Resampling Forcing (arXiv 2512.15702). Each such step costs `sections * steps` more passes of the network.
    """

    share: Share = 0.0  # of steps
    sections: int = Field(default=1, ge=1)  # how many of those made before, each seeing the ones resampled before it
    steps: int = Field(default=1, ge=1)  # from the drawn level down to clean
    shift: float = Field(default=0.6, gt=0)  # of the logit-normal level: below 1 the levels are low


class RecycleConfig(Switch):
    """History with errors that the model made before (error recycling, Stable Video Infinity, arXiv 2510.09212)."""

    share: Share = 0.0  # of samples
    gamma: tuple[float, float] = (0.7, 1.3)  # what an error is multiplied with: from, to
    highest: Share = 0.7  # the largest noise level whose errors are used; above it they are mostly blur
    size: int = Field(default=256, ge=1)  # sections whose errors are kept
    update: Share = 0.1  # of steps, whose history stays clean and whose errors are kept

    @model_validator(mode="after")
    def _can_be_done(self) -> RecycleConfig:
        if self.gamma[0] > self.gamma[1]:
            raise ValueError(f"gamma goes from {self.gamma[0]} to {self.gamma[1]}; expected the lower first")
        if self.share and not self.update:
            raise ValueError("update is 0, so the bank would stay empty; expected a share of steps, such as 0.1")
        return self


class PrefixConfig(Switch):
    """The clean-prefix curriculum: far frames stay clean, near ones are noise, so that the far ones have to be read."""

    share: Share = 0.0  # of samples whose section sees more than the near frames
    frames: int = Field(default=9, ge=1)  # seen frames that count as near
    noise: tuple[Share, Share] = (0.7, 1.0)  # sigma of the near ones: from, to
    dropped: Share = 0.5  # of such samples: zeros instead of noise

    @model_validator(mode="after")
    def _rises(self) -> PrefixConfig:
        if self.noise[0] > self.noise[1]:
            raise ValueError(f"noise goes from {self.noise[0]} to {self.noise[1]}; expected the lower first")
        return self


class CorruptionConfig(Switch):
    """What is done to the history in training, so that the model's own errors do not surprise it later.

    The order in which the changes are made is that of `training/corruption.py`.
    """

    noise: Share = 0.25  # the largest sigma mixed into the history, one level a video
    noisy_share: Share = 0.5  # of samples
    frame_noise: FrameNoiseConfig = FrameNoiseConfig()
    downsample: DownsampleConfig = DownsampleConfig()
    channels: ChannelConfig = ChannelConfig()
    drop: DropConfig = DropConfig()
    resample: ResampleConfig = ResampleConfig()
    recycle: RecycleConfig = RecycleConfig()
    prefix: PrefixConfig = PrefixConfig()
