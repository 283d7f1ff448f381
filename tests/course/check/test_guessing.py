"""Cues that give the right option away are measured over a pack: length, place, absolute words, terms."""

from clearhead.course.check import guessable
from clearhead.course.proofs.proved import Option, Outcome, Proved, Receipt


def pack(*questions: tuple[str, tuple[str, str, str]]) -> list[Outcome]:
    """Outcomes whose first option is the right one, at another place each time."""
    outcomes = []
    for number, (stem, texts) in enumerate(questions):
        turn = number % 3
        turned = [(texts[at], at == 0) for at in (*range(turn, 3), *range(turn))]
        options = tuple(Option("abc"[at], text, right) for at, (text, right) in enumerate(turned))
        proved = Proved(f"i{number}", "choice", Receipt("", 0, {}, ""), stem, "", "", options)
        outcomes.append(Outcome(proved.item_id, "", proved))
    return outcomes


def test_equal_options_give_nothing_away() -> None:
    assert guessable(pack(*[("Which?", ("alpha", "gamma", "delta"))] * 9)) == []


def test_the_shortest_is_reported() -> None:
    said = guessable(pack(*[("Which?", ("it", "this one", "that one"))] * 9))
    assert any("the shortest in 9 of 9" in one for one in said)


def test_absolute_words_in_wrong_options_are_reported() -> None:
    said = guessable(pack(*[("Which?", ("it grows", "it only grows", "it never grows"))] * 9))
    assert any("absolute words" in one and "100% of the wrong" in one for one in said)


def test_the_only_option_that_takes_up_the_question_is_reported() -> None:
    said = guessable(pack(*[("What does the softmax do?", ("softmax first", "scale first", "scales last!"))] * 9))
    assert any("alone has a term" in one and "9 of 9" in one for one in said)


def test_the_only_option_without_a_term_is_reported() -> None:
    said = guessable(pack(*[("Which?", ("a plain sum!", "attention: a", "attention: b"))] * 9))
    assert any("alone lacks a term" in one and "9 of 9" in one for one in said)


def test_few_questions_say_nothing() -> None:
    assert guessable(pack(*[("Which?", ("it", "this one", "that one"))] * 5)) == []
