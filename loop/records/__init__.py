"""The nouns of Preceptor, one row class each."""

from loop.records.certificate import Certificate, Promise
from loop.records.item import Item, Part, Split
from loop.records.money import Balance, Charge, ChargeState, Currency
from loop.records.rationale import CONTROL, Author, Decision, DecisionKind, Export, Flag, Rationale, Risk, RiskFit
from loop.records.review import (
    ADJUDICATION,
    ROLES,
    SECOND,
    Reopened,
    ReviewTask,
    Verdict,
    VerdictKind,
    Withdrawal,
    WithdrawnVerdict,
    audited_wrong,
    deciding,
    found_wrong,
    role,
)
from loop.records.round import Claim, ConfigRow, Query, Round, Score, Stage
from loop.records.student import Arm, Checkpoint, Prediction, Shadow
from loop.records.teacher import Judgement, Prompt, Reply, StepVerdict

__all__ = [
    "ADJUDICATION",
    "CONTROL",
    "ROLES",
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
    "Export",
    "Flag",
    "Item",
    "Judgement",
    "Part",
    "Prediction",
    "Promise",
    "Prompt",
    "Query",
    "Rationale",
    "Reopened",
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
    "Withdrawal",
    "WithdrawnVerdict",
    "audited_wrong",
    "deciding",
    "found_wrong",
    "role",
]
