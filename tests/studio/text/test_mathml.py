"""LaTeX to MathML: every supported construct is drawn completely, and everything else is refused in a sentence."""

import re
from xml.etree import ElementTree  # of MathML we made ourselves

import pytest

from clearhead.studio.text import excerpt
from clearhead.studio.text.mathml import to_mathml

CHILDREN = {"mfrac": 2, "mroot": 2, "msup": 2, "msub": 2, "mover": 2, "munder": 2, "msubsup": 3, "munderover": 3}


def drawn(formula: str) -> ElementTree.Element:
    """The elements, each with as many children as MathML asks of it."""
    root = ElementTree.fromstring(to_mathml(formula))  # noqa: S314
    for node in root.iter():
        assert len(node) == CHILDREN.get(node.tag, len(node)), (formula, node.tag)
    return root


def said(formula: str) -> str:
    """Names of the elements that mean something, and their text."""
    plain = {"math", "mrow", "mi", "mn", "mo", "mtext"}
    words = []
    for node in drawn(formula).iter():
        words += [node.tag] * (node.tag not in plain) + [(node.text or "").replace("\xa0", " ")] * bool(node.text)
    return " ".join(words).replace(" \u2061", "")


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (r"\text{a b}+\text{ab}", "a b + ab"),
        (r"\text{ab}+\text{a b}+\text{a  b}", "ab + a b + a b"),
        (r"\text{if }x", "if  x"),
        (r"\text{a {b} c}", "a b c"),
        (r"\text{50\% of a\_b, \{x\}}", "50% of a_b, {x}"),
        (r"\mathrm{d}x", "d x"),
        (r"\sqrt[3]{x}", "mroot x 3"),
        (r"\sqrt[n+1]{\sqrt[3]{x}}", "mroot mroot x 3 n + 1"),
        (r"\sqrt x y", "msqrt x y"),
        (r"\frac{\sqrt{\frac{a}{b}}}{c}", "mfrac msqrt mfrac a b c"),
        (r"\frac12", "mfrac 1 2"),
        (r"x^12", "msup x 1 2"),
        (r"x^{12}", "msup x 12"),
        (r"x_1^2", "msubsup x 1 2"),
        (r"x^2_1", "msubsup x 1 2"),
        (r"x''", "msup x ′ ′"),
        (r"f'^2", "msup f ′ 2"),
        (r"{}^{10}", "msup 10"),
        (r"\max_x y", "munder max x y"),
        (r"{\max x}_i", "msub max x i"),
        (r"\operatorname*{arg\,max}_x", "munder arg\u2009max x"),
        (r"\operatorname{rank}_x", "msub rank x"),
        (r"\frac\max\min", "mfrac max min"),
        (r"\left( a \middle| b \right]", "( a | b ]"),
        (r"\left. x \right|_0", "msub x | 0"),
        (r"\left\{ x \right\}", "{ x }"),
        (r"\begin{bmatrix}1&2\\[2pt]3&4\\\end{bmatrix}", "[ mtable mtr mtd 1 mtd 2 mtr mtd 3 mtd 4 ]"),
        (r"\begin{matrix}a\\ [b]\end{matrix}", "mtable mtr mtd a mtr mtd [ b ]"),
        (r"\begin{matrix}\\a\end{matrix}", "mtable mtr mtd mtr mtd a"),
        (r"\hat x \bar{ab}", "mover x ^ mover a b ¯"),
        (r"\overbrace{a+b}^{n}", "mover mover a + b ⏞ n"),
        (r"a\,b\quad c~d", "a mspace b mspace c mspace d"),
        (r"\mathbf{W_1} \boldsymbol{\theta} \mathbb{R} \mathcal{L} \mathit{h}", "msub 𝐖 𝟏 𝛉 ℝ ℒ ℎ"),
        (r"\{a\} < \|b\| | \_ \%", "{ a } < ‖ b ‖ | _ %"),
    ],
)
def test_what_a_formula_shows(formula: str, expected: str) -> None:
    assert " ".join(said(formula).split(" ")) == expected


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (r"\color{red}{x}", r"\color is not a command"),
        (r"\sum\limits_i", r"\limits is not a command"),
        (r"\begin{array}{c}a\end{array}", r"\begin{array} is not an environment"),
        (r"\begin{matrix}a\end{bmatrix}", r"\begin{matrix} is not closed"),
        (r"\begin{matrix}a\\[x]\end{matrix}", "expected a length"),
        (r"\left\foo x\right)", r"\foo is not a delimiter"),
        (r"\left x \right y", "x is not a delimiter"),
        (r"\right)", r"\right is not a command"),
        (r"\text{\alpha}", r"\alpha inside \text"),
        (r"\text \alpha", r"\alpha inside \text"),
        (r"\text{50% off}", r"% inside \text"),
        (r"\mathrm{a_b}", r"_ inside \mathrm"),
        (r"\mathcal{1}", r"\mathcal has no sign for '1'"),
        (r"\mathbb{\alpha}", r"\mathbb has no sign for 'α'"),
        ("x^a^b", "a second ^"),
        ("x_a_b", "a second _"),
        ("x^2'", "a second '"),
        ("50%", "'%' out of place"),
        ("a & b", "'&' out of place"),
        ("_a", "'_' out of place"),
        ("a}", "'}' out of place"),
        ("{a", "the end comes before }"),
        (r"\sqrt[3", "the end comes before ]"),
        (r"\frac{a}", "found the end"),
        ("x^", "found the end"),
        (r"\text{a", "found the end"),
        ("\\", "is not a command"),
        ("a\0b", "out of place"),
        ("{" * 5000 + "}" * 5000, "groups within one another"),
        (r"\hat" * 5000 + "x", "groups within one another"),
        (r"x^{" * 5000 + "x" + "}" * 5000, "groups within one another"),
        (r"\left(" * 5000 + r"\right)" * 5000, "groups within one another"),
        (r"\text{" + "{" * 5000, "found the end"),
    ],
)
def test_what_is_refused_says_why(formula: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        to_mathml(formula)
    assert len(str(caught.value)) < 250


@pytest.mark.slow
@pytest.mark.parametrize("long", ["7" * 20_011, "x+" * 9_973 + "x", r"\frac{a}{b}" * 4_999, r"\text{a b}" * 4_999])
def test_long_formulas_are_drawn(long: str) -> None:
    assert len(to_mathml(long)) > len(long) / 2


def test_an_excerpt_says_the_degree_of_a_root() -> None:
    assert excerpt.plain_text(r"$\sqrt[3]{x}$ and $\sqrt{y}$") == "3√x and √y"
