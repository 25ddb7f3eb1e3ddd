"""What HunyuanVideo computes from the step and the prompt alone, computed once for a whole video.

    time_text_embed(timestep, pooled, guidance) -> temb        one row
    norm.linear(silu(temb)) -> shift, scale, gate              in every block, and before the output projection
    context_embedder(text, timestep, mask) -> refined text

The steps of all sections of a video have the same timesteps, so every result of these is known before the first. In the
13 B model 3.4 B parameters are modulation matrices and 0.3 B the text refiner: with tables none of them is needed on
the device. Each vector comes from the same one-row product as before, so that the output is equal to the last bit.

Which row is meant is decided by the values that the network is given, at its two embedders. What is not in the tables
is refused. The blocks see nothing of this: each lookup gives a view of one tensor, into which a step's row is copied.
Given on the host, values are read at once; given on the device, reading them waits for the step before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from longtake.backbones.placement.innermost import innermost_forward, place_innermost
from longtake.backbones.placement.layout import rest_module
from longtake.errors import ModelError

__all__ = [
    "Lookup",
    "PromptInputs",
    "Tables",
    "can_be_tabulated",
    "has_tables",
    "modulated_norms",
    "resting_modules",
    "tabulate",
]

_EMBEDDER, _REFINER = "time_text_embed", "context_embedder"
_Norm = AdaLayerNormZero | AdaLayerNormZeroSingle | AdaLayerNormContinuous


@dataclass(frozen=True, slots=True)
class PromptInputs:
    """What the network is given of one prompt at every step, exactly as it is given: type, padding and mask."""

    text: Float[Tensor, "1 s d"]
    mask: Int[Tensor, "1 s"] | Bool[Tensor, "1 s"]
    pooled: Float[Tensor, "1 p"]


@dataclass(frozen=True, slots=True)
class _Key:
    timestep: float
    guidance: float | None
    pooled: bytes


class Lookup(nn.Module):
    """Stands for a linear layer whose result is known. It has the same parameters under the same names.

    `vector` is an attribute, not a buffer: it moves with no one, and a compiled block takes it as an input, so that
    neither another step nor another block is another graph.
    """

    def __init__(self, linear: nn.Module, start: int, stop: int) -> None:
        super().__init__()
        self._parameters, self._buffers, self._modules = linear._parameters, linear._buffers, linear._modules
        self.linear = (linear,)  # in a tuple, so that it is not a child
        self.start, self.stop = start, stop
        self.vector = torch.empty(0)

    def forward(self, embedding: Tensor) -> Tensor:
        """The row of this step; the embedding has had its say at the embedder."""
        return self.vector


class Tables:
    """The tables of one network, in the place of its matrices until `remove`."""

    def __init__(self, transformer: nn.Module, device: torch.device) -> None:
        norms = modulated_norms(transformer)
        self.device = device
        self._embedder, self._refiner = transformer.get_submodule(_EMBEDDER), transformer.get_submodule(_REFINER)
        self._embed, self._refine = innermost_forward(self._embedder), innermost_forward(self._refiner)
        self._rows: dict[_Key, int] = {}
        self._table = torch.empty(0)  # on the host: a row a step and prompt
        self._row = torch.empty(0)  # on the device: of each sample in the batch
        self._prompts: list[PromptInputs] = []  # on the host; the one met last comes first
        self._refined: dict[tuple[int, float], Tensor] = {}
        self._width = norms[0].linear.in_features
        self._lookups: list[tuple[_Norm, Lookup]] = []
        stop = self._width
        for norm in norms:
            start, stop = stop, stop + norm.linear.out_features
            lookup = Lookup(norm.linear, start, stop)
            norm.linear = lookup  # pyright: ignore[reportAttributeAccessIssue]  (declared as what it stands for)
            self._lookups.append((norm, lookup))
        for module in self._resting():
            rest_module(module)
            _move(module, torch.device("cpu"))
        place_innermost(self._embedder, self._look_up_embedding)
        place_innermost(self._refiner, self._look_up_text)

    @property
    def bytes(self) -> int:
        """What the tables take in host memory."""
        tensors = [self._table, *self._refined.values()]
        return sum(tensor.numel() * tensor.itemsize for tensor in tensors)

    @torch.inference_mode(False)
    @torch.no_grad()  # inside: leaving inference mode turns gradients on
    def fill(
        self,
        timesteps: Float[Tensor, " n"],
        prompts: Sequence[PromptInputs],
        guidance: Float[Tensor, " 1"] | None = None,
    ) -> None:
        """Computes every row for these steps and prompts; what was known before is forgotten.

        Each matrix visits the device for a moment, one after the other. To be called again for another video, and
        after adapters that reach the modulation were changed.

        Args:
            timesteps: as the network is given them.
            prompts: as the network is given them; batches may mix them.
            guidance: as the network is given it, or None for a network without.
        """
        timesteps = timesteps.to(self.device)
        told = None if guidance is None else guidance.to(self.device)
        self._prompts = [_moved(prompt, torch.device("cpu")) for prompt in prompts]
        self._rows, self._refined, embeddings = {}, {}, []
        with _visit(self._embedder, self.device):
            for prompt in self._prompts:
                pooled = prompt.pooled.to(self.device)
                for timestep in timesteps.split(1):
                    embedding, replaced = self._embed(timestep, pooled, told)
                    assert replaced is None  # token replacement is refused before
                    key = _Key(timestep.item(), None if guidance is None else guidance.item(), _bits(prompt.pooled))
                    self._rows[key] = len(embeddings)
                    embeddings.append(embedding)
        with _visit(self._refiner, self.device):
            for prompt in self._prompts:
                near = _moved(prompt, self.device)
                for timestep in timesteps.split(1):
                    self._refined[id(prompt), timestep.item()] = self._refine(near.text, timestep, near.mask).cpu()
        columns = [torch.cat(embeddings).cpu()]
        for norm, lookup in self._lookups:
            with _visit(lookup, self.device):
                (linear,) = lookup.linear
                # One row at a time: a product of several rows may round otherwise.
                columns.append(torch.cat([linear(norm.silu(embedding)) for embedding in embeddings]).cpu())
        if len({column.dtype for column in columns}) > 1:
            raise ModelError("the modulation matrices have several types: cast the network to one")
        self._table = torch.cat(columns, dim=1)

    def remove(self) -> None:
        """Gives the network back; what rested stays in host memory."""
        place_innermost(self._embedder, self._embed)
        place_innermost(self._refiner, self._refine)
        for module in self._resting():
            rest_module(module, rests=False)
        for norm, lookup in self._lookups:
            (norm.linear,) = lookup.linear  # pyright: ignore[reportAttributeAccessIssue]
        self._lookups = []

    def _resting(self) -> list[nn.Module]:
        return [self._embedder, self._refiner, *(lookup for _, lookup in self._lookups)]

    @torch.inference_mode(False)
    @torch.no_grad()  # inside: leaving inference mode turns gradients on
    def _look_up_embedding(
        self, timestep: Tensor, pooled_projection: Tensor, guidance: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """The embedder's result; on the way every lookup in the network is given its row."""
        times, told = timestep.tolist(), [None] * len(timestep) if guidance is None else guidance.tolist()
        keys = [_Key(*each) for each in zip(times, told, map(_bits, pooled_projection.split(1)), strict=True)]
        for key in keys:
            if key not in self._rows:
                raise ModelError(
                    f"the modulation tables do not know {self._difference(key)}: fill() them for this video"
                )
        rows = self._table[[self._rows[key] for key in keys]]
        if self._row.shape != rows.shape or self._row.dtype != rows.dtype:
            self._row = torch.empty_like(rows, device=self.device)
            for _, lookup in self._lookups:
                lookup.vector = self._row[:, lookup.start : lookup.stop]
        self._row.copy_(_ready_to_leave(rows, self.device), non_blocking=True)
        return self._row[:, : self._width].clone(), None  # who keeps it, keeps it beyond the next step

    def _look_up_text(self, hidden_states: Tensor, timestep: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The refiner's result."""
        text, masks, found = hidden_states.cpu(), None if attention_mask is None else attention_mask.cpu(), []
        for index, time in enumerate(timestep.tolist()):
            prompt = self._prompt(text[index : index + 1], None if masks is None else masks[index : index + 1])
            if (id(prompt), time) not in self._refined:
                raise ModelError(f"the refined texts do not know timestep {time}: fill() them for this video")
            found.append(self._refined[id(prompt), time])
        return _ready_to_leave(torch.cat(found), self.device).to(self.device, non_blocking=True)

    def _prompt(self, text: Tensor, mask: Tensor | None) -> PromptInputs:
        for place, prompt in enumerate(self._prompts):
            if mask is not None and _same(prompt.text, text) and torch.equal(prompt.mask, mask.to(prompt.mask.dtype)):
                self._prompts.insert(0, self._prompts.pop(place))
                return prompt
        raise ModelError("the refined texts do not know this prompt, type or mask: fill() them for this video")

    def _difference(self, key: _Key) -> str:
        times, told = sorted({k.timestep for k in self._rows}, reverse=True), {k.guidance for k in self._rows}
        if key.timestep not in times:
            return f"timestep {key.timestep} (they hold {', '.join(map(str, times)) or 'none'})"
        if key.guidance not in told:
            return f"guidance {key.guidance} (they hold {', '.join(map(str, told))})"
        return "this pooled prompt"


def tabulate(
    transformer: nn.Module,
    device: torch.device,
    timesteps: Float[Tensor, " n"],
    prompts: Sequence[PromptInputs],
    guidance: Float[Tensor, " 1"] | None = None,
) -> Tables:
    """Puts tables in the place of the modulation matrices and the text refiner, filled for these steps and prompts.

    Adapters are installed before, streaming after. The matrices stay in host memory.

    Raises:
        ModelError: the network is not HunyuanVideo's, has tables already, or modulates single tokens.
    """
    tables = Tables(transformer, device)
    try:
        tables.fill(timesteps, prompts, guidance)
    except Exception:
        tables.remove()
        raise
    return tables


def modulated_norms(transformer: nn.Module) -> list[_Norm]:
    """The norms whose linear layer sees nothing but the step and the pooled prompt.

    Raises:
        ModelError: the network is not HunyuanVideo's, has tables already, or modulates single tokens.
    """
    if not isinstance(transformer, HunyuanVideoTransformer3DModel | HunyuanVideoFramepackTransformer3DModel):
        raise ModelError(
            f"{type(transformer).__name__} has no modulation matrices: tables are for HunyuanVideo's classes"
        )
    if transformer.config["image_condition_type"] == "token_replace":
        raise ModelError("a network that replaces tokens modulates them by two timesteps: there is no table for that")
    norms = [norm for norm in transformer.modules() if isinstance(norm, _Norm)]
    if any(isinstance(norm.linear, Lookup) for norm in norms):
        raise ModelError("this network has tables already: fill() those, or remove() them first")
    return norms


def resting_modules(transformer: nn.Module) -> list[nn.Module]:
    """What no forward reads once there are tables.

    Raises:
        ModelError: there cannot be tables.
    """
    linears = [norm.linear for norm in modulated_norms(transformer)]
    return [transformer.get_submodule(_EMBEDDER), transformer.get_submodule(_REFINER), *linears]


def can_be_tabulated(transformer: nn.Module) -> bool:
    """True for HunyuanVideo's classes, unless they replace tokens."""
    known = isinstance(transformer, HunyuanVideoTransformer3DModel | HunyuanVideoFramepackTransformer3DModel)
    return known and transformer.config["image_condition_type"] != "token_replace"


def has_tables(transformer: HunyuanVideoTransformer3DModel | HunyuanVideoFramepackTransformer3DModel) -> bool:
    """True once there are tables, and until they are removed."""
    return isinstance(transformer.norm_out.linear, Lookup)


def _ready_to_leave(rows: Tensor, device: torch.device) -> Tensor:
    """Host memory from where a copy to the device waits neither for what the device does nor lets the program wait."""
    return rows.pin_memory() if device.type == "cuda" else rows


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _move(module: nn.Module, device: torch.device) -> None:
    for tensor in _tensors(module):
        tensor.data = tensor.data.to(device)


@contextmanager
def _visit(module: nn.Module, device: torch.device) -> Iterator[None]:
    """The module's tensors are on the device inside, and where they were afterwards, without a copy back."""
    home = [tensor.data for tensor in _tensors(module)]
    _move(module, device)
    try:
        yield
    finally:
        for tensor, value in zip(_tensors(module), home, strict=True):
            tensor.data = value


def _moved(prompt: PromptInputs, device: torch.device) -> PromptInputs:
    return PromptInputs(prompt.text.to(device), prompt.mask.to(device), prompt.pooled.to(device))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _bits(tensor: Tensor) -> bytes:
    return str(tensor.dtype).encode() + tensor.contiguous().view(torch.uint8).cpu().numpy().tobytes()
