"""What the judge said, in the store."""

from collections import defaultdict
from collections.abc import Sequence

from sqlmodel import col, select

from loop.records import Judgement, Prompt
from loop.store.asking import RunTill
from loop.store.database import Store


def of_rationales(store: Store, ids: Sequence[int]) -> dict[int, list[Judgement]]:
    """What was said of the steps, by rationale and in the order of the steps."""
    found: defaultdict[int, list[Judgement]] = defaultdict(list)
    with store.reading() as session:
        rows = session.exec(select(Judgement).where(col(Judgement.rationale_id).in_(ids)).order_by(col(Judgement.step)))
        for row in rows:
            found[row.rationale_id].append(row)
    return dict(found)


class RunJudgeBook(RunTill):
    """The judge's book (`loop.ports.JudgeBook`)."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, judgement: Judgement) -> None:
        """Settle the charge and store prompt and judgement, all or nothing."""
        with self._store.writing() as session:
            self._pay(session, charge_id, micro_usd, prompt, judgement.output_tokens)
            session.add(judgement)
