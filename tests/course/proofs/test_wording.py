"""The gates on what a program filled in: words that another seed makes false, and numbers that nobody would write.

The cases are faults that the first edition of the shipped course had.
"""

from dataclasses import replace

import pytest

from clearhead.course.pack.item import Item, Section
from clearhead.course.proofs.proved import Proved, Receipt
from clearhead.course.proofs.wording import check_wording, odd_number, stale_word, uneven_row
from clearhead.errors import ProofError


def proofs(name: str, *values: str) -> list[Proved]:
    """One proof a seed, in which this name has these values in turn."""
    return [
        Proved("i", "choice", Receipt("", seed, {}, ""), "?", "", "", values={name: value})
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("All logits doubled", "times", ("2", "3")),
        ("All ratios are squared, so the largest gains.", "times", ("2", "4")),
        ("Twice the rows, and twice the columns.", "longer", ("2", "5")),
        ("Each weight is either dropped, or doubled.", "rate", ("0.5", "0.25")),
        ("an output matrix that treats the two heads differently", "heads", ("2", "4")),
        ("It would hide the second key.", "keys_count", ("2", "5")),
        ("There are 6 heads to fill.", "heads", ("6", "4")),
        ("Shared among all twelve heads.", "heads", ("12", "8")),
        ("Each of the five words asks.", "length", ("5", "7")),
        ("A pair of heads reads them.", "heads", ("2", "4")),
        ("A dozen heads read them.", "heads", ("12", "8")),
        ("It is the only head.", "heads", ("1", "2")),
        ("It takes four times as long.", "longer", ("4", "3")),
        ("That is 4 times the work.", "factor", ("4", "3")),
        ("Half as many are left.", "factor", ("2", "3")),
        ("A tenfold length.", "times", ("10", "5")),
        ("Of the weights 25 % are dropped.", "rate", ("0.25", "0.5")),
        ("Of the weights one in four is dropped.", "rate", ("0.25", "0.5")),
        ("One out of 8 is dropped.", "rate", ("0.125", "0.5")),
        ("It takes 1.5 times as long.", "longer", ("1.5", "2")),
        ("Of the weights 12.5 % are dropped.", "rate", ("0.125", "0.5")),
        ("The exponentials of all three.", "row", ("[0.1, 0.9, 0.2]", "[0.2, 0.8]")),
    ],
)
def test_a_word_that_another_seed_makes_false_is_found(text: str, name: str, values: tuple[str, str]) -> None:
    said = stale_word(text, proofs(name, *values))
    assert f"{{{{{name}}}}} is {values[0]} at one seed and {values[1]} at another" in said


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("All logits doubled", "times", ("2", "2")),  # it is always two
        ("`twice` and $2x$ twice-named", "queries", ("2", "3")),  # not a multiple of anything
        ("the second {{times}} times as long", "times", ("2", "3")),  # the value stands between
        ("Two masks together", "heads", ("2", "4")),  # counts something else
        ("The factor is {{times}}.", "times", ("2", "3")),  # the number comes from the run
        ("Multiply the two, key by key.", "row", ("[0.1, 0.9]", "[0.2, 0.8]")),
        ("The second row of the mask.", "lengths", ("[2, 3]", "[1, 2, 3]")),  # an ordinal counts no list
        ("`6 heads` and $6$ heads", "heads", ("6", "4")),
        ("0.6 heads on average", "heads", ("6", "4")),
        ("version 1.5.2 of times 1,500", "times", ("1.5", "4")),
        ("It holds in five places.", "rate", ("0.2", "0.5")),
        ("Half of the heads, and 2 % of the heads.", "heads", ("2", "4")),
    ],
)
def test_a_word_that_stays_true_is_not(text: str, name: str, values: tuple[str, str]) -> None:
    assert stale_word(text, proofs(name, *values)) == ""


@pytest.mark.parametrize(
    "text",
    ["falls to 0.0000000", "`[[0.8, 0.19999999999999996]]`", "-0.30000001192092896", "it is 2e-21 there", "0e+00 off",
     "a share of 0.33333334", "all of 0.5000000", "with 3.0 heads", "in 100.0 % of cases", "it is tensor([0.1, 0.9])",
     "np.float64(0.5) of it", "the gradient is [-0.0, 0.1]", "262144 numbers", "Behind them come 1 places of padding.", "a text of 32000"],
)  # fmt: skip
def test_a_number_no_author_would_write_is_found(text: str) -> None:
    assert odd_number(text)


@pytest.mark.parametrize(
    "text",
    ["0.00000003", "`1e-05`", "1.25", "0.0", "0.001 and 12,345.678", "v0.00000000001234", "a - 0", "x[-1]", "-0.5",
     "```text\n262144\n```", "8192 tokens", "$10000^{2}$", "2 +1 keys", "1 key",
     "1.05 keys", "2.302585", "`tensor([0.1, 0.9])`", "a tensor (of rows)"],
)  # fmt: skip
def test_a_number_somebody_would_write_is_not(text: str) -> None:
    assert not odd_number(text)


def test_what_a_program_prints_may_be_ungrouped_but_not_noisy() -> None:
    assert not odd_number("16640 16640", sentence=False)
    assert odd_number("[4.5e-05, 0.1]", sentence=False)
    assert odd_number("[-0.0, 1.0]", sentence=False)


def test_a_row_that_misses_one_by_rounding_is_found_in_a_stem_alone() -> None:
    assert "sums to 1.01" in uneven_row("the weights `[[0.8, 0.07, 0.07, 0.07], [0.7, 0.1, 0.1, 0.1]]`")
    assert uneven_row("logits `[0.5, 1.0, 0.2]`, weights `[0.7, 0.2, 0.1]`") == ""


@pytest.mark.parametrize(
    "row",
    [
        "(0.33, 0.33, 0.33)",
        "`[0.333 0.333 0.333]`",
        "weights 0.33, 0.33 and 0.33.",
        "| 0.33 | 0.33 | 0.33 |",
        "[0.3333, 0.3333, 0.3333]",
    ],
)
def test_a_row_is_read_in_every_form_in_which_rows_are_written(row: str) -> None:
    assert "sums to 0.99" in uneven_row(row)


@pytest.mark.parametrize("row", ["33%, 33% and 33%", "| 33 % | 33 % | 33 % |", "12.5%, 12.5%, 24%, 50%"])
def test_a_row_of_percentages_is_read_too(row: str) -> None:
    assert "sums to 99" in uneven_row(row)


@pytest.mark.parametrize("text", ["50%, 25% and 25%", "between 49% and 50%", "33%, 33% and 33%, 1% for the rest"])
def test_percentages_that_sum_to_a_hundred_or_to_nothing_are_not(text: str) -> None:
    assert uneven_row(text) == ""


def test_the_gate_names_the_section_and_its_line() -> None:
    section = Section("Rationale", "no-scale", "Both are doubled.", 12, 14)
    item = Item("i", "choice", "t", 1, "?", "r", "items/i.md", "", variants=True, sections=(section,))
    with pytest.raises(ProofError, match=r"items/i\.md:12: `## Rationale no-scale` says 'doubled', and \{\{times\}\}"):
        check_wording(item, proofs("times", "2", "3"))
    check_wording(item, proofs("times", "2", "2"))
    odd = [replace(one, answer="0.19999999999999996") for one in proofs("times", "2", "2")]
    with pytest.raises(ProofError, match=r"with seed 0: shows 0\.19999999999999996"):
        check_wording(item, odd)
