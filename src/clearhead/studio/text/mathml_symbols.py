"""Tables from LaTeX commands to the characters that `mathml` draws."""

from typing import Final

GREEK: Final = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi varphi chi "
    "psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega"
)
SYMBOLS: Final = {
    **dict(zip(GREEK.split(), "αβγδϵεζηθκλμνξπρστφϕχψωΓΔΘΛΣΦΨΩ", strict=True)),
    "ell": "ℓ",
    "top": "⊤",
    "infty": "∞",
    "partial": "∂",
    "nabla": "∇",
    "emptyset": "∅",
    "prime": "′",
}
OPERATORS: Final = {
    "cdot": "·", "times": "×", "odot": "⊙", "oplus": "⊕", "pm": "±", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥",
    "ne": "≠", "neq": "≠", "approx": "≈", "sim": "∼", "propto": "∝", "equiv": "≡", "in": "∈", "notin": "∉",
    "subset": "⊂", "to": "→", "rightarrow": "→", "Rightarrow": "⇒", "mapsto": "↦", "gets": "←", "mid": "|",
    "leftarrow": "←",
    "ldots": "…", "dots": "…", "cdots": "⋯", "vdots": "⋮", "ddots": "⋱", "forall": "∀", "exists": "∃", "ll": "≪",
    "gg": "≫", "langle": "⟨", "rangle": "⟩", "lVert": "‖", "rVert": "‖", "|": "‖", "{": "{", "}": "}", "colon": ":",
    "sum": "∑", "prod": "∏", "int": "∫", "lt": "<", "gt": ">", "Vert": "‖", "vert": "|", "lvert": "|", "rvert": "|",
    "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "%": "%", "_": "_", "#": "#", "$": "$", "&": "&",
}  # fmt: skip
# Delimiters after \left, \middle and \right.
DELIMITERS: Final = {
    **{char: char for char in "()[]|/"}, "<": "⟨", ">": "⟩", ".": "",
    **{f"\\{name}": OPERATORS[name] for name in (
        "{", "}", "|", "langle", "rangle", "lVert", "rVert", "Vert", "vert", "lvert", "rvert", "lfloor", "rfloor",
        "lceil", "rceil",
    )},
}  # fmt: skip
FUNCTIONS: Final = [
    "exp", "log", "ln", "max", "min", "sup", "inf", "lim", "sin", "cos", "tanh", "det", "dim", "arg", "argmax",
    "argmin", "softmax", "Pr",
]  # fmt: skip
LIMITS: Final = ("sum", "prod", "max", "min", "lim", "argmax", "argmin", "sup", "inf")  # scripts go above and below
SPACES: Final = {
    ",": "0.17em",
    ":": "0.22em",
    ";": "0.28em",
    " ": "0.3em",
    "quad": "1em",
    "qquad": "2em",
    "!": "-0.17em",
}
ACCENTS: Final = {"hat": "^", "bar": "¯", "overline": "¯", "tilde": "~", "vec": "→", "dot": "˙", "ddot": "¨"}
BRACES: Final = {"underbrace": ("munder", "_", "⏟"), "overbrace": ("mover", "^", "⏞")}
FENCES: Final = {
    "matrix": "", "bmatrix": "[]", "pmatrix": "()", "vmatrix": "||", "Vmatrix": "‖‖", "Bmatrix": "{}", "cases": "{",
    "aligned": "",
}  # fmt: skip
# Alphabets: the styled A, a and 0; "" where there are no such digits.
STYLES: Final = {
    "mathbf": "𝐀𝐚𝟎", "boldsymbol": "𝐀𝐚𝟎", "mathbb": "𝔸𝕒𝟘", "mathcal": "𝒜𝒶", "mathit": "𝐴𝑎", "textbf": "𝐀𝐚𝟎",
    "textit": "𝐴𝑎",
}  # fmt: skip
# Letters whose styled form is elsewhere in Unicode: their alphabet's block has a gap there.
HOLES: Final = {"𝔺": "ℂ", "𝔿": "ℍ", "𝕅": "ℕ", "𝕇": "ℙ", "𝕈": "ℚ", "𝕉": "ℝ", "𝕑": "ℤ", "𝑕": "ℎ", "𝒺": "ℯ", "𝒼": "ℊ",
                "𝓄": "ℴ", "𝒝": "ℬ", "𝒠": "ℰ", "𝒡": "ℱ", "𝒣": "ℋ", "𝒤": "ℐ", "𝒧": "ℒ", "𝒨": "ℳ", "𝒭": "ℛ"}  # fmt: skip
_BOLD_GREEK: Final = {
    **{chr(0x391 + at): chr(0x1D6A8 + at) for at in range(25) if at != 17},
    **{chr(0x3B1 + at): chr(0x1D6C2 + at) for at in range(25)},
    "∂": "𝛛", "ϵ": "𝛜", "ϕ": "𝛟", "∇": "𝛁",
}  # fmt: skip


def styled(char: str, style: str) -> str:
    """Return a letter or digit in the alphabet of a command; "" if the alphabet lacks it."""
    upper, lower, *digits = map(ord, STYLES[style])
    if "A" <= char <= "Z":
        drawn = chr(upper + ord(char) - 65)
    elif "a" <= char <= "z":
        drawn = chr(lower + ord(char) - 97)
    elif char.isascii() and char.isdigit() and digits:
        drawn = chr(digits[0] + int(char))
    else:
        return _BOLD_GREEK.get(char, "") if style == "boldsymbol" or style == "mathbf" else ""
    return HOLES.get(drawn, drawn)
