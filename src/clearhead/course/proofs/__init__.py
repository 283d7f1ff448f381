"""One proof a kind: a function from a bench to the parts of `Proved` that it computed."""

from collections.abc import Callable, Mapping
from typing import Any

from clearhead.course.bench import Bench
from clearhead.course.proofs.card import prove_card
from clearhead.course.proofs.choice import prove_choice
from clearhead.course.proofs.debug import prove_debug
from clearhead.course.proofs.predict import prove_predict

PROOFS: Mapping[str, Callable[[Bench], dict[str, Any]]] = {
    "card": prove_card,
    "choice": prove_choice,
    "predict": prove_predict,
    "debug": prove_debug,
}
