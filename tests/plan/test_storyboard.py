import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import StoryboardError
from longtake.plan import Cue, Storyboard, as_storyboard, read_prompt, read_storyboard

WORDS = st.text("abc xyz,.:=-'#é", min_size=1).map(lambda text: " ".join(text.split())).filter(bool)
TIMES = st.floats(0, 1e6)
FILES = st.text("abc ./:=-_é", min_size=1).map(Path).filter(lambda path: str(path).strip())


@st.composite
def cues(draw):
    at = draw(TIMES)
    said = {
        "prompt": draw(st.none() | WORDS),
        "seed": draw(st.none() | st.integers(0, 2**63 - 1)),
        "guidance": draw(st.none() | st.floats(1, 100)),
    }
    if set(said.values()) == {None}:
        return Cue(at, image=draw(FILES))
    until = draw(st.none() | TIMES.filter(lambda time: time > at))
    return Cue(at, until, **said, image=draw(st.none() | FILES))


BOARDS = st.tuples(st.lists(cues(), min_size=1, max_size=5), st.booleans(), st.just("") | WORDS, st.none() | FILES)


@given(BOARDS)
def test_a_storyboard_survives_json(parts):
    cues, *rest = parts
    board = Storyboard(tuple(cues), *rest)
    written = json.dumps(asdict(board), default=str)
    assert read_storyboard(written) == board
    assert as_storyboard(json.loads(written)) == board
    assert as_storyboard(board) is board


@given(st.lists(cues(), min_size=1, max_size=5), st.booleans())
def test_what_is_written_as_in_a_prompt_is_read_as_it_was(cues, loop):
    text = " ".join(["main words", *map(str, cues), *["[loop]"] * loop])
    assert read_prompt(text) == Storyboard(tuple(cues), loop, "main words")
    assert read_storyboard(text) == Storyboard(tuple(cues), loop, "main words")


@given(st.lists(cues(), min_size=1, max_size=5), st.booleans())
def test_a_line_is_an_entry_without_its_brackets(cues, loop):
    text = "\n".join(["# a comment", "main", "words", *(str(cue)[1:-1] for cue in cues), *["loop"] * loop])
    assert read_storyboard(text) == Storyboard(tuple(cues), loop, "main words")


def test_the_three_ways_to_say_it_are_one():
    cues = (Cue(0.0, prompt="it rolls"), Cue(3.5, 8.0, prompt="it stops", seed=4), Cue(9.0, image=Path("my end.png")))
    board = Storyboard(cues, loop=True, prompt="a ball on a floor")
    inline = 'a ball [0s: it rolls] on a\nfloor [ 3.5s - 8s seed = 4 : it  stops ] [9s image="my end.png"] [ loop ]'
    lines = (
        '# what happens\n\n a ball\n0s: it rolls\n\t3.5s-8s seed=4: it stops\r\n9s image="my end.png"\nloop\non a floor'
    )
    data = """{"prompt": "a ball on a floor", "loop": true, "cues": [
        {"at": 0, "prompt": "it rolls"},
        {"at": 3.5, "until": 8, "seed": 4, "prompt": "it stops"},
        {"at": 9, "image": "my end.png"}]}"""
    assert [read_storyboard(text) for text in (inline, lines, data)] == [board] * 3
    assert read_prompt(inline) == board


def test_entries_may_stand_in_lines_and_in_brackets_at_once():
    board = read_storyboard("0s: it rolls\na ball [3s: it stops]\n6s: it rolls again")
    assert [str(cue) for cue in board.cues] == ["[0s: it rolls]", "[6s: it rolls again]", "[3s: it stops]"]
    assert board.prompt == "a ball"


@pytest.mark.parametrize("text", ["", "a ball", "a  ball\n[big] [a: b] ] [", "[loops] loop", "3s: a ball", "[-] [s]"])
def test_a_prompt_without_times_stays_as_it_is(text):
    assert read_prompt(text) == Storyboard(prompt=text)


def test_a_bracket_in_the_words_of_an_entry_belongs_to_them():
    assert read_prompt("[0s: a [red] ball] [x]") == Storyboard((Cue(0.0, prompt="a [red] ball"),), prompt="[x]")


def test_images_are_files_of_the_folder():
    folder = Path("boards")
    for text in ("0s image=a.png\n3s image=/b.png", '{"image": "a.png", "cues": [{"at": 3, "image": "/b.png"}]}'):
        board = read_storyboard(text, folder).settled()
        assert (board.image, board.cues[0].image) == (folder / "a.png", Path("/b.png"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[3.5-8s: it stops]", "[3.5-8s: it stops]\n    ^ expected s, for seconds"),
        ("[3: it stops]", "[3: it stops]\n  ^ expected s"),
        ("[3,5s: it stops]", "  ^ expected s"),
        ("[3s-: it stops]", "    ^ expected a time, such as 3.5s"),
        ("[3s it stops]", "    ^ expected : and words, seed=, guidance= or image="),
        ("[3s seed=1 it stops]", "           ^ expected : and words"),
        ("[3s seed=: it stops]", "         ^ expected a whole number below 2^63"),
        ("[3s seed=-1]", "         ^ expected a whole number"),
        ("[3s guidance=high]", "             ^ expected a number"),
        ('[3s image=" "]', "          ^ expected a file"),
        ("[3s image=my end.png]", "             ^ expected : and words"),
        ("[3s sedd=4: it stops]", "    ^ expected seed=, guidance= or image="),
        ("[3s seed=4 seed=5]", "           ^ seed is said already"),
        ("a [3s: it stops", "a [3s: it stops\n  ^ there is no ] that closes this"),
        ("[0s: a [3s: b]]", "       ^ this is within the words of another entry; is a ] missing before it?"),
        ("a ball\n3s: it\tstops [4s: b]", "line 2\n3s: it?stops [4s: b]\n             ^ this is within"),
        ("# [0s: a\n0s b", "line 2\n0s b\n   ^ expected :"),
        (f"[0s: {'a' * 99}] [3: {'b' * 99}]", f"{'a' * 46}] [3: {'b' * 48}\n{' ' * 50}^ expected s"),
        ('{"cues": [}', '{"cues": [}\n          ^ no JSON: expecting value'),
    ],
)
def test_what_cannot_be_read_is_shown_with_its_place(text, said):
    with pytest.raises(StoryboardError) as caught:
        read_storyboard(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[-1s: a]", "[-1s: a]: a time is 0 s or later"),
        ('{"cues": [{"at": NaN, "seed": 1}]}', "a time is 0 s or later"),
        ("[8s-3s: a]", "[8s-3s: a]: it ends before it begins; 3s-8s would do"),
        ("[3s-3s: a]", "[3s-3s: a]: it ends before it begins"),
        ("[3s--1s: a]", "[3s--1s: a]: it ends before it begins"),
        ("[3s]", "[3s]: it says nothing; expected a prompt, a seed, guidance or an image"),
        ('[3s image=" "]', "expected a file"),
        ("[3s-6s image=a.png]", "[3s-6s image=a.png]: an image stands at one time; 3s would do"),
        ("[3s: ]", "there are no words after the colon"),
        ("[3s seed=9999999999999999999]", "a seed is a whole number from 0 to 9223372036854775807"),
        ('{"cues": [{"at": 0, "seed": -1}]}', "[0s seed=-1]: a seed is a whole number from 0"),
        ("[3s guidance=0.5]", "[3s guidance=0.5]: guidance is a number from 1 to 100"),
        ("", "the storyboard is empty; a line such as 3s: the ball rolls would do"),
        ("# nothing\n", "the storyboard is empty"),
        ('{"cues": [{"at": 0, "sedd": 1}]}', "cues.0.sedd: there is no such key; there are at, until, prompt, seed"),
        ('{"lop": true}', "storyboard.lop: there is no such key; there are cues, loop, prompt, image"),
        ('{"cues": [{"prompt": "a"}]}', "storyboard.cues.0.at: field required"),
        ('{"cues": [{"at": "soon", "seed": 1}]}', "storyboard.cues.0.at: input should be a valid number"),
        ('{"cues": 3, "loop": "often"}', "storyboard.loop: input should be a valid boolean"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_do(text, said):
    with pytest.raises(StoryboardError) as caught:
        read_storyboard(text)
    assert said in str(caught.value)


def test_plain_data_that_is_no_storyboard_is_refused():
    with pytest.raises(StoryboardError, match="the storyboard cannot be used:\n  storyboard: input should be"):
        as_storyboard(3)


def test_the_image_of_0_s_is_the_start_image():
    board = read_storyboard("0s image=a.png seed=3\n3s image=b.png\n0s image=a.png").settled()
    assert board == Storyboard((Cue(0.0, seed=3), Cue(3.0, image=Path("b.png"))), image=Path("a.png"))
    assert board.settled() == board


def test_a_video_starts_from_one_image():
    board = read_storyboard("0s image=a.png")
    with pytest.raises(StoryboardError, match=r"a video starts from one image, not from b\.png and a\.png"):
        Storyboard(board.cues, image=Path("b.png")).settled()
    with pytest.raises(StoryboardError, match="a video starts from one image"):
        board.joined("", Path("b.png"))
    assert board.joined("", Path("a.png")).image == Path("a.png")


def test_a_prompt_and_an_image_can_stand_beside_a_storyboard():
    board = read_storyboard("3s: it rolls")
    joined = board.joined("a [red] ball", Path("a.png"))
    assert joined == Storyboard(board.cues, prompt="a [red] ball", image=Path("a.png"))
    assert Storyboard(prompt="a ball").joined("[3s: it rolls]", None) == Storyboard(board.cues, prompt="a ball")
    assert joined.joined("a [red] ball", None) == joined


def test_what_happens_when_is_said_once():
    board = read_storyboard("a ball\n3s: it rolls")
    with pytest.raises(StoryboardError, match="the prompt says what happens when, and so does the storyboard"):
        board.joined("[6s: it stops]", None)
    with pytest.raises(StoryboardError, match="there is one main prompt, not 'a box' and 'a ball'"):
        board.joined("a box", None)


def test_an_image_has_a_name():
    with pytest.raises(StoryboardError, match="the image has no name"):
        Cue(3.0, image=Path(" "))
