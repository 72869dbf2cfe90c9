"""Memory as a state machine: the facts of three tenants compared with a model in plain Python."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from conftest import as_dsn
from pgrecall import EmbedSpace, F, Fact, PgRecallError
from pgrecall.testing import InMemoryFactStore

SPACE = EmbedSpace("test", "eight", 8)
_numbers = itertools.count()

tenants = st.sampled_from(["one", "two", "three"])
subjects = st.sampled_from(["ann", "bob"])
keys = st.sampled_from(["k1", "k2"])
namespaces = st.sampled_from([(), ("n",), ("n", "m")])
words = st.sampled_from(["apple", "pear", "plum"])
axes = st.none() | st.integers(0, 7)


def axis(n):
    return None if n is None else [1.0 if n == at else 0.1 for at in range(8)]


class Model(InMemoryFactStore):
    """The store in memory, and what happens to a database from outside."""

    def expire(self, fact_id):
        """Let a fact's time be over."""
        for row in self._held.rows:
            if row.fact.id == fact_id:
                row.fact = replace(row.fact, expires_at=datetime(2000, 1, 1, tzinfo=UTC))

    def sweep(self):
        """Purge what is due; returns how many."""
        now = self._held.now()
        expired = [r for r in self._held.rows if r.fact.expires_at is not None and r.fact.expires_at <= now]
        due = [r for r in self._held.rows if r not in expired and r.purge_at is not None and r.purge_at <= now]
        for action, rows in (("expire", expired), ("purge", due)):
            for row in rows:
                self._held.rows.remove(row)
                self._held.note(action, row.fact, "sweep", None)
        return len(expired) + len(due)


class Memories(RuleBasedStateMachine):
    """Every rule does the same to Postgres and to the model; `db` and `outside` are set by the test."""

    db = outside = None

    def __init__(self):
        super().__init__()
        self.run, shelves = next(_numbers), {}
        names = {t: f"machine-{self.run}-{t}-{id(type(self))}" for t in ("one", "two", "three")}
        self.names = names
        options = {"space": SPACE, "keep_versions": 3}
        graces = {"one": timedelta(days=1), "two": timedelta(0), "three": timedelta(days=1)}
        self.real = {t: self.db.tenant(n).memory(actor=t, grace=graces[t], **options) for t, n in names.items()}
        self.model = {t: Model(tenant=t, shared=shelves, actor=t, grace=graces[t], **options) for t in names}
        self.ids: list[tuple[str, str, str]] = []  # tenant, real id, the model's id
        self.times = []  # of one moment: in Postgres, in the model

    def both(self, tenant, call):
        """Do it to both; the results, or the kinds of their errors."""
        outcomes = []
        for store in (self.real[tenant], self.model[tenant]):
            try:
                outcomes.append(call(store))
            except PgRecallError as exc:
                outcomes.append(type(exc))
        return outcomes

    def same(self, tenant, facts, expected):
        """Facts are the same but for their ids and times."""

        def plain(found):
            if not isinstance(found, list):
                return found
            return [(f.subject, f.key, f.value, f.namespace, f.confidence, f.supersedes_id is None) for f in found]

        assert plain(facts) == plain(expected)
        if isinstance(facts, list):
            known = {real: model for owner, real, model in self.ids if owner == tenant}
            assert [known[f.id] for f in facts] == [f.id for f in expected]

    @rule(
        tenant=tenants, subject=subjects, key=keys, namespace=namespaces, text=words, n=axes,
        confidence=st.none() | st.sampled_from([0.1, 0.9]),
    )  # fmt: skip
    def put(self, tenant, subject, key, namespace, text, n, confidence):
        fact = Fact(
            subject, "kind", key, {"word": text}, text, confidence=confidence, namespace=namespace, embedding=axis(n)
        )
        real, model = self.both(tenant, lambda store: store.put_fact(fact))
        self.ids.append((tenant, real.id, model.id))
        self.times.append((real.valid_from, model.valid_from))
        self.same(tenant, [real], [model])

    def chosen(self, data):
        return data.draw(st.sampled_from(self.ids)) if self.ids else ("one", "none", "none")

    def by_id(self, data, verb):
        tenant, real_id, model_id = self.chosen(data)
        outcomes = []
        for store, fact_id in ((self.real[tenant], real_id), (self.model[tenant], model_id)):
            try:
                outcomes.append(getattr(store, verb)(fact_id))
            except PgRecallError as exc:
                outcomes.append(type(exc))
        return tenant, *outcomes

    @rule(data=st.data())
    def forget(self, data):
        _, real, model = self.by_id(data, "delete")
        assert real == model

    @rule(tenant=tenants, key=keys)
    def forget_by_key(self, tenant, key):
        real, model = self.both(tenant, lambda store: store.delete(key=key))
        assert real == model

    @rule(data=st.data())
    def restore(self, data):
        tenant, real, model = self.by_id(data, "restore")
        if isinstance(real, type) or isinstance(model, type):
            assert real == model
        else:
            self.same(tenant, [real], [model])

    @rule(data=st.data())
    def erase(self, data):
        _, real, model = self.by_id(data, "erase")
        assert real == model

    @rule(data=st.data())
    def expire(self, data):
        """Its time is over: set from outside, because nobody waits here."""
        tenant, real_id, model_id = self.chosen(data)
        over = "UPDATE pgrecall.memory_facts SET expires_at = '2000-01-01 00:00 UTC' WHERE tenant_id = %s AND id = %s"
        self.outside.execute(over, [self.names[tenant], real_id])
        self.model[tenant].expire(model_id)

    @rule()
    def sweep(self):
        mine = "SELECT count(*) FROM pgrecall.memory_facts WHERE tenant_id = ANY (%s)"
        held = list(self.names.values())
        [(before,)] = self.outside.execute(mine, [held]).fetchall()
        self.db.sweep(batch=2)
        [(after,)] = self.outside.execute(mine, [held]).fetchall()
        assert before - after == sum(model.sweep() for model in self.model.values())

    @rule(tenant=tenants, text=words, n=axes, subject=st.none() | subjects, namespace=namespaces)
    def search(self, tenant, text, n, subject, namespace):
        conditions = {"subject": subject, "namespace": namespace, "top_k": 50}
        self.same(tenant, *self.both(tenant, lambda s: s.search_facts(filters=F.word == text, **conditions)))
        self.same(tenant, *self.both(tenant, lambda s: s.search_facts(order_by="confidence", **conditions)))
        if n is not None:
            real, model = self.both(tenant, lambda s: s.search_facts(vector=axis(n), **conditions))
            known = {r: m for owner, r, m in self.ids if owner == tenant}
            assert {known[f.id]: pytest.approx(f.score, abs=2e-3) for f in real} == {f.id: f.score for f in model}

    @rule(tenant=tenants, data=st.data())
    def as_of(self, tenant, data):
        if self.times:
            real_time, model_time = data.draw(st.sampled_from(self.times))
            real = self.real[tenant].search_facts(as_of=real_time, top_k=50)
            self.same(tenant, real, self.model[tenant].search_facts(as_of=model_time, top_k=50))

    @rule(data=st.data())
    def history(self, data):
        self.same(*self.by_id(data, "history"))

    @invariant()
    def tenants_have_their_own_and_events_equal_changes(self):
        for tenant in self.real:
            real, model = self.both(tenant, lambda store: store.search_facts(top_k=50))
            self.same(tenant, real, model)
            trails = self.both(tenant, lambda store: store.list_events(limit=1_000))
            actions = [sorted((e.action, e.subject, e.actor) for e in trail) for trail in trails]
            assert actions[0] == actions[1]


def run(db, admin_url, examples, steps):
    with psycopg.connect(as_dsn(admin_url), autocommit=True) as outside:
        machine = type("Bound", (Memories,), {"db": db, "outside": outside})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )


def test_memory_does_what_its_model_does(db, admin_url):
    """Whatever is done in whichever order, each tenant reads what the model reads, and every change has its event."""
    run(db, admin_url, 12, 25)


@pytest.mark.soak("60 histories of 50 steps")
def test_memory_does_what_its_model_does_at_length(db, admin_url):
    """The same, with many more and longer histories."""
    run(db, admin_url, 60, 50)
