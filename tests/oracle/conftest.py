import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from longtake.packing import Patchify
from longtake.schedule import Kernel

K1, K2, K4 = Kernel(1, 2, 2), Kernel(2, 4, 4), Kernel(4, 8, 8)

# Two heads of 20 channels: axes of 8, 6 and 6.
SHAPE = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 20,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 48,
    "num_layers": 2,
}


def randomized(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


@pytest.fixture
def randomize():
    """A function (module, seed) that gives a module random weights, all of them."""
    return randomized


@pytest.fixture
def transformer():
    return randomized(WanTransformer3DModel(**SHAPE))


@pytest.fixture
def patchify(transformer):
    transformer.history_patch_embed = randomized(Patchify(transformer.patch_embedding, [K1, K2, K4]), seed=1)
    return transformer.history_patch_embed
