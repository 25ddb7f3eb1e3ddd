"""What a model was trained for: the file `longtake.json` in its folder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from longtake.errors import PlanError, ScheduleError
from longtake.flow import DirectShift, LinearShift, Sampling, SizeShift, shift_for
from longtake.plan import BOTH_SIDES, INVERTED, Gaps, Manner, find_order, order_of
from longtake.schedule import parse

__all__ = ["BackboneSettings", "Without"]

Without = Annotated[float, Field(gt=0, le=1)] | Literal["drop"]


class BackboneSettings(BaseModel):
    """How a model wants to be used. The defaults are those of a plain Wan, not yet trained on packed history."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    schedules: dict[str, str] = {  # a name for each order the model knows
        "vanilla": BOTH_SIDES,
        "inverted": INVERTED,
        "planned": BOTH_SIDES,
        "anti_drifting": BOTH_SIDES,
    }
    order: str = "vanilla"  # the one to use if none is asked for
    gaps: Gaps = "clamped"
    manner: Manner = "stream"  # anchored: the codec starts anew with each section, and all see the start image alone
    missing: Literal["absent", "zeros"] = "absent"
    history_time: Literal["same", "clean", "noisy"] = "same"  # the noise level that history tokens are told
    attention: Literal["full", "causal"] = "full"  # causal: history does not see what is made of it
    history_sigma: float = Field(default=0.0, ge=0, le=1)  # of the noise that is mixed into history
    history_guidance: float = Field(default=1.0, ge=1)  # how far to lead away from what comes without history
    history_without: Without = "drop"  # what stands for no history: made frames at this sigma, or zeros
    steps: int = Field(default=30, gt=0)
    solver: Literal["euler", "unipc", "unipc_flow", "dmd"] = "euler"
    shift: Annotated[float, Field(gt=0)] | LinearShift | DirectShift | SizeShift = 5.0  # of noise levels, or a rule
    sampling: Sampling | None = None  # from coarse to fine, if so; it stands for steps, solver and shift
    guidance: float = Field(default=5.0, ge=1)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    distilled_guidance: float | None = None  # that the network was distilled to obey; None: it was not
    boundary: float = Field(default=0.0, ge=0, lt=1)  # the sigma below which a second transformer takes over
    second_guidance: float = Field(default=1.0, ge=1)  # of that one
    draft: str = "first_block"  # the step cache that a draft is made with
    compat: Literal["longtake", "official"] = "longtake"  # official: steps are told as FramePack's program rounds them
    fps: float = Field(default=16.0, gt=0)
    height: int = Field(default=480, gt=0)
    width: int = Field(default=832, gt=0)
    text_length: int = Field(default=512, gt=0)
    codebook: int = Field(default=128, gt=0)  # words that +D rounds to if nothing is said (paper: 128)

    @field_validator("schedules")
    @classmethod
    def _readable(cls, schedules: dict[str, str]) -> dict[str, str]:
        for order, name in schedules.items():
            try:
                find_order(order)
                parse(name)
            except (PlanError, ScheduleError) as error:
                raise ValueError(str(error)) from error
        return schedules

    @model_validator(mode="after")
    def _order_has_a_schedule(self) -> BackboneSettings:
        if order_of(self.order) not in self.schedules:
            raise ValueError(f"order {self.order!r} has no schedule; there are {', '.join(self.schedules)}")
        return self

    def shift_at(self, tokens: int, pixels: int) -> float:
        """The shift of the noise levels for a section of so many tokens, its images of so many pixels."""
        return self.shift.at(pixels) if isinstance(self.shift, SizeShift) else shift_for(tokens, self.shift)
