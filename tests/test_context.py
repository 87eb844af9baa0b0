"""Items that share a context are looked at together."""

from pathlib import Path

from loop.store import items, rationales
from tests.builders import a_reply, a_round, a_store, an_item


def test_items_of_one_context_are_found_together_with_their_rationales(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item("a", context="Premise."), an_item("b", context="Premise."), an_item("c")])
    first = a_round(store)
    for key in "abc":
        a_reply(store, first, key, steps=["so", key], answer=1)
    found = rationales.by_context(store, first.run)
    assert {context: [item.key for item, _ in each] for context, each in found.items()} == {"Premise.": ["a", "b"]}
    assert found["Premise."][0][1].steps == ["so", "a"]
    assert rationales.by_context(store, "another run") == {}
