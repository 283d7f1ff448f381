"""Search topics, pages and questions by their words, except for text that would give an answer away."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from rapidfuzz import process
from rapidfuzz.distance import OSA

from clearhead.studio.learn import topic
from clearhead.studio.text import excerpt, formatting
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()
MOST = 20
SHORTEST_PART = 3  # letters; a shorter word is not searched inside others: most of them contain a "d"
SHORTEST_TYPO = 4  # letters; a shorter word is similar to too many
SIMILAR = 0.7
_plain_text = lru_cache(maxsize=4096)(excerpt.plain_text)  # each search reads every page, and pages rarely change
# A name that people type -> its form in the course.
OTHER_NAMES = {
    "mha": ("multi-head", "multiheadattention"),
    "multihead": ("multi-head",),
    "selfattention": ("self-attention",),
    "crossattention": ("cross-attention",),
    "flashattention": ("flash",),
    "sdpa": ("scaled_dot_product_attention",),
    "sqrt": ("√", "root"),
    "d_k": ("head_dim", "√d"),
    "dk": ("head_dim", "√d"),
    "d_model": ("embed_dim",),
    "hidden_size": ("embed_dim",),
    "n_heads": ("num_heads", "heads"),
    "logit": ("score",),
    "score": ("logit",),
    "scores": ("logits",),
    "rope": ("rotary", "rotate"),
    "positional": ("position",),
    "encoding": ("position", "encoder"),
    "encodings": ("position", "encoder"),
    "layernorm": ("layer_norm", "norm"),
    "normalization": ("norm",),
    "normalisation": ("norm",),
    "ffn": ("mlp",),
    "feedforward": ("mlp",),
    "skip": ("residual",),
    "autoregressive": ("causal",),
    "transformer": ("block", "encoder", "decoder"),
    "transformers": ("transformer", "block", "encoder", "decoder"),
}


@dataclass(frozen=True)
class Document:
    """A searchable document: a topic, a page or a question. In a result, `text` is the part that matches."""

    address: str
    title: str
    kind: str
    text: str
    weight: float

    @property
    def all(self) -> str:
        """Title and text, in lower case."""
        return f"{self.title}\n{self.text}".lower()


@router.get("/search", response_class=HTMLResponse)
@linkable
def search(request: Request, context: CurrentContext, q: str = "") -> HTMLResponse:
    typed = re.findall(r"\w+", fitting("search", q).lower().replace("√", " sqrt "))[:8]
    documents = _documents(context) if typed else []
    words = _corrected(typed, documents)
    matching = [hit for document in documents if (hit := _hit(words, document))] if words else []
    hits = sorted(matching, key=lambda hit: (-hit.weight, hit.title))
    instead = [word for before, word in zip(typed, words, strict=True) if before != word]
    return render(request, "learn/search.html", q=q, hits=hits[:MOST], more=max(0, len(hits) - MOST), instead=instead)


def _documents(context: Context) -> list[Document]:
    documents = []
    for pack, this in context.library.topics():
        documents.append(Document(topic.address(pack, this), this.title, "topic", _plain_text(this.summary), 3))
        for mode in this.pages:
            text = _plain_text(context.library.page(pack, this, mode) or "")
            shown = next((name for name, page in topic.PAGES.items() if page == mode), mode)
            where, title = topic.address(pack, this, shown), f"{this.title}: {_(shown.capitalize())}"
            documents.append(Document(where, title, "page", text, 2))
    for item in context.library.items.values():
        concepts = ", ".join(map(formatting.words, item.concepts)).lower()
        text = _plain_text(f"{context.library.proved[item.id].stem} ({concepts})")
        mode = "recall" if item.kind == "card" else "practice"
        documents.append(Document(f"/items/{item.id}?mode={mode}", item.title or item.id, item.kind, text, 1))
    return documents


def _corrected(words: list[str], documents: list[Document]) -> list[str]:
    """Return the words, with each unknown one replaced by the most similar word of the course, if there is one."""
    texts = [document.all for document in documents]
    known: set[str] = set()
    corrected = []
    for word in words:
        if len(word) >= SHORTEST_TYPO and not any(_places(word, text) for text in texts):
            known = known or {name for text in texts for name in re.findall(r"\w{4,}", text)}
            # Optimal string alignment counts a swap of two letters as one typing error.
            near = process.extractOne(word, sorted(known), scorer=OSA.normalized_similarity, score_cutoff=SIMILAR)
            word = near[0] if near else word
        corrected.append(word)
    return corrected


def _places(word: str, text: str) -> list[int]:
    """Return where the word, or another name of it, begins in the text. A letter matches alone, two a word's start."""
    if len(word) < SHORTEST_PART and word not in OTHER_NAMES:
        whole = r"(?![^\W_])" if len(word) == 1 else ""
        match = re.search(rf"(?<![^\W_]){re.escape(word)}{whole}", text)
        return [match.start()] if match else []
    return [place for name in (word, *OTHER_NAMES.get(word, ())) if (place := text.find(name)) >= 0]


def _hit(words: list[str], document: Document) -> Document | None:
    """Return the document as a result if it has every word; words in the title weigh more."""
    title, text = document.title.lower(), document.text.lower()
    if not all(_places(word, title) or _places(word, text) for word in words):
        return None
    weight = document.weight + 4 * sum(bool(_places(word, title)) for word in words)
    first = min((place for word in words for place in _places(word, text)), default=0)
    return replace(document, text=excerpt.around(document.text, first), weight=weight)
