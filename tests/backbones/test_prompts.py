import pytest
import torch

from longtake.backbones import PromptEncoder
from longtake.backbones.architecture import TextShape, new_text_encoder, new_tokenizer
from longtake.errors import ModelError

WORDS = ["a", "red", "ball", "and", "blue", "box", "roll", "left", "right", "the", "camera", "turns"]


@pytest.fixture(scope="module")
def prompts():
    torch.manual_seed(0)
    tokenizer = new_tokenizer(WORDS)
    encoder = new_text_encoder(TextShape(width=16, layers=2, heads=2, feedforward=16), len(tokenizer))
    return PromptEncoder(encoder.eval(), tokenizer, text_length=8)


def test_prompts_are_padded_with_zeros(prompts):
    text = prompts.encode(["a red ball", ""])
    assert text.shape == (2, 8, 16)
    assert (text[0, :4].abs().sum(1) > 0).all()  # three words and the end mark
    assert (text[0, 4:] == 0).all()
    assert (text[1, 1:] == 0).all()


def test_a_prompt_is_encoded_as_in_the_pipeline_of_diffusers(prompts):
    from diffusers import WanPipeline

    pipeline = WanPipeline(prompts.tokenizer, prompts.encoder, vae=None, scheduler=None)
    words = ["a red ball", "the camera turns left, the box and the ball roll right"]
    theirs = pipeline._get_t5_prompt_embeds(words, max_sequence_length=8, device=torch.device("cpu"))
    torch.testing.assert_close(prompts.encode(words), theirs, atol=1e-6, rtol=1e-5)


def test_a_prompt_does_not_depend_on_those_beside_it(prompts):
    alone = prompts.encode(["a red ball"])
    assert torch.equal(prompts.encode(["the camera turns left and right", "a red ball"])[1:], alone)


def test_embedding_tokens_is_encoding_with_gradients(prompts):
    words = ["a red ball", "", "blue box"]
    embedded = prompts.embed(prompts.tokens(words))
    torch.testing.assert_close(embedded, prompts.encode(words), atol=1e-6, rtol=1e-5)
    embedded.square().mean().backward()
    assert prompts.encoder.shared.weight.grad.abs().max() > 0


def test_spaces_and_lines_do_not_count(prompts):
    assert torch.equal(prompts.encode(["  a red\n ball "]), prompts.encode(["a red ball"]))


def test_a_prompt_that_fits_loses_nothing(prompts):
    report = prompts.report("a red ball")
    assert (report.tokens, report.limit, report.lost, report.unknown) == (4, 8, "", ())
    assert prompts.report("").tokens == 1


def test_a_cut_prompt_says_what_is_lost(prompts):
    report = prompts.report("the camera turns left and the red ball rolls right")
    assert report.tokens == 11
    assert report.lost == "ball rolls right"
    assert report.unknown == ("rolls",)


def test_a_tokenizer_without_padding_is_refused(prompts):
    tokenizer = new_tokenizer(WORDS)
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match="padding"):
        PromptEncoder(prompts.encoder, tokenizer, 8)
