"""Texts put together from numbered pieces, by hand."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from had.tasks.facts import Shape, Writer
from had.tasks.pieces import Pieces, Template, different, digits


@pytest.fixture
def pieces() -> Pieces:
    return Pieces(lambda text: np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32))


def writer(pieces: Pieces, facts: int | None, **changes: object) -> Writer:
    settings = {
        **{"statement": "{key}={answer};", "question": "?{key}=", "names": [], "answer_digits": 2},
        **{"filler": ["ab", "c"], "shuffled": False, "facts": facts},
    }
    return Writer(pieces, **{**settings, **changes})


def text(tokens: np.ndarray) -> str:
    return bytes(tokens.tolist()).decode()


def test_tokens_of_pieces_follow_each_other(pieces: Pieces) -> None:
    one, none, long = pieces.add(["a", "", "bcd"])
    assert text(pieces.tokens(np.array([[long, none, 7], [one, 0, long]]))) == "bcd7a0bcd"
    assert pieces.longest(np.array([none, one, long, 3])) == long


def test_templates_are_filled_along_the_last_axis(pieces: Pieces) -> None:
    template = Template.parse("<{key} is {answer}>", pieces)
    values = {"key": np.array([[1, 2], [3, 4]]), "answer": np.array([[5], [6]])}
    sentences, is_answer = template.fill(values)
    assert [text(pieces.tokens(row)) for row in sentences] == ["<12 is 5>", "<34 is 6>"]
    assert is_answer.tolist() == [False, False, False, False, True, False]


def test_digits_keep_their_zeros() -> None:
    assert digits(np.array([[7, 120]]), 3).tolist() == [[[0, 0, 7], [1, 2, 0]]]


def test_different_numbers_are_all_equally_likely() -> None:
    rows = different(6000, 3, 3, np.random.default_rng(0))
    counts = Counter(map(tuple, rows.tolist()))
    assert {*counts} == {*permutations(range(3))}
    assert all(count == pytest.approx(1000, rel=0.12) for count in counts.values())  # 4 sigma
    many = different(50, 30, 1000, np.random.default_rng(1))
    assert all(len({*row}) == 30 for row in many.tolist())


def test_full_texts_tell_facts_again_in_place_of_others(pieces: Pieces) -> None:
    """39 tokens are 5 of a question (`?1=23`) and 6 facts of 5 (`1=23;`); 4 are left."""
    shapes = writer(pieces, None).shapes(39, 1, retelling=True)
    assert shapes == [Shape(39, 1, 4, 2), Shape(39, 1, 5, 1), Shape(39, 1, 6, 0)]
    assert writer(pieces, None).shapes(39, 1, retelling=False) == shapes[-1:]
    few = writer(pieces, None).shapes(200, 1, retelling=False)
    assert few == [Shape(200, 1, 10, 0)]  # there are ten keys


def test_a_few_facts_are_told_again_beside_each_other(pieces: Pieces) -> None:
    shapes = writer(pieces, 2).shapes(39, 1, retelling=True)
    assert shapes == [Shape(39, 1, 2, 2), Shape(39, 1, 2, 1), Shape(39, 1, 2, 0)]
    assert writer(pieces, 2).shapes(21, 1, retelling=True)[0] == Shape(21, 1, 2, 1)  # room for 3


@pytest.mark.parametrize(("facts", "shape"), [(None, Shape(44, 1, 5, 2)), (3, Shape(60, 1, 3, 2))])
def test_second_tellings_repeat_the_first_and_are_marked(
    pieces: Pieces, facts: int | None, shape: Shape
) -> None:
    """Read from left to right, an answer is marked where its key has been seen, and only there."""
    random = np.random.default_rng(0)
    tokens, marks = writer(pieces, facts).write(shape, random.random(200), random)
    asked_first = 0
    for row, marked in zip(tokens, marks, strict=True):
        seen: dict[str, str] = {}
        expected = np.zeros(shape.length, dtype=bool)
        told = text(row)
        places = [n for n in range(len(told)) if told[n] == "="]
        for place in places:
            key, answer = told[place - 1], told[place + 1 : place + 3]
            expected[place + 1 : place + 3] = key in seen
            assert seen.setdefault(key, answer) == answer
        assert len(seen) == shape.facts
        assert len(places) == shape.facts + shape.retold + 1
        assert np.array_equal(marked, expected)
        assert told[-5] == "?"
        assert told[-4] in seen
        asked_first += told[-4] == told[places[0] - 1]
    assert 0 < asked_first < 200


def test_facts_are_spread_and_filler_is_whole_without_them(pieces: Pieces) -> None:
    tokens, _ = writer(pieces, 1).write(
        Shape(20, 1, 1), np.array([0, 0.5, 1]), np.random.default_rng(0)
    )
    texts = [text(row) for row in tokens]
    places = [told.index("=") - 1 for told in texts]
    assert places == [0, 5, 10]
    filler = [
        told[:place] + told[place + 5 : 15] for told, place in zip(texts, places, strict=True)
    ]
    assert filler == ["abcabcabca"] * 3


def test_names_of_unequal_length_fill_the_same_length(pieces: Pieces) -> None:
    named = writer(pieces, 2, names=["x", "yyyy", "zz"], shuffled=True)
    random = np.random.default_rng(0)
    (shape,) = named.shapes(60, 4, retelling=False)
    assert shape == Shape(60, 4, 2)
    tokens, marks = named.write(shape, random.random(50), random)
    texts = [text(row) for row in tokens]
    assert {len(told) for told in texts} == {60}
    for told, marked in zip(texts, marks, strict=True):
        key = told[told.index("?") + 1 : told.rindex("=")]
        assert f"{key}={told[-2:]};" in told
        assert np.flatnonzero(marked).tolist() == [58, 59]
    assert len({told.replace("c", "") for told in texts}) > 40
