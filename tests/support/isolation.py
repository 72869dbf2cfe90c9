"""Every public method that reads or writes a tenant's rows, as a call with names that the caller chooses.

`test_tenant_isolation.py` calls each as tenant B with names of tenant A, which `fill` and `remember` put there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pgrecall
from pgrecall import Chunk, DocstoreEntry, Document, EmbedSpace, F, Fact, FactKey
from pgrecall.evaluation import EvalQuery, EvalSet, Evaluations, evaluate
from support import models

SPACE = EmbedSpace("test", "eight", 8)
ONES = [1.0] * 8


@dataclass(frozen=True)
class Names:
    """What a caller may name: all of it tenant A's, or nobody's."""

    prefix: str

    @property
    def chunk(self) -> str:
        return f"{self.prefix}-chunk"

    @property
    def doc(self) -> str:
        return f"{self.prefix}-doc"

    @property
    def collection(self) -> str:
        return f"{self.prefix}-collection"

    @property
    def session(self) -> str:
        return f"{self.prefix}-session"

    @property
    def run(self) -> str:
        return f"{self.prefix}-run"

    @property
    def message(self) -> str:
        return f"{self.prefix}-message"

    @property
    def subject(self) -> str:
        return f"{self.prefix}-subject"

    @property
    def fact(self) -> str:
        return f"{self.prefix}-fact"

    @property
    def key(self) -> str:
        return f"{self.prefix}-key"

    @property
    def fact_key(self) -> FactKey:
        return FactKey(self.subject, "kind", self.key, (self.key,))


OURS, NOBODYS = Names("aaa"), Names("xxx")


def in_a_block(tenant, names):
    with tenant.atomic():
        done = tenant.vectors(names.collection, SPACE).upsert([Chunk(names.chunk, "B's", ONES)])
        return [done, [(c.name, c.chunks) for c in tenant.list_collections()]]


STORE: dict[str, Callable] = {
    "upsert": lambda s, n: s.upsert([Chunk(n.chunk, "B's", ONES, n.doc), Chunk("new", "B's", ONES)]),
    "bulk_load": lambda s, n: s.bulk_load(
        iter([Chunk(n.chunk, "B's", ONES, n.doc), Chunk("new", "B's", ONES)]), documents=[Document(n.doc)]
    ),
    "replace_document": lambda s, n: s.replace_document(Document(n.doc), [Chunk(n.chunk, "B's", ONES)]),
    "compare_documents": lambda s, n: s.compare_documents([Document(n.doc), Document("own")]),
    "update_documents": lambda s, n: s.update_documents(
        [Document(n.doc)], lambda document: [Chunk(n.chunk, "B's", ONES)], prune=True
    ),
    "query": lambda s, n: [
        s.query(ONES, 10),
        s.query(ONES, 10, F.mine == n.chunk),
        s.query(ONES, 10, ids=[n.chunk]),
        s.query(ONES, 10, doc_ids=[n.doc]),
        s.query(ONES, 10, exact=True),
        s.query(ONES, 10, ef_search=40),
        s.query(ONES, 10, text="b secrets"),
        (plain := s.query(text="b secrets", explain=True)),
        (plain.explanation.rows, plain.explanation.candidates),
    ],
    "for_run": lambda s, n: s.for_run(n.run).query(ONES, 10),
    "query_mmr": lambda s, n: [s.query_mmr(ONES, 5), s.query_mmr(ONES, 5, ids=[n.chunk])],
    "get": lambda s, n: s.get([n.chunk, "own"], with_embeddings=True),
    "list_chunks": lambda s, n: [
        s.list_chunks(with_embeddings=True),
        s.list_chunks(ids=[n.chunk]),
        s.list_chunks(doc_ids=[n.doc]),
    ],
    "list_documents": lambda s, n: [s.list_documents(), s.list_documents([n.doc])],
    "count": lambda s, n: [s.count(), s.count(F.mine == n.chunk), s.count(doc_ids=[n.doc])],
    "set_metadata": lambda s, n: [
        s.set_metadata({"x": 1}, ids=[n.chunk]),
        s.set_metadata({"x": 1}, doc_ids=[n.doc]),
        s.set_metadata({"x": 1}, filters=F.mine == n.chunk, replace=True),
    ],
    "delete": lambda s, n: [s.delete([n.chunk]), s.delete(filters=F.mine == n.chunk)],
    "delete_by_doc_id": lambda s, n: s.delete_by_doc_id(n.doc),
    "optimize": lambda s, n: s.optimize(),
    "clear": lambda s, n: s.clear(),
    "drop": lambda s, n: s.drop(),
}
MESSAGE = pgrecall.Message("user", "B's")


def plain(messages):
    """What of messages does not differ from call to call."""
    return [(m.text, m.position, m.role, m.status) for m in messages if m]


CHAT: dict[str, Callable] = {
    "append": lambda c, n: [plain(c.append([MESSAGE, replace(MESSAGE, id=n.message)])), plain(c.list_messages())],
    "replace": lambda c, n: plain(c.replace([replace(MESSAGE, id=n.message)])),
    "replace_message": lambda c, n: [
        plain([c.replace_message(n.message, MESSAGE)]),
        plain([c.replace_message(0, MESSAGE)]),
    ],
    "list_messages": lambda c, n: [
        plain(c.list_messages()),
        plain(c.list_messages(3, status=None)),
        plain(c.list_messages(after=-1, limit=9)),
    ],
    "get": lambda c, n: plain([c.get(n.message)]),
    "count": lambda c, n: [c.count(), c.count(None)],
    "window": lambda c, n: [plain(c.window(9)), plain(c.window(max_tokens=9, count_tokens=lambda m: 1))],
    "search": lambda c, n: [plain(h.message for h in c.search("secret own"))],
    "delete": lambda c, n: [c.delete([n.message]), c.delete(positions=[1, 2])],
    "pop": lambda c, n: plain([c.pop(), c.pop(1)]),
    "delete_oldest": lambda c, n: plain(c.delete_oldest(2)),
    "archive_oldest": lambda c, n: plain(c.archive_oldest(2)),
    "clear": lambda c, n: [c.clear("active"), c.clear()],
    "drop": lambda c, n: c.drop(),
    "info": lambda c, n: getattr(c.info(), "messages", None),
    "set_metadata": lambda c, n: [c.set_metadata({"x": 1}), c.set_metadata({"x": 2}, replace=True)],
    "set_ttl": lambda c, n: c.set_ttl(timedelta(days=1)),
}
DOCSTORE: dict[str, Callable] = {
    "put": lambda d, n: [d.put([DocstoreEntry(n.doc, "B's")]), d.put([DocstoreEntry("new", ref_doc_id=n.doc)])],
    "get": lambda d, n: d.get([n.doc, "own-doc"]),
    "list_entries": lambda d, n: d.list_entries(),
    "hashes": lambda d, n: [d.hashes(), d.hashes([n.doc])],
    "references": lambda d, n: [d.references(), d.references([n.doc])],
    "delete": lambda d, n: d.delete([n.doc]),
    "delete_document": lambda d, n: d.delete_document(n.doc),
}
RUN = pgrecall.RunState("", {"of": "B"}, state_version=None)


def states(runs):
    """What of runs does not differ from call to call."""
    return [(r.state, r.state_version, r.status, r.subject) for r in runs if r]


RUNS: dict[str, Callable] = {
    "put": lambda r, n: states([r.put(replace(RUN, run_id=n.run)), r.put(replace(RUN, run_id=n.run, state_version=1))]),
    "get": lambda r, n: states([r.get(n.run)]),
    "list_runs": lambda r, n: [
        states(r.list_runs()),
        states(r.list_runs(F.mine == n.run)),
        states(r.list_runs(subject=n.prefix)),
    ],
    "count": lambda r, n: [r.count(), r.count(state=F.of == "A's secret")],
    "append_event": lambda r, n: r.append_event(n.run, "k", {}).seq,
    "list_events": lambda r, n: [e.data for e in r.list_events(n.run)],
    "tail": lambda r, n: [e.data for e in r.tail(n.run, timeout=0)],
    "record_evidence": lambda r, n: [
        r.record_evidence(n.run, "q", [], collection=n.collection),
        r.list_evidence(n.run)[0].space,
    ],
    "list_evidence": lambda r, n: [(e.collection, e.chunks) for e in r.list_evidence(n.run)],
    "delete": lambda r, n: r.delete(n.run),
    "prune": lambda r, n: [r.prune(timedelta(days=1)), r.prune(keep_latest=0)],
}


def known(found):
    """What facts say, without the ids and times that differ by themselves."""
    if isinstance(found, list):
        return [known(fact) for fact in found]
    return found and (found.subject, found.key, found.value, found.supersedes_id, found.score)


MEMORY: dict[str, Callable] = {
    "put_fact": lambda m, n: known(m.put_fact(Fact(n.subject, "kind", n.key, "B's", namespace=(n.key,)))),
    "put_facts": lambda m, n: known(m.put_facts([Fact(n.subject, "kind", n.key, "B's", embedding=ONES)])),
    "get": lambda m, n: known(m.get(n.fact)),
    "get_facts": lambda m, n: known(m.get_facts([n.fact_key, FactKey("own", "kind", "own")], refresh=True)),
    "search_facts": lambda m, n: [
        known(m.search_facts()),
        known(m.search_facts(subject=n.subject, kind="kind", key=n.key)),
        known(m.search_facts(filters=F.mine == n.key)),
        known(m.search_facts(namespace=(n.key,))),
        known(m.search_facts(text="A's secret")),
        known(m.search_facts(vector=ONES)),
        known(m.search_facts(text="secret", vector=ONES)),
        known(m.search_facts(as_of=datetime.now(UTC))),
    ],
    "history": lambda m, n: [known(m.history(n.fact)), known(m.history(key=n.key))],
    "list_namespaces": lambda m, n: m.list_namespaces(prefixes=[(n.key,)]) + m.list_namespaces(),
    "delete": lambda m, n: [m.delete(n.fact), m.delete(key=n.key), m.delete(key=n.key, subject=n.subject)],
    "delete_facts": lambda m, n: m.delete_facts([n.fact_key]),
    "restore": lambda m, n: m.restore(f"{n.fact}-forgotten"),
    "erase": lambda m, n: [m.erase(n.fact), m.erase(key=n.key), m.erase(f"{n.fact}-forgotten")],
    "list_events": lambda m, n: [
        m.list_events(subject=n.subject),
        m.list_events(target_id=n.fact),
        len(m.list_events()),
    ],
}
RECORDS: dict[str, Callable] = {
    "time": lambda r, n: r.time() > 0,
    "update": lambda r, n: r.update([n.chunk, "new"], group_ids=[n.doc, None]),
    "exists": lambda r, n: r.exists([n.chunk, "own"]),
    "list_keys": lambda r, n: [r.list_keys(), r.list_keys(group_ids=[n.doc]), r.list_keys(before=2**40, limit=5)],
    "delete": lambda r, n: r.delete([n.chunk]),
}
TENANT: dict[str, Callable] = {
    "runs": lambda t, n: t.runs().tenant_id == t.tenant_id,
    "chat": lambda t, n: t.chat(n.session).session_id,
    "list_chats": lambda t, n: [
        [(i.session_id, i.messages) for i in found] for found in (t.list_chats(), t.list_chats(n.prefix))
    ],
    "search_chats": lambda t, n: plain(
        h.message for s in (None, n.prefix) for h in t.search_chats("secret own", subject=s)
    ),
    "info": lambda t, n: t.info() is None,
    "vectors": lambda t, n: t.vectors(n.collection).collection,
    "index_records": lambda t, n: t.index_records(n.collection).collection,
    "set_text_config": lambda t, n: t.set_text_config(n.collection, "simple"),
    "reembed": lambda t, n: t.reembed(n.collection, models.NEW, models.new),
    "cancel_reembed": lambda t, n: t.cancel_reembed(n.collection),
    "list_collections": lambda t, n: [c.name for c in t.list_collections()],
    "collection_info": lambda t, n: getattr(t.collection_info(n.collection), "chunks", None),
    "index_key": lambda t, n: [t.index_key(n.collection, "mine"), t.index_key(n.collection, "of", "number")],
    "unindex_key": lambda t, n: t.unindex_key(n.collection, "mine"),
    "tune": lambda t, n: t.tune(n.collection),
    "set_ef_search": lambda t, n: t.set_ef_search(n.collection, 200),
    "drop_collection": lambda t, n: t.drop_collection(n.collection),
    "docstore": lambda t, n: t.docstore(n.collection).collection,
    "atomic": lambda t, n: in_a_block(t, n),
    "memory": lambda t, n: t.memory(actor=n.subject).actor,
    "erase_subject": lambda t, n: t.erase_subject(n.subject, actor="b"),
    "reopen_subject": lambda t, n: t.reopen_subject(n.subject, actor="b"),
    "export_subject": lambda t, n: list(t.export_subject(n.subject))[1:],
}
# Of the database's methods these take a tenant's name, and so are called with B's own.
DATABASE: dict[str, Callable] = {
    "create_tenant": lambda d, b: [d.create_tenant(b), d.create_tenant(b)],
    "tenant_info": lambda d, b: getattr(d.tenant_info(b), "tenant_id", None),
    "delete_tenant": lambda d, b: d.delete_tenant(b),
}
#: No tenant's rows: handles, the global registry of spaces, lifetime; and what asks for the maintenance login.
DATABASE_OTHERS = {
    "tenant", "list_spaces", "alist_spaces", "add_space", "aadd_space", "close", "aclose",
    "list_tenants", "alist_tenants", "maintain", "amaintain", "sweep", "asweep", "on_erase",
    "drop_space", "adrop_space", "space_use", "aspace_use", "mark", "amark", "reset", "areset",
}  # fmt: skip
NOT_TWINNED = {
    "vectors",
    "docstore",
    "chat",
    "runs",
    "index_records",
    "atomic",
    "for_run",
    "tail",
    "memory",
    "export_subject",
}
#: What a verb is called on, and its cases.
HANDLES: dict[str, tuple[Callable, dict[str, Callable]]] = {
    "store": (lambda t, n: t.vectors(n.collection, SPACE), STORE),
    "records": (lambda t, n: t.index_records(n.collection), RECORDS),
    "chat": (lambda t, n: t.chat(n.session), CHAT),
    "runs": (lambda t, n: t.runs(), RUNS),
    "memory": (lambda t, n: t.memory(actor="b", space=SPACE), MEMORY),
    "docstore": (lambda t, n: t.docstore(n.collection), DOCSTORE),
    "tenant": (lambda t, n: t, TENANT),
}


def fill(db, tenant, names, text):
    chunk = Chunk(names.chunk, text, ONES, names.doc, 1, {"mine": names.chunk})
    document = Document(names.doc, f"source of {text}", f"uri of {text}", metadata={"of": text})
    db.tenant(tenant).vectors(names.collection, SPACE, text_config="english").upsert([chunk], documents=[document])
    db.tenant(tenant).docstore(names.collection).put(
        [
            DocstoreEntry(names.doc, text, metadata={"mine": text}, payload={"text": text}),
            DocstoreEntry("part", text, names.doc),
        ]
    )
    messages = [pgrecall.Message("user", f"{text} {n}", id=names.message if n else None) for n in range(3)]
    db.tenant(tenant).chat(names.session, names.prefix).append(messages)
    runs = db.tenant(tenant).runs()
    runs.put(pgrecall.RunState(names.run, {"of": text}, subject=names.prefix, metadata={"mine": names.run}))
    runs.append_event(names.run, "k", {"of": text})
    store = db.tenant(tenant).vectors(names.collection, SPACE)
    runs.record_evidence(names.run, "q", store.query(ONES), collection=names.collection)
    db.tenant(tenant).index_key(names.collection, "mine")
    db.tenant(tenant).index_records(names.collection).update([names.chunk], group_ids=[names.doc])
    kept = Evaluations(db.tenant(tenant))
    judged = EvalSet(names.collection, (EvalQuery("q", text, {names.chunk: 1}),))
    evaluate(lambda _question: [names.chunk], judged, store=kept, run_id=names.run)
    kept.save_records("datasets", names.collection, [{"text": text}])


def remember(db, outside, tenant, names, text):
    """A fact, one with a vector, and a forgotten one; under ids that callers can name."""
    memory = db.tenant(tenant).memory(actor="a", space=SPACE, embed=None)
    named = memory.put_fact(Fact(names.subject, "kind", names.key, {"mine": names.key}, text, namespace=(names.key,)))
    forgotten = memory.put_fact(Fact(names.subject, "kind", "forgotten", text))
    memory.delete(forgotten.id)
    for fact, name in ((named, names.fact), (forgotten, f"{names.fact}-forgotten")):
        for table, column in (("memory_facts", "id"), ("memory_events", "target_id")):
            update = f"UPDATE pgrecall.{table} SET {column} = %s WHERE tenant_id = %s AND {column} = %s"
            outside.execute(update, [name, tenant, fact.id])
    memory.put_fact(Fact(names.subject, "kind", "near", text, embedding=ONES))
