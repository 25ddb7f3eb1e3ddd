"""A whole model of the real classes at tiny size, for tests and benchmarks of all that is around a network."""

from pathlib import Path


def save_tiny(folder: Path) -> Path:
    """Writes the model with random weights, always the same.

    Images of 32 x 48 make latents of 4 channels on a grid of 4 x 6, that is 6 tokens a frame.
    """
    import torch

    from longtake.backbones import Backbone, BackboneSettings, Codec, PromptEncoder
    from longtake.backbones.architecture import (
        CodecShape,
        TextShape,
        TransformerShape,
        new_codec,
        new_text_encoder,
        new_tokenizer,
        new_transformer,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = new_codec(CodecShape(encoder_width=4, decoder_width=4, channels=4))
        shape = TransformerShape(
            layers=2, heads=2, head_size=16, feedforward=32, channels=4, text_width=16, frequencies=16
        )
        transformer = new_transformer(shape)
        torch.nn.init.normal_(transformer.proj_out.weight, std=0.2)  # new ones predict nothing
        tokenizer = new_tokenizer(
            ["a", "red", "ball", "and", "blue", "box", "roll", "left", "right", "the", "camera", "turns"]
        )
        encoder = new_text_encoder(TextShape(width=16, layers=1, heads=2, feedforward=16), len(tokenizer))
        settings = BackboneSettings(steps=2, shift=3.0, guidance=1.0, fps=12.0, height=32, width=48, text_length=12)
        prompts = PromptEncoder(encoder, tokenizer, settings.text_length)
        Backbone.assemble("tiny", transformer, Codec(codec), prompts, settings).save(folder)
    return folder
