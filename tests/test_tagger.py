"""The encoder that marks spans: it learns them by their characters, and says how many it found."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import pipeline

from connectors.handover import export_student
from connectors.predicting import predict
from connectors.students import trained as student_of
from loop.answer import AnswerKind, marked, spans_of
from loop.config import Config, QueryConfig, StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example, Silent
from loop.query.divergence import divergences_of
from loop.records import Item, Split
from loop.student.tagger import Tagger
from loop.student.trainer import TaggerTrainer, trainer
from tests.test_encoder import model  # noqa: F401 - a fixture
from tests.test_student import weights
from tests.test_training import Told
from tests.trained import a_trained_project

TASK = TaskConfig(answer=AnswerKind.SPANS, labels={"thing": "It moves.", "place": "It stays."}, max_steps=3)
THINGS, PLACES = ("sun", "snow"), ("hill", "lake")


def a_trainer(folder: Path, **changes: object) -> TaggerTrainer:
    settings = {
        "kind": "encoder",
        "model": str(folder),
        "epochs": 25,
        "batch_size": 4,
        "learning_rate": 5e-3,
        **changes,
    }
    made = trainer(StudentConfig.model_validate(settings), TASK, folder.parent / "cache")
    assert isinstance(made, TaggerTrainer)
    return made


def an_example(key: str, text: str, *, question: str = "") -> Example:
    """What moves and what stays is marked, a place with its article."""
    found = [(text.index(word), text.index(word) + len(word), "thing") for word in THINGS if word in text]
    for article in ("the", "a"):
        for place in PLACES:
            at = text.find(f"{article} {place}")
            found += [(at, at + len(f"{article} {place}"), "place")] if at >= 0 else []
    fields = {"context": text, "question": question} if question else {"question": text}
    return Example(Item(key=key, split=Split.POOL, text_hash="", **fields), (), marked(found))


TEXTS = [
    "the sun burns on the hill", "snow falls on a lake today", "today the sun falls", "a lake and the hill",
    "the snow burns", "the sun and the snow on a hill", "today on the lake", "burns and falls today",
]  # fmt: skip


def examples() -> list[Example]:
    """Half of them with a question of their own."""
    return [
        an_example(f"k{number}", text, question="the hill today" if number % 2 else "")
        for number, text in enumerate(TEXTS)
    ]


def items(some: Sequence[Example]) -> list[Item]:
    return [each.item for each in some]


@pytest.fixture(scope="module")
def tagger(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Tagger:  # noqa: F811
    folder = tmp_path_factory.mktemp("tagger") / "one"
    a_trainer(model).train(examples(), seed=1, folder=folder, progress=Silent())
    return a_trainer(model).student(folder)


def test_a_tagger_marks_what_it_was_taught_to_mark_by_its_characters(tagger: Tagger) -> None:
    assert sorted(spans_of(examples()[0].answer)) == [(4, 7, "thing"), (17, 25, "place")]
    told = tagger.predict(items(examples()))
    assert [each.answer for each in told] == [each.answer for each in examples()]
    assert told[0].explanation.steps == ("sun: thing", "the hill: place")
    assert told[-1].explanation.steps == ()
    single = [tagger.predict([item])[0].answer for item in items(examples())]
    assert single == [each.answer for each in told]


def test_tags_begin_and_go_on_and_nothing_behind_the_passage_is_tagged(tagger: Tagger) -> None:
    [_, second, *_] = examples()
    read = tagger.read([second.item])
    words = [second.item.context[start:end] for start, end in (each for each in read.offsets[0] if each)]
    assert words == second.item.context.split()
    assert tagger.tags(second.answer, read.offsets[0]) == [1, 0, 0, 3, 4, 0, -100, -100, -100]


def test_marks_side_by_side_stay_apart_and_what_goes_on_with_nothing_begins(tagger: Tagger) -> None:
    offsets = [(0, 2), None, (3, 5), (6, 8), (9, 11)]
    assert sorted(spans_of(tagger._answer("ab cd ef gh", [1, 1, 2, 1, 0], offsets))) == [
        (0, 5, "thing"),
        (6, 8, "thing"),
    ]
    assert sorted(spans_of(tagger._answer("ab cd ef gh", [0, 0, 4, 2, 4], offsets))) == [
        (3, 5, "place"),
        (6, 8, "thing"),
        (9, 11, "place"),
    ]
    assert sorted(spans_of(tagger._answer(" ab cd", [1, 2], [(0, 3), (3, 6)]))) == [(1, 6, "thing")]


def test_only_the_words_of_some_steps_are_seen(tagger: Tagger) -> None:
    [first, *_] = items(examples())
    mask = tagger.tokenizer.mask_token_id
    read = tagger.read([first], ["Sun: thing"])
    assert [int(each) == mask for each in read.tensors["input_ids"][0]] == [True, False, True, True, True, True]
    [[nothing, everything]] = tagger.answers_after([first], [[(), tuple(first.question.split())]])
    assert everything.answer == examples()[0].answer
    assert nothing.answer != everything.answer


def test_dropout_gives_other_marks_and_the_seed_the_same_again(model: Path, tmp_path: Path) -> None:  # noqa: F811
    trainer, asked = a_trainer(model, epochs=8), items(examples())
    trainer.train(examples(), seed=1, folder=tmp_path / "unsure", progress=Silent())
    tagger = trainer.student(tmp_path / "unsure")
    one, same = (tagger.explain(asked, copies=range(9), temperature=1.0, top_p=1.0, seed=1) for _ in range(2))
    assert one == same
    assert [row[0] for row in one] == [each.explanation for each in tagger.predict(asked)]
    assert any(len({each.answer for each in row}) > 1 for row in one)
    assert tagger.probabilities(asked) == [()] * len(asked)
    found = divergences_of(asked, one, tagger, QueryConfig(samples=8))
    assert max(each["inter"] for each in found) > 0


def test_embeddings_and_doubt_do_not_depend_on_the_company(tagger: Tagger) -> None:
    asked = items(examples())
    for item, vector, doubt in zip(asked, tagger.embed(asked), tagger.doubt(asked), strict=True):
        assert tagger.embed([item])[0] == pytest.approx(vector, abs=1e-5)
        assert tagger.doubt([item])[0] == pytest.approx(doubt, abs=2e-2)  # products may be in bfloat16


def test_marks_that_overlap_and_labels_that_nobody_knows_are_said(model: Path, tmp_path: Path) -> None:  # noqa: F811
    told, [first, second, *_] = Told(), examples()
    twice = replace(first, answer=marked([*spans_of(first.answer), (14, 20, "place")]))
    odd = replace(second, answer=marked([(0, 4, "animal")]))
    far = replace(examples()[2], answer=marked([(0, 400, "thing")]))
    card = a_trainer(model, epochs=1).train([twice, odd, far], seed=1, folder=tmp_path / "one", progress=told).card
    assert (card["examples"], card["problems"]) == (1, {"overlapping": 1, "unknown": 2})
    assert card["unseen_labels"] == []
    with pytest.raises(StudentError, match="nothing can be learned"):
        a_trainer(model).train([odd], seed=1, folder=tmp_path / "two", progress=told)


def test_the_same_seed_gives_the_same_weights(model: Path, tmp_path: Path) -> None:  # noqa: F811
    for name in ("one", "same"):
        a_trainer(model, epochs=2).train(examples(), seed=1, folder=tmp_path / name, progress=Silent())
    one, same = weights(tmp_path / "one"), weights(tmp_path / "same")
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_an_encoder_needs_to_know_the_labels_of_spans() -> None:
    with pytest.raises(ValueError, match=r"needs entries in \[task\.labels\]"):
        Config(task=TaskConfig(answer=AnswerKind.SPANS), student=StudentConfig(kind="encoder"))
    with pytest.raises(ValueError, match=r'needs task.answer = "label" or "spans"'):
        Config(task=TaskConfig(answer=AnswerKind.NUMBER), student=StudentConfig(kind="encoder"))


def test_a_file_is_marked_with_its_f1_and_the_folder_marks_alike_elsewhere(model: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "model").symlink_to(model)
    labels = "\n".join(f'{label} = "{said}"' for label, said in TASK.labels.items())
    project = a_trained_project(
        tmp_path,
        task=f'answer = "spans"\n[task.labels]\n{labels}',
        student='kind = "encoder"\nepochs = 25\nbatch_size = 4\nlearning_rate = 5e-3',
        examples=examples(),
    )
    rows = [{"key": f"f{n}", "question": text, "answer": "0-3:thing"} for n, text in enumerate(TEXTS[:2])]
    (tmp_path / "file.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = predict(project, student_of(project), tmp_path / "file.jsonl", None)
    assert found.marks == (0, 4, 2)
    assert "F1 of the marks: 0.000 (0 right of 4 given, 2 in the file)" in found.summary()
    export_student(project, student_of(project), tmp_path / "home", "transformers")
    mark = pipeline("token-classification", model=str(tmp_path / "home"), aggregation_strategy="simple")
    there = [(each["start"], each["end"], each["entity_group"]) for each in mark(TEXTS[0])]
    assert there == sorted(spans_of(examples()[0].answer))
    card = (tmp_path / "home" / "README.md").read_text()
    exec(card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "home")), {})


def test_adapters_of_a_tagger_learn_its_marks(model: Path, tmp_path: Path) -> None:  # noqa: F811
    made = a_trainer(model, lora_rank=4, learning_rate=3e-2)
    made.train(examples(), seed=1, folder=tmp_path / "one", progress=Silent())
    assert (tmp_path / "one" / "adapter_config.json").exists()
    student = made.student(tmp_path / "one")
    right = [
        each.answer == taught.answer
        for each, taught in zip(student.predict(items(examples())), examples(), strict=True)
    ]
    assert sum(right) >= 6
