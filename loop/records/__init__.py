"""The nouns of Preceptor, one row class each."""

from loop.records.item import Item, Part, Split
from loop.records.money import Balance, Charge, ChargeState, Currency
from loop.records.rationale import CONTROL, Author, Decision, DecisionKind, Flag, Rationale, Risk, RiskFit
from loop.records.review import ReviewTask, Verdict, VerdictKind, found_wrong
from loop.records.round import Claim, ConfigRow, Query, Round, Score, Stage
from loop.records.student import Arm, Checkpoint, Prediction, Shadow
from loop.records.teacher import Prompt, Reply

__all__ = [
    "CONTROL",
    "Arm",
    "Author",
    "Balance",
    "Charge",
    "ChargeState",
    "Checkpoint",
    "Claim",
    "ConfigRow",
    "Currency",
    "Decision",
    "DecisionKind",
    "Flag",
    "Item",
    "Part",
    "Prediction",
    "Prompt",
    "Query",
    "Rationale",
    "Reply",
    "ReviewTask",
    "Risk",
    "RiskFit",
    "Round",
    "Score",
    "Shadow",
    "Split",
    "Stage",
    "Verdict",
    "VerdictKind",
    "found_wrong",
]
