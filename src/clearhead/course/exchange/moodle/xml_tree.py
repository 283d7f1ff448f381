"""Parse untrusted XML: no document type, so no entities; bounds on depth and number of elements."""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, TreeBuilder, XMLParser

from clearhead.errors import PackError

DEEPEST = 100  # nested elements
MOST = 500_000  # elements


def xml_tree(text: str, file: str) -> Element:
    """Return the root element.

    Raises:
        PackError: it is not XML, declares a document type, or has too many elements or levels.
    """
    builder = _Bounded(file)
    # Pass the encoding: the declaration inside the text must not make the parser decode the bytes differently.
    parser = XMLParser(target=builder, encoding="utf-8")  # noqa: S314 — `doctype` refuses what declares entities
    try:
        parser.feed(text.encode())
        root: Element = parser.close()
    except ElementTree.ParseError as error:
        raise PackError(f"not valid XML: {str(error)[:200]}", file=file, line=error.position[0]) from None
    return root


class _Bounded(TreeBuilder):
    """Builds the tree and counts elements and depth."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file, self._depth, self._count = file, 0, 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth += 1
        self._count += 1
        if self._depth > DEEPEST:
            raise PackError(f"has elements more than {DEEPEST} deep, and Moodle's export has 6", file=self._file)
        if self._count > MOST:
            raise PackError(f"has more than {MOST:,} elements; split it into smaller files", file=self._file)
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)

    def doctype(self, _name: str, _public: str | None, _system: str | None, /) -> None:
        """Called at <!DOCTYPE."""
        raise PackError("declares a document type; Moodle's export has none, so it is not read", file=self._file)
