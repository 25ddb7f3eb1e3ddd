"""The models that longtake knows by name: where their parts are, how they want to be used, what they cost to fetch.

Nothing here is read from the hub while the program runs. Parameters are counted on networks built from the published
configs. Whether a file holds 2 or 4 bytes of each was seen in the hub's listing of it where a part says so, and is
what its siblings have where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from longtake.backbones.helios.anchor import SCHEDULE
from longtake.backbones.helios.sampling import SAMPLINGS
from longtake.backbones.hunyuan.buckets import BUCKETS, Bucket
from longtake.backbones.settings import BackboneSettings
from longtake.flow import FRAMEPACK_SHIFT, WAN_SHIFT, SizeShift
from longtake.plan import INVERTED, VANILLA

__all__ = ["MODELS", "ModelRow", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """One of the folders that a model is made of."""

    name: str  # as diffusers calls it
    repo: str  # on the hub; empty for what comes with longtake
    folder: str  # in the repository; empty for its root
    kind: str  # the class that reads it
    parameters: int = 0  # none in tokenizers and processors
    width: Literal[2, 4] = 2  # bytes each in the file
    seen: bool = False  # the size was seen on the hub; else it is approximate

    @property
    def bytes(self) -> int:
        """What its weights take on disk; the rest of a folder is small, 21 MB at most."""
        return self.parameters * self.width


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model, as data."""

    name: str
    sentence: str  # what one would want it for
    use: Literal["ready", "base"]  # a base knows no packed history before it is trained on it
    family: Literal["wan", "hunyuan", "helios"]
    parts: tuple[Part, ...]
    settings: BackboneSettings  # order and schedules among them
    buckets: tuple[Bucket, ...]  # sizes that it was trained at or is published for
    licence: str
    unknown: str = ""  # what was not found out
    assets: str = ""  # the folder in this package, of a model that comes with it

    @property
    def network(self) -> str:
        """The class of the transformer."""
        return self.parts[0].kind

    @property
    def bytes(self) -> int:
        """What all of its weights take on disk."""
        return sum(part.bytes for part in self.parts)

    @property
    def repos(self) -> tuple[str, ...]:
        """The repositories that its parts come from, each once."""
        return tuple(dict.fromkeys(part.repo for part in self.parts))


_HUNYUAN = "hunyuanvideo-community/HunyuanVideo"
_FLUX = "lllyasviel/flux_redux_bfl"

# The sum of the listing, 41.9 GB, is that of these and a transformer of 12,821,012,544 parameters in 2 bytes.
_HUNYUAN_PARTS = (
    Part("vae", _HUNYUAN, "vae", "AutoencoderKLHunyuanVideo", 246_478_803, 4, seen=True),
    Part("text_encoder", _HUNYUAN, "text_encoder", "LlamaModel", 7_505_186_816, seen=True),
    Part("tokenizer", _HUNYUAN, "tokenizer", "tokenizer"),
    Part("text_encoder_2", _HUNYUAN, "text_encoder_2", "CLIPTextModel", 123_060_480, seen=True),
    Part("tokenizer_2", _HUNYUAN, "tokenizer_2", "tokenizer"),
)
_SIGLIP_PARTS = (
    Part("image_encoder", _FLUX, "image_encoder", "SiglipVisionModel", 428_225_600, seen=True),  # listed: 857 MB
    Part("feature_extractor", _FLUX, "feature_extractor", "processor"),
)
_HUNYUAN_LICENCE = "Tencent Hunyuan Community License (not for use in the EU, the UK and South Korea)"
_FRAMEPACK_LICENCE = (
    f"none is known to be named for the weights; the program is Apache-2.0, the model they were trained from has the "
    f"{_HUNYUAN_LICENCE}; the image encoder's repository mirrors FLUX.1-Redux-dev, which is non-commercial"
)
_FRAMEPACK = "HunyuanVideoFramepackTransformer3DModel"


def _framepack(name: str, sentence: str, repo: str, seen: bool, order: str, schedule: str, unknown: str) -> ModelRow:
    return ModelRow(
        name=name,
        sentence=sentence,
        use="ready",
        family="hunyuan",
        parts=(
            Part("transformer", repo, "", _FRAMEPACK, 12_874_314_816, seen=seen),
            *_HUNYUAN_PARTS,
            *_SIGLIP_PARTS,
        ),
        settings=BackboneSettings(  # what the official program does if nothing is said
            schedules={order: schedule},
            order=order,
            gaps="clamped",
            missing="zeros",
            steps=25,
            solver="unipc",
            shift=FRAMEPACK_SHIFT,
            guidance=1.0,
            distilled_guidance=10.0,
            draft="teacache",
            fps=30.0,
            height=640,
            width=608,
            text_length=512,
        ),
        buckets=BUCKETS,
        licence=_FRAMEPACK_LICENCE,
        unknown=unknown,
    )


_SIZES_480 = (Bucket(480, 832), Bucket(832, 480))
_SIZES_720 = (Bucket(720, 1280), Bucket(1280, 720))
_SIZES_704 = (Bucket(704, 1280), Bucket(1280, 704))


def _wan_parts(
    repo: str, transformers: tuple[Part, ...], text_width: Literal[2, 4], codec: int, seen: bool = False
) -> tuple[Part, ...]:
    """Transformers, then what all Wan models have; the text encoder is listed with 22.7 GB or 11.4 GB where seen."""
    return (
        *transformers,
        Part("vae", repo, "vae", "AutoencoderKLWan", codec, 4),  # listed in mirrors of both codecs: 508 MB, 2.82 GB
        Part("text_encoder", repo, "text_encoder", "UMT5EncoderModel", 5_680_910_336, text_width, seen),
        Part("tokenizer", repo, "tokenizer", "tokenizer"),
    )


def _wan_transformer(
    repo: str, parameters: int, width: Literal[2, 4], name: str = "transformer", seen: bool = False
) -> Part:
    return Part(name, repo, name, "WanTransformer3DModel", parameters, width, seen)


def _base(
    shift: float | SizeShift, bucket: Bucket, guidance: float, steps: int = 50, fps: float = 16.0
) -> BackboneSettings:
    """The defaults of an untrained model in all that concerns history, the publisher's in what does not."""
    return BackboneSettings(
        shift=shift, guidance=guidance, steps=steps, fps=fps, height=bucket.height, width=bucket.width
    )


_WAN_CODEC, _WAN22_CODEC = 126_892_531, 704_688_668
_WAN_13B, _WAN_14B = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers"
_WAN_I2V = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
_WAN_5B, _WAN_A14B = "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
_APACHE = "Apache-2.0"


def _helios(kind: str, sentence: str, guidance: float) -> ModelRow:
    name, sampling = f"BestWishYsh/Helios-{kind}", SAMPLINGS[kind.lower()]
    transformer = Part("transformer", name, "transformer", "HeliosTransformer3DModel", 14_312_427_584)
    return ModelRow(
        name=f"helios-{kind.lower()}",
        sentence=sentence,
        use="ready",
        family="helios",
        parts=(
            *_wan_parts(name, (transformer,), 2, _WAN_CODEC),
            Part("scheduler", name, "scheduler", "scheduler"),  # it says how the model is sampled
        ),
        settings=BackboneSettings(
            schedules={"vanilla": SCHEDULE},
            manner="anchored",
            missing="zeros",
            history_time="clean",
            steps=sampling.steps,
            solver=sampling.usual.solver,
            shift=sampling.usual.shift,
            sampling=sampling,
            guidance=guidance,
            fps=24.0,
            height=384,
            width=640,
        ),
        buckets=(Bucket(384, 640),),
        licence="Apache-2.0, as its program says",
        unknown="bytes of the files, and the scheduler's config: the shift is that of its training's validation",
    )


_ROWS = (
    ModelRow(
        name="embedded",
        sentence="A small Wan trained on simulated toys: it shows everything at once, on a CPU.",
        use="ready",
        family="wan",
        parts=(
            Part("transformer", "", "transformer", "WanTransformer3DModel", 19_789_888, seen=True),
            Part("vae", "", "vae", "AutoencoderKLWan", 2_680_764, seen=True),
            Part("text_encoder", "", "text_encoder", "UMT5EncoderModel", 1_124_544, seen=True),
            Part("tokenizer", "", "tokenizer", "tokenizer"),
        ),
        settings=BackboneSettings(
            gaps="near", steps=8, shift=3.0, guidance=1.0, fps=12.0, height=96, width=160, text_length=40
        ),  # as in its longtake.json
        buckets=(Bucket(96, 160),),
        licence=_APACHE,
        assets="embedded",
    ),
    _framepack(
        "framepack-i2v",
        "FramePack on HunyuanVideo, made from the end to the start image: it drifts least.",
        "lllyasviel/FramePackI2V_HY",  # listed: 9.97 + 9.99 + 5.79 GB
        True,
        "inverted",
        INVERTED,
        "",
    ),
    _framepack(
        "framepack-f1",
        "FramePack-F1 on HunyuanVideo, made forward: it moves more, and is watched while it grows.",
        "lllyasviel/FramePack_F1_I2V_HY_20250503",
        False,
        "vanilla",
        VANILLA,
        "bytes and fields of its own files: it is read by the same class as framepack-i2v",
    ),
    _helios("Base", "FramePack's packing on Wan 2.1 14B, made forward: best of the three, slowest.", 5.0),
    _helios("Mid", "Helios on the way to few steps, sampled from coarse to fine.", 5.0),
    _helios("Distilled", "Helios in six steps from coarse to fine, without guidance.", 1.0),
    ModelRow(
        name="hunyuanvideo",
        sentence="The text-to-video model that FramePack was trained from.",
        use="base",
        family="hunyuan",
        parts=(
            Part("transformer", _HUNYUAN, "transformer", "HunyuanVideoTransformer3DModel", 12_821_012_544, seen=True),
            *_HUNYUAN_PARTS,
        ),
        settings=_base(7.0, _SIZES_720[0], guidance=1.0, fps=24.0),
        buckets=_SIZES_720,
        licence=_HUNYUAN_LICENCE,
    ),
    ModelRow(
        name="wan2.1-t2v-1.3b",
        sentence="The smallest Wan: the base to try a training with, on one consumer GPU.",
        use="base",
        family="wan",
        # Listed: 5.00 GB + 677 MB, float32.
        parts=_wan_parts(
            _WAN_13B, (_wan_transformer(_WAN_13B, 1_418_996_800, 4, seen=True),), 4, _WAN_CODEC, seen=True
        ),
        settings=_base(WAN_SHIFT, _SIZES_480[0], guidance=5.0),
        buckets=_SIZES_480,
        licence=_APACHE,
    ),
    ModelRow(
        name="wan2.1-t2v-14b",
        sentence="The large text-to-video Wan, from which Helios was trained.",
        use="base",
        family="wan",
        parts=_wan_parts(_WAN_14B, (_wan_transformer(_WAN_14B, 14_288_491_584, 4),), 4, _WAN_CODEC, seen=True),
        settings=_base(WAN_SHIFT, _SIZES_720[0], guidance=5.0),
        buckets=(*_SIZES_480, *_SIZES_720),
        licence=_APACHE,
    ),
    ModelRow(
        name="wan2.1-i2v-14b",
        sentence="The image-to-video Wan: it reads its start image through CLIP and beside the noise as well.",
        use="base",
        family="wan",
        parts=(
            *_wan_parts(_WAN_I2V, (_wan_transformer(_WAN_I2V, 16_394_878_784, 4),), 4, _WAN_CODEC),
            Part("image_encoder", _WAN_I2V, "image_encoder", "CLIPVisionModel", 630_766_080, 4),  # 2.52 GB in a mirror
            Part("image_processor", _WAN_I2V, "image_processor", "processor"),
        ),
        settings=_base(WAN_SHIFT, _SIZES_480[0], guidance=5.0),
        buckets=_SIZES_480,
        licence=_APACHE,
    ),
    ModelRow(
        name="wan2.2-ti2v-5b",
        sentence="The Wan whose codec makes a latent of 16 x 16 pixels: large pictures at the price of small ones.",
        use="base",
        family="wan",
        parts=_wan_parts(_WAN_5B, (_wan_transformer(_WAN_5B, 4_999_787_712, 4),), 2, _WAN22_CODEC, seen=True),
        settings=_base(5.0, _SIZES_704[0], guidance=5.0, fps=24.0),
        buckets=(*_SIZES_704, *_SIZES_480),
        licence=_APACHE,
        unknown="bytes of the transformer's files: float32 is assumed",
    ),
    ModelRow(
        name="wan2.2-a14b",
        sentence="Two transformers of 14 B, one for the noise and one for the details: both are trained.",
        use="base",
        family="wan",
        parts=_wan_parts(
            _WAN_A14B,  # one of 12 shards of transformer_2 is listed: 4.92 GB, so float32
            (
                _wan_transformer(_WAN_A14B, 14_288_491_584, 4, seen=True),
                _wan_transformer(_WAN_A14B, 14_288_491_584, 4, "transformer_2", seen=True),
            ),
            2,
            _WAN_CODEC,
        ),
        settings=_base(12.0, _SIZES_720[0], guidance=4.0, steps=40).model_copy(
            update={"boundary": 0.875, "second_guidance": 3.0}
        ),
        buckets=(*_SIZES_720, *_SIZES_480),
        licence=_APACHE,
    ),
)
MODELS: dict[str, ModelRow] = {row.name: row for row in _ROWS}
