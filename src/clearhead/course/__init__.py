"""Packs, items, proofs, grading and schedules: the teaching domain. No torch, no web, no database."""

from clearhead.errors import PackError, ProofError
from clearhead.extras import needs

with needs("course", "a course pack"):
    from clearhead.course.grading.grade import grade
    from clearhead.course.grading.verdict import Verdict
    from clearhead.course.pack.item import KINDS, MODES, SLOTS, Challenge, Item, Pack, Page, Program, Section, Topic
    from clearhead.course.pack.loader import load, shipped
    from clearhead.course.progress import archive
    from clearhead.course.progress.attempt import Attempt, Calibration, ItemProgress, Mastery, Progress
    from clearhead.course.progress.rebuild import Ledger, rebuild, study_day
    from clearhead.course.proofs.prove import prove, prove_pack
    from clearhead.course.proofs.proved import Option, Outcome, Proved, Receipt, Step
    from clearhead.course.rubric import Criterion, Tick

__all__ = [
    "KINDS",
    "MODES",
    "SLOTS",
    "Attempt",
    "Calibration",
    "Challenge",
    "Criterion",
    "Item",
    "ItemProgress",
    "Ledger",
    "Mastery",
    "Option",
    "Outcome",
    "Pack",
    "PackError",
    "Page",
    "Program",
    "Progress",
    "ProofError",
    "Proved",
    "Receipt",
    "Section",
    "Step",
    "Tick",
    "Topic",
    "Verdict",
    "archive",
    "grade",
    "load",
    "prove",
    "prove_pack",
    "rebuild",
    "shipped",
    "study_day",
]
