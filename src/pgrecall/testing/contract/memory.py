"""The contract of a `MemoryStore`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from pgrecall import (
    EmbedSpace,
    EmbedSpaceMismatch,
    F,
    Fact,
    FactKey,
    InvalidEmbedding,
    InvalidInput,
    MemoryStore,
    NotFound,
)
from pgrecall.testing.contract.base import SPACE, StoreContract


def axis(n: int, other: float = 0.0) -> list[float]:
    """A vector along one axis, leaning to the next."""
    vector = [0.0] * 8
    vector[n], vector[(n + 1) % 8] = 1.0, other
    return vector


def keys(facts: list[Any]) -> list[str]:
    """The facts' keys."""
    return [fact.key for fact in facts]


def diet(value: object = "vegetarian", **more: Any) -> Fact:
    """What Ann eats."""
    return Fact("ann", "preference", "diet", value, **more)


class MemoryStoreContract(StoreContract):
    """What a `MemoryStore` must do.

    Override the fixture `make_store`: a function of a tenant, and of `actor`, `space`, `keep_versions` and `grace` by
    name, as those of `Tenant.memory`.
    """

    protocol: ClassVar[type] = MemoryStore

    @pytest.fixture
    def open_memory(self, make_store: Callable[..., Any], called: Callable[[Any], Any]) -> Callable[..., Any]:
        """Opens a store, called in the test's mode."""

        def open_memory(tenant: str = "a", **options: Any) -> Any:
            return called(make_store(tenant, **{"actor": "me", "space": SPACE, **options}))

        return open_memory

    @pytest.fixture
    def memory(self, open_memory: Any) -> Any:
        """One tenant's facts; there are none yet."""
        return open_memory()

    def test_the_store_has_the_protocols_verbs(self, make_store: Any) -> None:
        """Each verb has the protocol's arguments and defaults; arguments of the store's own are optional."""
        assert self.verbs_that_differ(make_store("a", actor="me", space=SPACE)) == []

    def test_a_fact_comes_back_as_it_was_put(self, memory: Any) -> None:
        """A fact comes back with every field that the caller gave, and with its actor and times."""
        given = Fact(
            "ann", "preference", "diet", {"a": [1, None, "é"]}, "eats no meat", "chat 7", 0.25, 3600.0,
            namespace=("x", "y"),
        )  # fmt: skip
        put = memory.put_fact(given, reason="said so")
        for name in ("subject", "kind", "key", "value", "text", "source", "confidence", "ttl", "namespace"):
            assert getattr(put, name) == getattr(given, name)
        assert (put.actor, put.valid_to, put.supersedes_id, put.refresh_on_read) == ("me", None, None, False)
        assert put.expires_at == put.valid_from + timedelta(hours=1) and put.created_at == put.valid_from
        assert memory.get(put.id) == put == memory.search_facts()[0]
        assert memory.get_facts([put.fact_key, FactKey("ann", "preference", "diet")]) == [put, None]

    def test_the_same_identity_supersedes(self, memory: Any) -> None:
        """A second fact of the same identity ends the first, which stays in the history; created_at stays."""
        first, second = memory.put_fact(diet()), memory.put_fact(diet("vegan"))
        assert memory.search_facts() == [second]
        assert (second.supersedes_id, second.created_at) == (first.id, first.created_at)
        assert second.valid_from > first.valid_from
        ended = memory.get(first.id)
        assert ended.valid_to == second.valid_from
        assert memory.history(key="diet") == memory.history(first.id) == [second, ended]

    def test_each_part_of_the_identity_tells_facts_apart(self, memory: Any) -> None:
        """A fact with another subject, kind, key or namespace is another fact."""
        facts = [
            diet(1), Fact("bob", "preference", "diet", 2), Fact("ann", "plan", "diet", 3),
            Fact("ann", "preference", "x", 4),
            Fact("ann", "preference", "diet", 5, namespace=("n",)),
            Fact("ann", "preference", "diet", 6, namespace=("n", "m")),
            Fact(None, "preference", "diet", 7, namespace=("n",)),
        ]  # fmt: skip
        memory.put_facts(facts)
        assert sorted(fact.value for fact in memory.search_facts()) == [1, 2, 3, 4, 5, 6, 7]

    def test_of_two_with_one_identity_in_a_call_the_last_wins(self, memory: Any) -> None:
        """Of two facts with the same identity in one call, only the last is stored."""
        [put] = memory.put_facts([diet(1), diet(2)], reason="twice")
        assert put.value == 2 and memory.history(put.id) == [put]
        assert [(e.target_id, e.reason) for e in memory.list_events()] == [(put.id, "twice")]

    def test_a_call_is_all_or_nothing(self, memory: Any) -> None:
        """If one fact can't be stored, none of the call is."""
        with pytest.raises(InvalidInput):
            memory.put_facts([diet(), Fact("ann", "k", "bad", float("nan"))])
        with pytest.raises(InvalidEmbedding):
            memory.put_facts([diet(), Fact("ann", "k", "bad", 1, embedding=[1.0])])
        assert memory.search_facts() == [] == memory.list_events()
        assert memory.put_facts([]) == []

    @pytest.mark.parametrize(
        "fact",
        [
            Fact(None, "kind", "key", 1),
            Fact("", "kind", "key", 1),
            Fact("s", "", "key", 1),
            Fact("s", "kind", "", 1),
            Fact("s", "kind", "k" * 1_990 + "é" * 10, 1),
            Fact("s", "kind", "key", 1, namespace=("",)),
            Fact("s", "kind", "key", 1, namespace="path"),  # type: ignore[arg-type]
            Fact("s", "kind", "a\0b", 1),
            Fact("s", "kind", "\ud800", 1),
            Fact("s", "kind", "key", {"a": {1, 2}}),
            Fact("s", "kind", "key", 1, confidence=1.5),
            Fact("s", "kind", "key", 1, ttl=0),
            Fact("s", "kind", "key", 1, ttl=float("inf")),
            Fact("s", "kind", "key", 1, expires_at=datetime(2100, 1, 1)),
            Fact("s", "kind", "key", 1, text="a\0b"),
            {"subject": "s"},
        ],
    )
    def test_what_can_not_be_a_fact_is_refused(self, memory: Any, fact: Any) -> None:
        """A fact that can't be stored raises InvalidInput, and nothing is stored."""
        with pytest.raises(InvalidInput):
            memory.put_fact(fact)
        assert memory.search_facts() == []

    def test_conditions_are_anded(self, memory: Any) -> None:
        """Subject, kinds, key and the filter on the value are ANDed; the newest facts come first."""
        memory.put_facts(
            [Fact("ann", "a", "1", {"n": 1}), Fact("ann", "b", "2", {"n": 2}), Fact("bob", "a", "3", {"n": 3})]
        )
        memory.put_fact(Fact("ann", "c", "4", {"n": 1}))
        assert memory.search_facts(subject="ann")[0].key == "4"
        assert sorted(keys(memory.search_facts(subject="ann", kind=["a", "b"]))) == ["1", "2"]
        assert sorted(keys(memory.search_facts(kind="a"))) == ["1", "3"]
        assert keys(memory.search_facts(key="2")) == ["2"]
        assert keys(memory.search_facts(filters=F.n >= 2, subject="ann")) == ["2"]
        assert memory.search_facts(subject="nobody") == [] == memory.search_facts(kind=[])
        assert len(memory.search_facts(top_k=2)) == 2 and len(memory.search_facts(top_k=10, offset=3)) == 1

    def test_a_namespace_is_a_prefix_of_whole_labels_taken_literally(self, memory: Any) -> None:
        """A namespace matches whole labels: (a,) does not match (ab,), % and * are literal, () matches all."""
        paths = [("a",), ("a", "b"), ("ab",), ("a%",), ("*", "b"), ("a", "b_"), ("é", "ü")]
        memory.put_facts([Fact(None, "k", "/".join(path), 1, namespace=path) for path in paths])
        memory.put_fact(diet())

        def below(*path: str) -> list[str]:
            return sorted(keys(memory.search_facts(namespace=path, top_k=99)))

        assert below("a") == ["a", "a/b", "a/b_"]
        assert below("a", "b") == ["a/b"]
        assert below("a%") == ["a%"]
        assert below("*") == ["*/b"]
        assert below("é") == ["é/ü"]
        assert below("b") == []
        assert len(below()) == 8

    def test_namespaces_are_listed_by_prefix_and_suffix(self, memory: Any) -> None:
        """list_namespaces lists the namespaces of live facts; `*` in a prefix or suffix matches any one label."""
        paths = [("a", "x", "v1"), ("a", "y", "v1"), ("a", "y", "v2"), ("b", "v1")]
        memory.put_facts([Fact(None, "k", "k", 1, namespace=path) for path in paths])
        memory.put_fact(diet())
        assert memory.list_namespaces() == paths
        assert memory.list_namespaces(prefixes=[("a", "*")]) == paths[:3]
        assert memory.list_namespaces(suffixes=[("v1",)]) == [paths[0], paths[1], paths[3]]
        assert memory.list_namespaces(prefixes=[("a",)], suffixes=[("y", "*")]) == paths[1:3]
        assert memory.list_namespaces(prefixes=[("a", "x", "v1", "more")]) == []
        memory.delete(key="k", namespace=("b", "v1"))
        assert memory.list_namespaces() == paths[:3]

    def test_orders(self, memory: Any) -> None:
        """Facts are ordered by recency or by confidence; facts without a confidence come last."""
        for key, confidence in (("low", 0.1), ("none", None), ("high", 0.9)):
            memory.put_fact(Fact("ann", "k", key, key, confidence=confidence))
        assert keys(memory.search_facts()) == ["high", "none", "low"]
        assert keys(memory.search_facts(order_by="recency")) == ["high", "none", "low"]
        assert keys(memory.search_facts(order_by="confidence")) == ["high", "low", "none"]

    def test_words_find_facts_by_their_text(self, memory: Any) -> None:
        """Any of the words finds a fact by its text, in any case; the text of a string is the string."""
        memory.put_facts(
            [diet("Eats no MEAT"), Fact("ann", "k", "fish", {"a": 1}, "likes fish"), Fact("ann", "k", "none", 1)]
        )
        assert keys(memory.search_facts(text="meat")) == ["diet"]
        assert sorted(keys(memory.search_facts(text="meat or fish"))) == ["diet", "fish"]
        assert memory.search_facts(text="rabbit") == []
        assert memory.search_facts(text="fish")[0].score > 0

    def test_the_nearest_vector_is_found_and_the_best_field_counts(self, memory: Any) -> None:
        """A search by vector ranks each fact by its best field, and does not find facts without vectors."""
        memory.put_facts(
            [
                Fact("ann", "k", "one", 1, embedding=axis(0)),
                Fact("ann", "k", "two", 2, embedding={"title": axis(3), "body": axis(0, 0.5)}),
                Fact("ann", "k", "three", 3, embedding=axis(5)),
                Fact("ann", "k", "bare", 4),
            ]
        )
        found = memory.search_facts(vector=axis(0))
        assert keys(found)[:2] == ["one", "two"] and len(found) == 3
        assert found[0].score == pytest.approx(1.0, abs=1e-3)
        assert found[1].score == pytest.approx(0.894, abs=1e-2)
        assert keys(memory.search_facts(vector=axis(3), top_k=1)) == ["two"]
        assert keys(memory.search_facts(vector=axis(0), kind="other")) == []

    def test_words_and_vector_together(self, memory: Any) -> None:
        """A fact that is found by words and by vector ranks before one that is found by one of them."""
        memory.put_facts(
            [
                Fact("ann", "k", "both", "red car", embedding=axis(0)),
                Fact("ann", "k", "words", "red boat", embedding=axis(4)),
                Fact("ann", "k", "vector", "blue bike", embedding=axis(0, 0.1)),
            ]
        )
        found = keys(memory.search_facts(text="red", vector=axis(0)))
        assert found[0] == "both" and set(found) == {"both", "words", "vector"}

    def test_a_mode_uses_only_what_it_needs(self, memory: Any) -> None:
        """ "dense" ranks by the vector, "sparse" by the words, "hybrid" by both; without its argument it raises."""
        both = Fact("ann", "k", "both", "red car", embedding=axis(0))
        memory.put_facts([both, Fact("ann", "k", "words", "red boat"), Fact("ann", "k", "near", 1, embedding=axis(0))])
        for mode, found in (("dense", "both near"), ("sparse", "both words"), ("hybrid", "both near words")):
            facts = memory.search_facts(text="red", vector=axis(0), mode=mode)
            assert sorted(keys(facts)) == found.split()
        for mode, given in (("dense", {}), ("sparse", {"vector": axis(0)}), ("hybrid", {"vector": axis(0)}), ("x", {})):
            with pytest.raises(InvalidInput):
                memory.search_facts(mode=mode, **given)

    def test_a_superseded_or_forgotten_value_is_found_by_no_vector(self, memory: Any) -> None:
        """A search by vector finds live versions only; a restored one is found again."""
        memory.put_fact(diet(embedding=axis(0)))
        memory.put_fact(diet("vegan", embedding=axis(4)))
        [found] = memory.search_facts(vector=axis(0))
        assert (found.value, found.score) == ("vegan", pytest.approx(0.0, abs=1e-3))
        memory.put_fact(diet("none"))
        assert memory.search_facts(vector=axis(0)) == []
        gone = memory.put_fact(diet("again", embedding=axis(0)))
        memory.delete(gone.id)
        assert memory.search_facts(vector=axis(0)) == []
        memory.restore(gone.id)
        assert memory.search_facts(vector=axis(0))[0].id == gone.id

    def test_vectors_of_another_space_are_refused(self, open_memory: Any) -> None:
        """A vector of another space or length raises an error, in writes and in searches."""
        open_memory().put_fact(diet(embedding=axis(0)))
        other = open_memory(space=EmbedSpace("test", "other", 8))
        with pytest.raises(EmbedSpaceMismatch, match="test/eight"):
            other.put_fact(diet(embedding=axis(0)))
        with pytest.raises(EmbedSpaceMismatch, match="test/eight"):
            other.search_facts(vector=axis(0))
        with pytest.raises(InvalidEmbedding):
            open_memory().search_facts(vector=[1.0])
        assert len(other.search_facts()) == 1

    def test_as_of_answers_as_of_then(self, memory: Any) -> None:
        """as_of finds the version that was live at that time; it does not go with a vector."""
        first = memory.put_fact(diet())
        second = memory.put_fact(diet("vegan"))
        instant = timedelta(microseconds=1)
        assert memory.search_facts(as_of=first.valid_from - instant) == []
        assert [f.value for f in memory.search_facts(as_of=first.valid_from)] == ["vegetarian"]
        assert [f.value for f in memory.search_facts(as_of=second.valid_from - instant)] == ["vegetarian"]
        assert [f.value for f in memory.search_facts(as_of=second.valid_from)] == ["vegan"]
        assert [f.value for f in memory.search_facts(as_of=first.valid_from, text="vegetarian")] == ["vegetarian"]
        for bad in (datetime(2026, 1, 1), "today"):
            with pytest.raises(InvalidInput):
                memory.search_facts(as_of=bad)
        with pytest.raises(InvalidInput):
            memory.search_facts(as_of=first.valid_from, vector=axis(0))

    def test_what_was_forgotten_is_gone_from_every_read(self, memory: Any) -> None:
        """No read returns a forgotten fact or its history, as_of included; other facts stay."""
        first = memory.put_fact(diet())
        second = memory.put_fact(diet("vegan"))
        memory.put_fact(Fact("ann", "k", "other", "stays"))
        assert memory.delete(second.id, reason="asked to") == 1
        assert memory.delete(second.id) == memory.delete(first.id) == memory.delete(key="diet") == 0
        assert memory.get(first.id) is memory.get(second.id) is None
        assert memory.get_facts([second.fact_key]) == [None]
        assert memory.history(first.id) == memory.history(key="diet") == memory.search_facts(key="diet") == []
        assert memory.search_facts(as_of=first.valid_from) == [] == memory.search_facts(text="vegan vegetarian")
        assert keys(memory.search_facts()) == ["other"]

    def test_a_fact_is_forgotten_by_the_id_of_any_of_its_versions(self, memory: Any) -> None:
        """The id of a superseded version still names the fact."""
        first = memory.put_fact(diet())
        memory.put_fact(diet("vegan"))
        assert memory.delete(first.id) == 1 and memory.search_facts() == []

    def test_restoring_brings_all_of_it_back(self, memory: Any) -> None:
        """restore brings back the live version and its history."""
        first, second = memory.put_fact(diet()), memory.put_fact(diet("vegan"))
        memory.delete(second.id)
        assert memory.restore(first.id) == second
        assert memory.search_facts() == [second] and len(memory.history(second.id)) == 2
        with pytest.raises(NotFound):
            memory.restore(second.id)
        memory.delete(key="diet")
        assert memory.restore(key="diet") == second

    def test_a_fact_with_a_newer_version_is_not_restored(self, memory: Any) -> None:
        """restore raises InvalidInput while a newer fact is live; if that is forgotten too, either can be restored."""
        old = memory.put_fact(diet())
        memory.delete(old.id)
        new = memory.put_fact(diet("vegan"))
        assert new.supersedes_id is None and new.created_at == new.valid_from
        with pytest.raises(InvalidInput):
            memory.restore(old.id)
        assert memory.search_facts() == [new]
        memory.delete(new.id)
        assert memory.restore(old.id) == old
        assert memory.search_facts() == [old]

    def test_the_grace_time_ends(self, open_memory: Any) -> None:
        """After the grace time, restore raises NotFound."""
        memory = open_memory(grace=timedelta(0))
        put = memory.put_fact(diet())
        memory.delete(put.id)
        with pytest.raises(NotFound):
            memory.restore(put.id)

    def test_erasing_leaves_nothing_to_restore(self, memory: Any) -> None:
        """erase deletes every version, forgotten ones too."""
        old = memory.put_fact(diet())
        memory.delete(old.id)
        put = [memory.put_fact(diet(n)) for n in range(3)]
        assert memory.erase(key="diet", reason="by law") == 4
        assert memory.erase(put[0].id) == 0 and memory.search_facts() == []
        with pytest.raises(NotFound):
            memory.restore(old.id)
        assert memory.put_fact(diet()).supersedes_id is None

    def test_a_key_that_names_several_facts_is_an_error_that_lists_them(self, memory: Any) -> None:
        """A key that names several facts changes nothing; subject, kind and namespace narrow it to one."""
        memory.put_facts(
            [diet(), Fact("bob", "preference", "diet", 1), Fact("ann", "preference", "diet", 2, namespace=("n",))]
        )
        for verb in (memory.delete, memory.erase, memory.history):
            with pytest.raises(InvalidInput, match=r"(?s)diet.*ann.*bob"):
                verb(key="diet")
        assert memory.delete(key="diet", subject="bob") == 1
        assert memory.delete(key="diet", subject="ann", namespace=()) == 1
        assert memory.delete(key="diet") == 1
        assert memory.search_facts() == []
        for wrong in ({}, {"fact_id": "x", "key": "y"}):
            with pytest.raises(InvalidInput):
                memory.delete(**wrong)

    def test_parts_of_the_identity_select_one_of_several_facts(self, memory: Any) -> None:
        """history, delete, restore and erase take kind, subject and namespace with a key, but not with an id."""
        memory.put_facts([diet(1), Fact("ann", "plan", "diet", 2), Fact("ann", "plan", "diet", 3, namespace=("n",))])
        [found] = memory.history(key="diet", kind="preference", subject="ann", namespace=())
        assert found.value == 1
        assert memory.delete(key="diet", kind="plan", subject="ann", namespace=()) == 1
        assert sorted(fact.value for fact in memory.search_facts()) == [1, 3]
        assert memory.restore(key="diet", kind="plan", subject="ann", namespace=()).value == 2
        assert memory.erase(key="diet", kind="plan", subject="ann", namespace=("n",)) == 1
        assert sorted(fact.value for fact in memory.search_facts()) == [1, 2]
        for verb in (memory.history, memory.delete, memory.restore, memory.erase):
            with pytest.raises(InvalidInput):
                verb(found.id, kind="preference")

    def test_every_change_has_its_event_and_no_event_has_a_value(self, memory: Any) -> None:
        """The trail has an event for each change, with target, subject, actor and reason, in order."""
        first = memory.put_fact(diet("secret one"), reason="she said so")
        second = memory.put_fact(diet("secret two"))
        memory.delete(second.id, reason="asked")
        memory.restore(second.id, reason="sorry")
        memory.erase(second.id)
        memory.delete(second.id)
        found = memory.list_events()
        assert [(e.action, e.target_id, e.reason) for e in found] == [
            ("put", first.id, "she said so"), ("supersede", second.id, None), ("forget", second.id, "asked"),
            ("restore", second.id, "sorry"), ("erase", second.id, None),
        ]  # fmt: skip
        assert {(e.subject, e.actor) for e in found} == {("ann", "me")}
        assert "secret" not in repr(found)
        assert found[1].detail == {"supersedes": first.id}
        assert memory.list_events(target_id=first.id) == found[:1]
        assert memory.list_events(subject="bob") == [] and memory.list_events(subject="ann", limit=2) == found[:2]

    def test_expired_facts_are_gone_before_any_sweep(self, memory: Any) -> None:
        """No read returns an expired fact, and a new fact of its identity has no predecessor."""
        past = datetime.now(UTC) - timedelta(seconds=1)
        old = memory.put_fact(diet(expires_at=past, embedding=axis(0)))
        assert memory.search_facts() == [] == memory.search_facts(as_of=old.valid_from)
        assert memory.get(old.id) is None and memory.get_facts([old.fact_key]) == [None]
        assert memory.search_facts(vector=axis(0)) == [] == memory.history(old.id)
        assert memory.delete(old.id) == 0
        new = memory.put_fact(diet("vegan"))
        assert new.supersedes_id is None and new.created_at == new.valid_from
        assert memory.history(new.id) == [new]

    def test_versions_beyond_the_limit_go(self, open_memory: Any) -> None:
        """Only keep_versions versions stay; each that was removed has its event."""
        memory = open_memory(keep_versions=2)
        put = [memory.put_fact(diet(n)) for n in range(4)]
        assert [f.value for f in memory.history(put[3].id)] == [3, 2]
        assert [e.target_id for e in memory.list_events() if e.action == "prune"] == [put[0].id, put[1].id]

    def test_tenants_do_not_see_each_other(self, open_memory: Any) -> None:
        """Facts with the same identity in two tenants are two facts."""
        one, two = open_memory("a"), open_memory("b")
        first = one.put_fact(diet(1, embedding=axis(0)))
        second = two.put_fact(diet(2, embedding=axis(0)))
        assert [m.search_facts(vector=axis(0))[0].value for m in (one, two)] == [1, 2]
        assert two.get(first.id) is None and two.delete(first.id) == two.erase(first.id) == 0
        assert one.search_facts() == [first] and two.search_facts() == [second]
        assert len(two.list_events()) == 1
