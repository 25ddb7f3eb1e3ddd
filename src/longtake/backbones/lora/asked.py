"""LoRAs as they are asked for: which file, how strong, in which network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat

from longtake.errors import ModelError

__all__ = ["Lora", "Loras", "meant_for"]

Network = Literal["high", "low"]  # of a model that has two: the one for high noise, which begins, and the one after it


class Lora(BaseModel):
    """A LoRA file, with its weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    weight: FiniteFloat = 1.0
    network: Network | Literal["both"] = "both"

    @classmethod
    def parse(cls, text: str) -> Lora:
        r"""The LoRA that a text such as style.safetensors:0.8@high means.

        A colon is a weight's only where a number is behind it, an at sign a network's only where high or low is.

        >>> Lora.parse("style.safetensors:0.8@high")
        Lora(file=PosixPath('style.safetensors'), weight=0.8, network='high')
        >>> Lora.parse("me@home/style.safetensors")
        Lora(file=PosixPath('me@home/style.safetensors'), weight=1.0, network='both')

        Raises:
            ValueError: what is behind the file is not a network.
        """
        rest, _, network = text.rpartition("@")
        if network not in ("high", "low"):
            rest, network = text, "both"
        if re.search(r"\.safetensors(:[^/@]*)?@", rest):
            raise ValueError(f"{text}: expected FILE, FILE:WEIGHT, and behind either @high or @low")
        file, _, weight = rest.rpartition(":")
        try:
            number = float(weight)
        except ValueError:
            file, number = rest, 1.0
        return cls(file=Path(file), weight=number, network=network)


def _read(value: Any) -> Any:
    """Also reads texts, and a weight for each of several files."""
    if isinstance(value, Mapping):
        return tuple({"file": file, "weight": weight} for file, weight in value.items())
    if isinstance(value, list | tuple):
        return tuple(Lora.parse(str(one)) if isinstance(one, str | Path) else one for one in value)
    return value


Loras = Annotated[tuple[Lora, ...], BeforeValidator(_read)]


def meant_for(loras: Sequence[Lora], network: Network | None) -> tuple[Lora, ...]:
    """Those of several LoRAs that go into a network; None is the only one of its model.

    Raises:
        ModelError: one is for a network that the model does not have.
    """
    for lora in loras:
        if network is None and lora.network != "both":
            raise ModelError(
                f"{lora.file}@{lora.network}: this model has one network; @high and @low are for those of two, such as "
                "wan2.2-a14b"
            )
    return tuple(lora for lora in loras if network is None or lora.network in ("both", network))
