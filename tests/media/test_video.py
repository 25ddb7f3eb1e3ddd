import itertools
import json
import os
import resource
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from longtake.errors import InputError, OutputError
from longtake.media import (
    append_segment,
    join_segments,
    read_comment,
    read_video,
    save_image,
    whole,
    write_segment,
    write_video,
)

COMMENT = json.dumps({"prompt": "ein roter Ball, красный шар, 赤いボール, كرة حمراء, \U0001f534", "seed": 2**62})


def moving(images, seed=0, height=32, width=48):
    """A smooth moving picture, which H.264 keeps well."""
    y, x = np.mgrid[:height, :width]
    t = np.arange(images)[:, None, None] + 10 * seed
    light = 128 + 60 * np.sin((x + 2 * t) / 9) + 40 * np.cos((y + t) / 7)
    warmth = 15 * np.sin((x + y + t) / 11)
    return np.stack([light + warmth, light, light - warmth], -1).astype(np.uint8)


def segments_of(folder, count=4, each=8, fps=12.0):
    """Segments as a run makes them: the first one has the start image too."""
    made, first = [], 0
    for place in range(count):
        images = each + (place == 0)
        made.append(write_segment(moving(images, place), folder / f"{place:04d}.mp4", first, fps))
        first += images
    return made


def packets_of(path):
    with av.open(str(path)) as container:
        return [p for p in container.demux(video=0) if p.size]


def seconds_of(path):
    return [p.pts * p.time_base for p in packets_of(path)]


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    return segments_of(tmp_path_factory.mktemp("segments"))


@pytest.fixture(scope="module")
def video(segments, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    write_video(segments, path, COMMENT)
    return path


def test_a_segment_says_what_it_is(tmp_path):
    segment = write_segment(moving(5), tmp_path / "a.mp4", first=37, fps=12.0)
    assert (segment.path, segment.first, segment.images) == (tmp_path / "a.mp4", 37, 5)
    assert len(read_video(segment.path)) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_videos_are_h264_in_yuv420p_of_the_right_size_and_rate(segments, video):
    for path in (segments[0].path, video):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 48, 32)
            assert stream.average_rate == 12


def test_players_are_told_the_colors(segments, video, tmp_path):
    """ITU-T H.273 calls BT.709 1, for space, primaries and transfer; range 1 is limited."""
    join_segments(segments, tmp_path / "growing.mp4")
    for path in (segments[0].path, video, tmp_path / "growing.mp4"):
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            colors = context.colorspace, context.color_primaries, context.color_trc, context.color_range
            frame = next(container.decode(video=0))
        assert colors == (1, 1, 1, 1)
        assert (frame.colorspace, frame.color_range) == (1, 1)


def test_each_segment_begins_with_its_only_key_frame_and_has_no_b_frames(segments):
    for segment in segments:
        packets = packets_of(segment.path)
        assert [p.is_keyframe for p in packets] == [True] + [False] * (segment.images - 1)
        assert all(p.pts == p.dts for p in packets)
        with av.open(str(segment.path)) as container:
            kinds = {PictureType(frame.pict_type) for frame in container.decode(video=0)}
        assert kinds <= {PictureType.I, PictureType.P}


@pytest.mark.parametrize("fps", [1.0, 12.0, 16.0, 23.976, 24000 / 1001, 25.0, 30000 / 1001, 60.0])
def test_images_follow_each_other_at_the_right_rate_from_0_on(tmp_path, fps):
    parts = segments_of(tmp_path, count=3, each=4, fps=fps)
    for part in parts:
        append_segment(tmp_path / "growing.mp4", part)
    write_video(parts, tmp_path / "video.mp4", "")
    wanted = [i / Fraction(fps).limit_denominator(1001) for i in range(13)]
    for path in (tmp_path / "growing.mp4", tmp_path / "video.mp4"):
        seconds = seconds_of(path)
        assert len(seconds) == 13
        assert seconds[0] == 0
        assert all(a < b for a, b in itertools.pairwise(seconds))
        assert max(abs(a - b) for a, b in zip(seconds, wanted, strict=True)) < 1e-4  # the container's clock


def test_a_single_image_can_be_a_segment(tmp_path):
    parts = segments_of(tmp_path, count=3, each=1)
    write_video(parts, tmp_path / "video.mp4", "")
    assert seconds_of(tmp_path / "video.mp4") == [Fraction(i, 12) for i in range(4)]


def test_images_come_back_close_to_what_they_were(segments, video):
    truth = np.concatenate([moving(s.images, place) for place, s in enumerate(segments)])
    seen = read_video(video)
    assert seen.shape == truth.shape
    # 40 dB: crf 16 of a smooth picture, whose colors are kept at half the size
    assert np.square(seen.astype(float) - truth).mean() < 255**2 / 10**4


def test_a_lower_crf_is_closer(tmp_path):
    def error(crf):
        segment = write_segment(moving(6), tmp_path / f"{crf}.mp4", 0, 12.0, crf=crf)
        return np.square(read_video(segment.path).astype(float) - moving(6)).mean()

    assert error(1) < error(20) < error(40)


def test_a_scaled_segment_is_larger_and_shows_the_same(tmp_path):
    segment = write_segment(moving(3), tmp_path / "a.mp4", 0, 12.0, scale=4)
    large = read_video(segment.path)
    assert large.shape == (3, 128, 192, 3)
    small = large.reshape(3, 32, 4, 48, 4, 3).mean((2, 4))
    assert np.abs(small - moving(3)).mean() < 3  # gray levels: H.264 and the filter


def test_the_same_images_give_the_same_bytes(segments, video, tmp_path):
    again = segments_of(tmp_path)
    assert [s.path.read_bytes() for s in again] == [s.path.read_bytes() for s in segments]
    write_video(again, tmp_path / "video.mp4", COMMENT)
    assert (tmp_path / "video.mp4").read_bytes() == video.read_bytes()


def test_no_image_is_encoded_twice(segments, video, tmp_path):
    encoded = [bytes(p) for s in segments for p in packets_of(s.path)]
    assert [bytes(p) for p in packets_of(video)] == encoded
    join_segments(segments, tmp_path / "growing.mp4")
    assert [bytes(p) for p in packets_of(tmp_path / "growing.mp4")] == encoded


def test_a_video_that_grew_equals_one_that_is_joined(segments, tmp_path):
    for segment in segments:
        append_segment(tmp_path / "grown.mp4", segment)
    join_segments(segments, tmp_path / "joined.mp4")
    assert (tmp_path / "grown.mp4").read_bytes() == (tmp_path / "joined.mp4").read_bytes()


def test_a_growing_video_plays_at_every_length_and_only_ever_grows(segments, tmp_path):
    growing, before, images = tmp_path / "growing.mp4", b"", 0
    for segment in segments:
        append_segment(growing, segment)
        assert growing.read_bytes().startswith(before)
        before, images = growing.read_bytes(), images + segment.images
        assert len(read_video(growing)) == images


def test_a_video_that_begins_with_a_later_segment_plays_at_once(segments, tmp_path):
    """As the growing video of the inverted order does."""
    join_segments(segments[2:], tmp_path / "end.mp4")
    assert seconds_of(tmp_path / "end.mp4") == [Fraction(i, 12) for i in range(16)]
    join_segments(segments[1:3], tmp_path / "grown.mp4")
    append_segment(tmp_path / "grown.mp4", segments[3], since=segments[1].first)
    join_segments(segments[1:], tmp_path / "joined.mp4")
    assert (tmp_path / "grown.mp4").read_bytes() == (tmp_path / "joined.mp4").read_bytes()


def test_a_finished_video_plays_while_it_downloads(video):
    """Its index lies before its images."""
    content = video.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("comment", ["", "{}", COMMENT, 'quotes " and \\ and\nlines', "x" * 20_000])
def test_a_comment_comes_back(segments, tmp_path, comment):
    write_video(segments[:1], tmp_path / "a.mp4", comment)
    assert read_comment(tmp_path / "a.mp4") == comment


def test_a_video_without_a_comment_has_an_empty_one(segments):
    assert read_comment(segments[0].path) == ""


def test_a_video_is_replaced_by_the_next_one(segments, tmp_path):
    path = tmp_path / "a.mp4"
    write_video(segments, path, "first")
    write_video(segments[:2], path, "second")
    assert (read_comment(path), len(read_video(path))) == ("second", 17)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("read", [read_comment, read_video])
def test_what_is_no_video_is_refused(tmp_path, read):
    with pytest.raises(InputError, match=r"nowhere\.mp4: there is no such video"):
        read(tmp_path / "nowhere.mp4")
    (tmp_path / "a.mp4").write_text("a letter")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for path in (tmp_path / "a.mp4", tmp_path / "empty.mp4", tmp_path):
        with pytest.raises(InputError, match="not a video that can be read"):
            read(path)


def test_a_video_that_is_cut_short_is_refused(video, tmp_path):
    (tmp_path / "a.mp4").write_bytes(video.read_bytes()[:400])
    with pytest.raises(InputError, match="not a video that can be read"):
        read_video(tmp_path / "a.mp4")


def test_sound_alone_is_no_video(tmp_path):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(800))
    with pytest.raises(InputError, match="not a video that can be read"):
        read_video(tmp_path / "a.wav")


def test_a_picture_has_no_request_in_it(tmp_path):
    save_image(moving(1)[0], tmp_path / "a.png")
    assert read_comment(tmp_path / "a.png") == ""


@contextmanager
def files_of_at_most(size):
    """The system lets no file of this process grow larger; writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def writers(segments, folder):
    """Each way to write a video, with the bytes that it should write."""
    for name, write in {
        "segment": lambda path: write_segment(moving(8), path, 0, 12.0),
        "join": lambda path: join_segments(segments, path),
        "video": lambda path: write_video(segments, path, COMMENT),
    }.items():
        write(folder / name)
        yield write, (folder / name).read_bytes()


def test_without_room_a_file_is_written_whole_or_not_at_all(segments, tmp_path):
    (tmp_path / "whole").mkdir()
    for write, wanted in list(writers(segments, tmp_path / "whole")):
        path = tmp_path / "a.mp4"
        for size in [*range(0, len(wanted), len(wanted) // 12), len(wanted) - 1]:
            path.write_bytes(b"the one before")
            with files_of_at_most(size), pytest.raises(OutputError, match=r"a\.mp4: could not be written.*too large"):
                write(path)
            assert path.read_bytes() == b"the one before"
        with files_of_at_most(len(wanted)):
            write(path)
        assert path.read_bytes() == wanted
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "whole"]


def test_without_room_a_growing_video_stays_as_it_was(segments, tmp_path):
    growing = tmp_path / "growing.mp4"
    with files_of_at_most(100), pytest.raises(OutputError, match=r"growing\.mp4: cannot be appended to"):
        append_segment(growing, segments[0])
    append_segment(growing, segments[0])
    before = growing.read_bytes()
    with files_of_at_most(len(before) + 500), pytest.raises(OutputError, match="cannot be appended to"):
        append_segment(growing, segments[1])
    assert growing.read_bytes() == before
    append_segment(growing, segments[1])
    assert len(read_video(growing)) == 17


def test_a_folder_that_is_not_there_is_named(segments, tmp_path):
    for write, _ in writers(segments, tmp_path):
        with pytest.raises(OutputError, match=r"nowhere/a\.mp4: could not be written.*No such file"):
            write(tmp_path / "nowhere" / "a.mp4")


def test_what_stops_in_the_middle_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def stopped():
        with whole(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_images_of_any_memory_layout_are_encoded(tmp_path):
    images = moving(4)[:, ::-1, ::-1]
    flipped = write_segment(images, tmp_path / "a.mp4", 0, 12.0)
    plain = write_segment(np.ascontiguousarray(images), tmp_path / "b.mp4", 0, 12.0)
    assert flipped.path.read_bytes() == plain.path.read_bytes()


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (200, 30, 30), (30, 200, 30), (30, 30, 200)])
def test_a_plain_color_comes_back(tmp_path, color):
    images = np.broadcast_to(np.array(color, np.uint8), (3, 32, 48, 3))
    segment = write_segment(images, tmp_path / "a.mp4", 0, 12.0)
    assert np.abs(read_video(segment.path).astype(int) - color).max() <= 3  # 8 bits of limited-range YUV
