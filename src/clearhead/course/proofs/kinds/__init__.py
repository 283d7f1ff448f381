"""The proof of each kind of item: a function from a runner to the parts of `Proved` that it computes."""

from collections.abc import Callable, Mapping
from typing import Any

from clearhead.course.proofs.kinds.card import prove_card
from clearhead.course.proofs.kinds.code import prove_code
from clearhead.course.proofs.kinds.debug import prove_debug
from clearhead.course.proofs.kinds.explain import prove_explain
from clearhead.course.proofs.kinds.match import prove_match
from clearhead.course.proofs.kinds.multiple_choice import prove_choice
from clearhead.course.proofs.kinds.order import prove_order
from clearhead.course.proofs.kinds.predict import prove_predict
from clearhead.course.proofs.kinds.tune import prove_tune
from clearhead.course.proofs.kinds.worked import prove_worked
from clearhead.course.proofs.runner import Runner

PROOFS: Mapping[str, Callable[[Runner], dict[str, Any]]] = {
    "card": prove_card,
    "choice": prove_choice,
    "predict": prove_predict,
    "debug": prove_debug,
    "tune": prove_tune,
    "worked": prove_worked,
    "explain": prove_explain,
    "code": prove_code,
    "order": prove_order,
    "match": prove_match,
}
