import pytest
import torch
from diffusers import HunyuanVideoFramepackPipeline
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from longtake.backbones.hunyuan.prompts import TEMPLATE, HunyuanPromptEncoder
from longtake.errors import ModelError

WORDS = ["a", "red", "ball", "and", "blue", "box", "rolls", "left", "right", "the", "camera", "turns", "blurry"]
# What makes 95 tokens of the template before a prompt, as with the released tokenizer: its marks, and a word in two.
LLAMA_MARKS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "\n\n", "atmo"]
SHORT, LONG = "a red ball rolls right", " ".join(WORDS * 30)


def words(known, begin, end, marks=(), close=True):
    """A tokenizer with a number a word, punctuation apart; CLIP's closes a prompt with a mark, Llama's does not."""
    table = {mark: number for number, mark in enumerate(("<pad>", "<unk>", begin, end))}
    table |= {word: len(table) + number for number, word in enumerate(dict.fromkeys(known))}
    tokenizer = Tokenizer(WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}" if close else f"{begin} $A",
        special_tokens=[(begin, table[begin]), (end, table[end])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token=begin, eos_token=end
    )
    fast.add_special_tokens({"additional_special_tokens": list(marks)})
    return fast


def template_words():
    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return ["sphere", *(word for word, _ in splitter.pre_tokenize_str(TEMPLATE))]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    tokenizer = words([*WORDS, *template_words()], "<s>", "</s>", LLAMA_MARKS, close=False)
    clip_tokenizer = words(WORDS, "<s>", "</s>")
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # states of the size of 1
        pad_token_id=0,
    )
    clip = CLIPTextConfig(
        vocab_size=len(clip_tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        pad_token_id=0,
        bos_token_id=clip_tokenizer.bos_token_id,
        eos_token_id=clip_tokenizer.eos_token_id,
    )
    return HunyuanPromptEncoder(LlamaModel(llama).eval(), tokenizer, CLIPTextModel(clip).eval(), clip_tokenizer)


@pytest.fixture(scope="module")
def pipeline(encoder):
    return HunyuanVideoFramepackPipeline(
        text_encoder=encoder.llama,
        tokenizer=encoder.tokenizer,
        transformer=None,
        vae=None,
        scheduler=None,
        text_encoder_2=encoder.clip,
        tokenizer_2=encoder.clip_tokenizer,
        image_encoder=None,
        feature_extractor=None,
    )


@pytest.mark.parametrize("prompt", [SHORT, "", "the camera turns left,\n\n a box {} rolls"])
def test_a_prompt_is_encoded_as_in_the_pipeline_of_diffusers(encoder, pipeline, prompt):
    text = encoder.encode([prompt])
    with torch.no_grad():
        tokens, pooled, mask = pipeline.encode_prompt(prompt, device=torch.device("cpu"))
    assert torch.equal(text.mask[:, :256], mask.bool())
    assert text.tokens[text.mask].std() > 0.1
    # The pipeline reads the padding behind the prompt too: sums of other lengths.
    torch.testing.assert_close(text.tokens[text.mask], tokens[mask.bool()], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.pooled, pooled, atol=1e-5, rtol=1e-5)


def test_a_long_prompt_is_cut_as_in_the_pipeline_of_diffusers(encoder, pipeline):
    text = encoder.encode([LONG])
    with torch.no_grad():
        tokens, pooled, mask = pipeline.encode_prompt(LONG, device=torch.device("cpu"))
    assert int(text.mask.sum()) == int(mask.sum()) == 256
    torch.testing.assert_close(text.tokens[:, :256], tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.pooled, pooled, atol=1e-5, rtol=1e-5)


def test_prompts_are_padded_with_zeros_to_the_length_of_the_official_program(encoder):
    text = encoder.encode([SHORT, LONG])
    assert text.tokens.shape == (2, 512, 16)
    assert text.mask.shape == (2, 512)
    assert text.pooled.shape == (2, 8)
    assert (text.tokens[~text.mask] == 0).all()
    assert (text.tokens[text.mask].abs().sum(-1) > 0).all()
    assert encoder.encode([SHORT], length=256).tokens.shape == (1, 256, 16)


def test_no_prompt_can_be_cut_by_its_padding(encoder):
    with pytest.raises(ValueError, match="a length of 255: a prompt may have 256 tokens"):
        encoder.encode([SHORT], length=255)


def test_a_prompt_does_not_depend_on_those_beside_it(encoder):
    alone, both = encoder.encode([SHORT]), encoder.encode([LONG, SHORT])
    assert torch.equal(alone.tokens[0], both.tokens[1])
    assert torch.equal(alone.pooled[0], both.pooled[1])


def test_the_template_is_cropped_and_the_prompt_is_not(encoder):
    """States look only back: of prompts that differ in a word, those before it are the same."""
    assert len(encoder.tokenizer(TEMPLATE.partition("{}")[0])["input_ids"]) == 95
    first, second, third = (encoder.encode([prompt]) for prompt in ("red ball", "red box", "blue box"))
    assert int(first.mask.sum()) == 3  # two words and what closes the turn
    assert torch.equal(first.tokens[0, 0], second.tokens[0, 0])
    assert not torch.allclose(first.tokens[0, 1], second.tokens[0, 1])
    assert not torch.allclose(second.tokens[0, 0], third.tokens[0, 0])


def test_a_negative_prompt_is_read_as_the_prompt_is(encoder):
    guided = encoder.encode_guided([SHORT], ["blurry"], guidance=2.0)
    assert torch.equal(guided.positive.tokens, encoder.encode([SHORT]).tokens)
    assert torch.equal(guided.negative.tokens, encoder.encode(["blurry"]).tokens)
    assert torch.equal(guided.negative.pooled, encoder.encode(["blurry"]).pooled)


def test_without_guidance_the_negative_is_zeros(encoder):
    guided = encoder.encode_guided([SHORT], ["blurry"], guidance=1.0)
    assert torch.equal(guided.negative.mask, guided.positive.mask)
    assert not guided.negative.tokens.any()
    assert not guided.negative.pooled.any()


def test_text_goes_to_another_precision_but_its_mask(encoder):
    text = encoder.encode([SHORT]).to("cpu", torch.bfloat16)
    assert (text.tokens.dtype, text.pooled.dtype, text.mask.dtype) == (torch.bfloat16, torch.bfloat16, torch.bool)


def test_a_prompt_that_fits_loses_nothing(encoder):
    report = encoder.report(SHORT)
    assert report.clip.tokens == 7  # five words and two marks
    assert report.llama.tokens == 6  # five words and what closes the turn
    assert (report.llama.limit, report.clip.limit) == (256, 77)
    assert (report.llama.lost, report.clip.lost) == ("", "")
    assert report.cut == ()


def test_what_clip_loses_is_told_though_llama_reads_all(encoder):
    report = encoder.report(" ".join(["red"] * 75) + " ball\nand box")
    assert (report.llama.lost, report.clip.lost) == ("", "ball\nand box")
    assert report.cut == ("CLIP reads 77 of 80 tokens and loses: ball\nand box",)


def test_what_both_readers_lose_is_told(encoder):
    report = encoder.report(LONG)
    assert report.llama.tokens == len(LONG.split()) + 1
    assert report.llama.lost == " ".join(LONG.split()[256:])  # and what closes the turn
    assert report.clip.lost == " ".join(LONG.split()[75:])
    assert report.cut == (
        f"Llama reads 256 of 391 tokens and loses: {report.llama.lost}",
        f"CLIP reads 77 of 392 tokens and loses: {report.clip.lost}",
    )


def test_the_longest_prompt_that_fits_and_one_word_more(encoder):
    fits, over, lost = (encoder.report(" ".join(["red"] * count)) for count in (255, 256, 257))
    assert not [sentence for sentence in fits.cut if sentence.startswith("Llama")]
    assert over.cut[0] == "Llama reads 256 of 257 tokens and loses: the end mark"
    assert lost.llama.lost == "red"


def test_a_tokenizer_that_would_lose_the_beginning_of_prompts_is_refused(encoder):
    long = words(WORDS, "<s>", "</s>", [TEMPLATE.partition("{}")[0].strip()], close=False)
    with pytest.raises(ModelError, match=r"makes 2 tokens of the template .* 95 are cropped"):
        HunyuanPromptEncoder(encoder.llama, long, encoder.clip, encoder.clip_tokenizer)


def test_states_carry_no_gradient(encoder):
    text = encoder.encode([SHORT])
    assert not text.tokens.requires_grad
    assert not text.pooled.requires_grad
