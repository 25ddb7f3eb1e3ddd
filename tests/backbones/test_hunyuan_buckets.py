from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from longtake.backbones.hunyuan.buckets import BUCKETS, Bucket, buckets_at, find_bucket, fit_bucket
from longtake.errors import InputError

sides = st.integers(1, 4000)


def test_there_are_seven_shapes_and_their_transposes():
    sizes = [(bucket.height, bucket.width) for bucket in BUCKETS]
    assert sizes[:7] == [(416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640)]
    assert sizes[7:] == [(width, height) for height, width in reversed(sizes[:7])]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1000, 1000, Bucket(640, 608)),  # 608 x 640 is as near; the later one wins
        (1, 1, Bucket(640, 608)),
        (1080, 1920, Bucket(480, 832)),
        (1920, 1080, Bucket(832, 480)),
        (720, 1280, Bucket(480, 832)),
        (3000, 4000, Bucket(544, 704)),
        (100, 5000, Bucket(416, 960)),
        (5000, 100, Bucket(960, 416)),
    ],
)
def test_the_bucket_of_a_picture_is_the_official_one(height, width, expected):
    assert find_bucket(height, width) == expected


@given(sides, sides)
def test_no_bucket_is_nearer_and_no_later_one_as_near(height, width):
    distances = [abs(height * bucket.width - width * bucket.height) for bucket in BUCKETS]
    found = BUCKETS.index(find_bucket(height, width))
    assert distances[found] == min(distances)
    assert min(distances) not in distances[found + 1 :]


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_picture_of_a_buckets_size_is_kept_as_it_is(bucket):
    assert find_bucket(bucket.height, bucket.width) == bucket
    image = np.zeros((bucket.height, bucket.width, 3), np.uint8)
    assert fit_bucket(image, bucket) is image


@given(st.integers(160, 4096))
def test_other_resolutions_keep_the_shapes_on_the_grid(resolution):
    for bucket, official in zip(buckets_at(resolution), BUCKETS, strict=True):
        for side, of in ((bucket.height, official.height), (bucket.width, official.width)):
            assert side % 16 == 0
            assert abs(side - Fraction(of * resolution, 640)) <= 8  # the nearest multiple of 16


def test_the_official_resolution_has_the_official_buckets():
    assert buckets_at(640) == BUCKETS


def test_a_resolution_without_shape_is_refused():
    with pytest.raises(InputError, match="a resolution of 64: expected 160 or more, officially 640"):
        buckets_at(64)


@pytest.mark.parametrize("size", [(700, 500), (333, 1001), (1201, 640), (90, 90), (640, 609)])
def test_pixels_are_those_of_pillow_scaled_to_cover_and_cropped_at_the_center(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    bucket = find_bucket(*size)
    scale = max(bucket.height / size[0], bucket.width / size[1])
    height, width = round(size[0] * scale), round(size[1] * scale)
    left, top = (width - bucket.width) / 2, (height - bucket.height) / 2
    cropped = (
        Image.fromarray(image)
        .resize((width, height), Image.Resampling.LANCZOS)
        .crop((left, top, left + bucket.width, top + bucket.height))  # Pillow rounds the box
    )
    fitted = fit_bucket(image, bucket)
    assert fitted.shape == (bucket.height, bucket.width, 3)
    assert np.array_equal(fitted, np.asarray(cropped))


def test_a_picture_of_which_nothing_would_be_left_is_refused():
    with pytest.raises(InputError, match=r"10000 x 2 pixels: hardly anything .* at 960 x 416; crop it"):
        fit_bucket(np.zeros((2, 10_000, 3), np.uint8), Bucket(416, 960))
