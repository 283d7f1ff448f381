"""Make the studio's math font: a subset of STIX Two Math as woff2, with its MATH table, and its licence beside it.

    npm pack @fontsource/stix-two-math && tar xzf fontsource-stix-two-math-*.tgz
    python tools/math_font.py package

Needs fontTools and brotli. The result is in the repository, so the studio runs without this tool.
"""

import shutil
import sys
from pathlib import Path

from fontTools import subset

STATIC = Path(__file__).parents[1] / "src/clearhead/studio/static"
SOURCE = "files/stix-two-math-latin-400-normal.woff2"
# Characters in the formulas of courses. MathML draws variables with the letters from 1D400 on.
RANGES = (
    *((0x20, 0x7E), (0xA0, 0xFF), (0x131, 0x131), (0x2C6, 0x2DD), (0x300, 0x338), (0x391, 0x3F6)),
    *((0x2010, 0x2027), (0x2030, 0x2037), (0x2044, 0x2044), (0x2057, 0x2057), (0x2061, 0x2064), (0x20D0, 0x20DC)),
    *((0x2100, 0x2138), (0x2190, 0x21D9), (0x2200, 0x22FF), (0x2308, 0x230B), (0x23B4, 0x23B5), (0x23DC, 0x23E1)),
    *((0x25A0, 0x25A1), (0x25CB, 0x25CB), (0x27E8, 0x27EB), (0x27F5, 0x27FA), (0x2A7D, 0x2A7E), (0x2AAF, 0x2AB0)),
    *((0x2212, 0x2212), (0x1D400, 0x1D467), (0x1D49C, 0x1D4CF), (0x1D538, 0x1D56B), (0x1D6A4, 0x1D6E1)),
    *((0x1D6E2, 0x1D71B), (0x1D7CE, 0x1D7D7)),
)


def main(package: Path) -> None:
    options = subset.Options(flavor="woff2", layout_features=["ssty", "dtls", "flac", "mark", "mkmk", "ccmp"])
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]  # its copyright and licence stay in it
    font = subset.load_font(str(package / SOURCE), options)
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=[one for first, last in RANGES for one in range(first, last + 1)])
    chosen.subset(font)
    subset.save_font(font, str(STATIC / "stix-two-math.woff2"), options)
    shutil.copyfile(package / "LICENSE", STATIC / "stix-two-math-OFL.txt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
