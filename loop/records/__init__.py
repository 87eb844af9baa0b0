"""The nouns of Preceptor, one row class each."""

from loop.records.certificate import Certificate, Promise
from loop.records.item import Item, Part, Split
from loop.records.money import Balance, Charge, ChargeState, Currency
from loop.records.rationale import CONTROL, Author, Decision, DecisionKind, Flag, Rationale, Risk, RiskFit
from loop.records.review import (
    ADJUDICATION,
    SECOND,
    ReviewTask,
    Verdict,
    VerdictKind,
    audited_wrong,
    deciding,
    found_wrong,
)
from loop.records.round import Claim, ConfigRow, Query, Round, Score, Stage
from loop.records.student import Arm, Checkpoint, Prediction, Shadow
from loop.records.teacher import Judgement, Probe, Prompt, Reply, StepVerdict

__all__ = [
    "ADJUDICATION",
    "CONTROL",
    "SECOND",
    "Arm",
    "Author",
    "Balance",
    "Certificate",
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
    "Judgement",
    "Part",
    "Prediction",
    "Probe",
    "Promise",
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
    "StepVerdict",
    "Verdict",
    "VerdictKind",
    "audited_wrong",
    "deciding",
    "found_wrong",
]
