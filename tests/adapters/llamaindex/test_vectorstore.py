"""`PGRecallVectorStore` through LlamaIndex's interface, both modes, and through indexes and retrievers."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading

import pytest
import sqlalchemy as sa
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import ImageNode, IndexNode, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.pgrecall import PGRecallVectorStore

import pgrecall
from pgrecall import (
    ConfigurationError,
    EmbedSpaceMismatch,
    FilterError,
    FingerprintMismatch,
    InvalidEmbedding,
    InvalidInput,
)
from support.filter_data import KEYS
from support.llama import SPACE, HashedWords, text_node, vector


def only(key, value, operator=FilterOperator.EQ):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def call(store, face, verb, *args, **kwargs):
    if face == "sync":
        return getattr(store, verb)(*args, **kwargs)
    twin = {"add": "async_add"}.get(verb, f"a{verb}")
    return asyncio.run(getattr(store, twin)(*args, **kwargs))


def ask(store, face, **query):
    return call(
        store, face, "query", VectorStoreQuery(**({"query_embedding": vector(1), "similarity_top_k": 10} | query))
    )


def test_every_verb_of_the_interface(store, face):
    """add returns one id a node in order and is an upsert; reads and deletes take ids, documents and filters."""
    nodes = [text_node(n, f"d{n // 4}") for n in range(12)]
    assert call(store, face, "add", [*nodes, nodes[0]]) == [*(n.id_ for n in nodes), "n0000"]
    assert call(store, face, "add", nodes) == [n.id_ for n in nodes]
    assert [n.id_ for n in call(store, face, "get_nodes")] == [n.id_ for n in nodes]
    assert [n.id_ for n in call(store, face, "get_nodes", ["n0003", "nope", "n0001", "n0003"])] == ["n0003", "n0001"]
    assert [n.id_ for n in call(store, face, "get_nodes", ["n0003", "n0001"], only("n", 3))] == ["n0003"]
    assert call(store, face, "get_nodes", []) == []
    assert len(call(store, face, "get_nodes", None, only("lang", "de"))) == 4
    found = ask(store, face)
    assert found.ids[0] == found.nodes[0].id_ == "n0001" and found.similarities[0] == pytest.approx(1, abs=1e-3)
    assert found.similarities == sorted(found.similarities, reverse=True) and len(found.ids) == 10
    assert {n.ref_doc_id for n in ask(store, face, doc_ids=["d1", "nope"]).nodes} == {"d1"}
    assert ask(store, face, doc_ids=[]).ids == []
    assert sorted(ask(store, face, node_ids=["n0002", "n0005", "nope"]).ids) == ["n0002", "n0005"]
    assert len(ask(store, face, node_ids=[], similarity_top_k=50).ids) == 12
    assert {n.metadata["lang"] for n in ask(store, face, filters=only("lang", "fr")).nodes} == {"fr"}
    assert call(store, face, "delete", "d1") is None
    assert call(store, face, "delete", "d1") is call(store, face, "delete", "never was") is None
    assert store.client.count() == 8 and store.client.list_documents(["d1"]) == []
    call(store, face, "delete_nodes", ["n0000"])
    call(store, face, "delete_nodes", ["n0001", "n0002"], only("n", 2))
    call(store, face, "delete_nodes", filters=only("lang", "en"))
    call(store, face, "delete_nodes", [])
    assert [n.id_ for n in call(store, face, "get_nodes")] == ["n0003", "n0008", "n0009", "n0011"]
    with pytest.raises(InvalidInput, match="the condition matches the whole collection"):
        call(store, face, "delete_nodes")
    call(store, face, "clear")
    call(store, face, "clear")
    assert call(store, face, "get_nodes") == [] and store.client.list_documents() == []


def test_mmr_is_unlike_itself_and_takes_the_peers_arguments(store, face):
    """Two twins of the nearest: MMR takes one of them; the threshold is from the query or from the call."""
    near = [text_node(n) for n in range(1, 5)]
    near[1].embedding = [x + 1e-3 for x in near[0].embedding]
    store.add(near)
    nearest = ask(store, face, similarity_top_k=2).ids
    assert nearest == ["n0001", "n0002"]
    query = VectorStoreQuery(
        query_embedding=vector(1), similarity_top_k=2, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.1
    )
    for kwargs in ({}, {"mmr_prefetch_k": 4}, {"mmr_prefetch_factor": 2}):
        assert "n0002" not in call(store, face, "query", query, **kwargs).ids
    query.mmr_threshold = None
    assert call(store, face, "query", query, mmr_threshold=1.0, mmr_prefetch_k=2).ids == nearest
    with pytest.raises(InvalidInput, match="pass only one"):
        call(store, face, "query", query, mmr_prefetch_k=2, mmr_prefetch_factor=2.0)


@pytest.mark.parametrize(
    "mode",
    ["semantic_hybrid", "svm", "logistic_regression", "linear_regression", "no such mode"],
)
def test_a_mode_that_there_is_not_is_an_error(store, face, mode):
    """Never another mode's answer in its place."""
    with pytest.raises(InvalidInput, match="not supported; expected 'default'"):
        ask(store, face, mode=mode if " " in mode else VectorStoreQueryMode(mode))


def test_what_a_query_lacks_is_named(store, face):
    """A missing embedding, and keywords that nothing would act on; the peers' hints to their indexes are let pass."""
    with pytest.raises(InvalidInput, match="no embedding"):
        ask(store, face, query_embedding=None)
    query = VectorStoreQuery(query_embedding=vector(1))
    assert call(store, face, "query", query, hnsw_ef_search=300, ivfflat_probes=10).ids == []
    for verb, arguments in (("query", [query]), ("add", [[]]), ("delete", ["d"]), ("delete_nodes", [["a"]])):
        with pytest.raises(TypeError, match="unexpected keyword argument 'tenant'"):
            call(store, face, verb, *arguments, tenant="other")


def test_what_is_no_list_or_filter_is_named(store, face):
    """A text is no list of ids: "n12" would delete the nodes n, 1 and 2. Nor is one filter, or a dict, several."""
    store.add([text_node(1)])
    for verb in ("get_nodes", "delete_nodes"):
        with pytest.raises(InvalidInput, match="expected a list of ids"):
            call(store, face, verb, "n0001")
    for field in ("doc_ids", "node_ids"):
        with pytest.raises(InvalidInput, match="expected a list of ids"):
            ask(store, face, **{field: "n0001"})
    for wrong in ([MetadataFilter(key="n", value=1)], MetadataFilter(key="n", value=1), {"n": 1}):
        with pytest.raises(FilterError, match="expected MetadataFilters"):
            ask(store, face, filters=wrong)
    assert len(store.get_nodes()) == 1


def test_a_bad_batch_leaves_nothing(store, face):
    """A node without an embedding, with a short one, with NaN: an error that names it, nothing stored."""
    for embedding in (None, [1.0], [float("nan")] * 8, [0.0] * 8):
        bad = TextNode(id_="the bad one", text="t", embedding=embedding)
        with pytest.raises((InvalidEmbedding, ValueError), match="the bad one"):
            call(store, face, "add", [text_node(1), bad])
    assert store.client.count() == 0


def test_nul_characters_are_refused_or_stripped(db, tenant_id, store):
    """As the store was made."""
    node = TextNode(id_="a", text="x\0y", embedding=vector(1), metadata={"k": "\0v"})
    with pytest.raises(InvalidInput, match="NUL"):
        store.add([node])
    strips = PGRecallVectorStore(SPACE, connection=db, tenant=tenant_id, collection="s", on_nul="strip")
    strips.add([node])
    assert (strips.get_nodes()[0].text, strips.get_nodes()[0].metadata) == ("xy", {"k": "v"})


# --- through an index


def index_of(store, model, nodes=()):
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex(list(nodes), storage_context=context, embed_model=model)


def test_an_index_is_built_asked_and_changed(wordy, model):
    """from_documents, retrieve in both modes, refresh, delete_ref_doc: what an application does."""
    documents = [
        pgrecall_document("holidays", "Thirty days of holidays a year."),
        pgrecall_document("noise", "Quiet hours begin at ten."),
    ]
    index = VectorStoreIndex.from_documents(
        documents, storage_context=StorageContext.from_defaults(vector_store=wordy), embed_model=model
    )
    retriever = index.as_retriever(similarity_top_k=1)
    assert retriever.retrieve("how many days of holidays")[0].node.ref_doc_id == "holidays"
    assert asyncio.run(retriever.aretrieve("when do quiet hours begin"))[0].node.ref_doc_id == "noise"
    index.delete_ref_doc("noise")
    again = VectorStoreIndex.from_vector_store(wordy, embed_model=model)
    assert [n.node.ref_doc_id for n in again.as_retriever(similarity_top_k=5).retrieve("quiet")] == ["holidays"]
    filtered = again.as_retriever(filters=only("id", "holidays"), doc_ids=["holidays"])
    assert len(filtered.retrieve("days")) == 1


def pgrecall_document(doc_id, text):
    from llama_index.core import Document

    return Document(id_=doc_id, text=text, metadata={"id": doc_id})


def test_a_retriever_over_text_index_and_image_nodes_finds_all_of_them(wordy, model, face):
    """LlamaIndex names its index and image nodes in every query of such an index; text nodes are found as well."""
    nodes = [
        TextNode(id_="text", text="thirty days of holidays"),
        IndexNode(id_="index", text="everything on holidays", index_id="more"),
        ImageNode(id_="image", text="a picture of holidays", image="aGVsbG8="),
    ]
    retriever = index_of(wordy, model, nodes).as_retriever(similarity_top_k=10)
    assert retriever._node_ids == ["index", "image"]
    found = retriever.retrieve("holidays") if face == "sync" else asyncio.run(retriever.aretrieve("holidays"))
    assert {n.node_id: type(n.node) for n in found} == {"text": TextNode, "index": IndexNode, "image": ImageNode}


def test_a_restriction_to_text_nodes_holds(wordy, model, face):
    """Ids of which one is a text node's, or none is known, are what the caller said: nothing else is found."""
    wordy.add(
        [
            *nodes_with(model, 5),
            IndexNode(id_="i", text="word", index_id="x", embedding=model.get_text_embedding("word")),
        ]
    )
    query = VectorStoreQuery(query_embedding=model.get_query_embedding("word 1"), similarity_top_k=10)
    for ids, expected in ((["w1"], {"w1"}), (["i", "w2"], {"i", "w2"}), (["unknown"], set()), ([""], set())):
        query.node_ids = ids
        assert set(call(wordy, face, "query", query).ids) == expected
    query.node_ids = [*(f"unknown {n}" for n in range(500)), "w3"]
    assert call(wordy, face, "query", query).ids == ["w3"]
    query.node_ids = [*(f"gone {n}" for n in range(500)), "i"]  # an index whose nodes were deleted but for one
    assert len(call(wordy, face, "query", query).ids) == 6


def nodes_with(model, count):
    return [
        TextNode(id_=f"w{n}", text=f"word {n}", embedding=model.get_text_embedding(f"word {n}")) for n in range(count)
    ]


def test_recursive_retrieval_follows_index_nodes(wordy, model):
    """An index node leads to its object, as with LlamaIndex's own store."""
    inner = TextNode(id_="inner", text="the whole story of holidays")
    node = IndexNode(id_="outer", text="holidays", index_id="story", obj=inner)
    index = VectorStoreIndex(
        nodes=[], objects=[node], storage_context=StorageContext.from_defaults(vector_store=wordy), embed_model=model
    )
    assert [n.node.get_content() for n in index.as_retriever().retrieve("holidays")] == ["the whole story of holidays"]


# --- the model


def test_the_model_is_checked_at_the_first_use(db, tenant_id, model, wordy, face):
    """Another space, and a model that changed under its name, are refused before anything is written or found."""
    call(wordy, face, "add", nodes_with(model, 2))

    class Changed(HashedWords):
        def _get_text_embeddings(self, texts):
            return [[*v[1:], v[0]] for v in super()._get_text_embeddings(texts)]

        async def _aget_text_embeddings(self, texts):
            return self._get_text_embeddings(texts)

    def another(model, name="hashed words"):
        space = pgrecall.EmbedModel("test", name)
        return PGRecallVectorStore(model, connection=db, tenant=tenant_id, collection="wordy", space=space)

    with pytest.raises(FingerprintMismatch):
        call(another(Changed()), face, "query", VectorStoreQuery(query_embedding=[1.0] * 384))
    with pytest.raises(EmbedSpaceMismatch):
        call(another(model, "other"), face, "add", nodes_with(model, 1))
    assert len(call(another(model), face, "get_nodes")) == 2


def test_a_model_of_an_unknown_class_must_be_named(db, tenant_id, model):
    """The error says how; a store without a model takes the collection's own space."""
    with pytest.raises(ConfigurationError, match=r"is unknown.*space=EmbedModel"):
        PGRecallVectorStore(model, connection=db, tenant=tenant_id)
    with pytest.raises(ConfigurationError, match="expected a LlamaIndex embedding model"):
        PGRecallVectorStore("openai", connection=db, tenant=tenant_id)
    PGRecallVectorStore(SPACE, connection=db, tenant=tenant_id).add([text_node(1)])
    assert ask(PGRecallVectorStore(connection=db, tenant=tenant_id), "sync").ids == ["n0001"]


# --- tenants, construction, lifetime


def test_a_tenant_is_bound_for_life(db, store, tenant_id):
    """A sibling has its own rows on the same database; what a store is bound to can't be assigned later."""
    other = store.for_tenant(f"{tenant_id}-other")
    store.add([text_node(1)])
    assert (other.tenant, other.database, other.collection) == (f"{tenant_id}-other", db, "handbook")
    assert other.get_nodes() == ask(other, "sync").nodes == [] and len(store.get_nodes()) == 1
    other.add([text_node(1, None, mine=True)])
    assert "mine" not in store.get_nodes()[0].metadata
    for name in ("tenant", "collection", "text_config"):
        with pytest.raises(ValueError, match="frozen"):
            setattr(store, name, f"{tenant_id}-other")
    assert store.tenant == tenant_id


def test_no_secret_is_shown(app_url, tenant_id):
    """Neither dumps nor reprs have the URL or its password; the connections that a store opened are its to close."""
    url = app_url.set(password="hunter2")
    store = PGRecallVectorStore(SPACE, connection=url, tenant=tenant_id)
    shown = [json.dumps(store.to_dict()), store.model_dump_json(), repr(store), str(store), store.to_json()]
    assert not any("hunter2" in text or str(url.database) in text for text in shown)
    assert store.model_dump()["tenant"] == tenant_id and store.class_name() == "PGRecallVectorStore"
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(store)
    store.close()
    with pytest.raises(ConfigurationError, match="closed"):
        store.get_nodes()


def test_from_params_takes_what_the_peer_takes(app_url, tenant_id):
    """Parts of a URL, or a URL; table_name is the collection; what has no meaning here says what to do instead."""
    parts = {"database": app_url.database, "user": app_url.username, "host": app_url.query.get("host") or app_url.host}
    store = PGRecallVectorStore.from_params(
        tenant=tenant_id, embed_model=SPACE, port="5432" if app_url.port is None else app_url.port,
        table_name="essays", embed_dim=8, **parts,
    )  # fmt: skip
    assert (store.collection, store.text_config) == ("essays", None)
    store.close()
    hybrid = PGRecallVectorStore.from_params(
        tenant=tenant_id, embed_model=SPACE, connection_string=app_url, hybrid_search=True, text_search_config="german"
    )
    assert (hybrid.collection, hybrid.text_config) == ("llamaindex", "german")
    hybrid.add([text_node(1)])
    hybrid.close()
    for wrong, message in (
        ({"hnsw_kwargs": {}}, "pgrecall maintain"),
        ({"schema_name": "x"}, "schema pgrecall"),
        ({"embed_dim": 9}, "embed_dim is 9"),
        ({"embed_model": None}, "no embedding model"),
        ({"connection_string": None, "port": "x"}, "expected a number"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            PGRecallVectorStore.from_params(
                **{"tenant": tenant_id, "embed_model": SPACE, "connection_string": app_url} | wrong
            )
    with pytest.raises(TypeError, match="'hosst'"):
        PGRecallVectorStore.from_params(tenant=tenant_id, embed_model=SPACE, connection_string=app_url, hosst="x")


# --- modes of running


def test_two_event_loops_and_calls_inside_a_running_one(store):
    """asyncio.run twice on one store, then synchronous calls while a loop runs."""
    for n in (1, 2):
        asyncio.run(store.async_add([text_node(n)]))

    async def inside():
        store.add([text_node(3)])
        return ask(store, "sync").ids, (await store.aquery(VectorStoreQuery(query_embedding=vector(3)))).ids

    assert asyncio.run(inside()) == (ask(store, "sync").ids, ["n0003"])


def test_eight_threads_share_a_store(store):
    """Each writes its own nodes, the same ones, and asks meanwhile."""
    failures = []

    def work(thread):
        try:
            for turn in range(5):
                store.add([text_node(thread * 100 + turn), text_node(999, None, by=thread)])
                assert ask(store, "sync", filters=only("n", thread * 100 + turn)).ids
        except Exception as exc:  # noqa: BLE001 -- reported below, whatever it is
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and store.client.count() == 41


# --- hostile input

PAYLOADS = [
    "' OR 1=1 --", "'; DROP TABLE pgrecall.chunks; --", '" OR ""="', "x') OR TRUE --", "%' OR '%'='", "\\'; SELECT 1",
    "${jndi}", "{0}", "%s", "%(tenant)s", ":tenant", "$1", "a\0b", "\ud800", "😀", "\\u0000", "'||(SELECT 1)||'", "*",
    "", " ", "a" * 2_000, "metadata_->>'x'", "1::text", "$$;$$", "/* x */", "null", "[]", '{"a": 1}', "\n;\n",
]  # fmt: skip


@pytest.mark.parametrize("operator", list(FilterOperator), ids=lambda operator: operator.value)
def test_no_filter_is_more_than_a_filter(db, tenant_id, operator):
    """Payloads as key, value and list item find what they find in memory, and never another tenant's rows."""
    ours = PGRecallVectorStore(SPACE, connection=db, tenant=tenant_id)
    storable = [p for p in PAYLOADS if "\0" not in p and p != "\ud800"]
    nodes = [
        TextNode(
            id_=f"n{at}",
            text="t",
            embedding=vector(at),
            metadata={"k": payload, "l": [payload], **({payload: at} if payload and len(payload) < 900 else {})},
        )
        for at, payload in enumerate(storable)
    ]
    ours.add(nodes)
    ours.for_tenant(f"{tenant_id}-other").add(
        [TextNode(id_=f"theirs{n}", text="t", embedding=vector(n), metadata={"k": "x"}) for n in range(5)]
    )
    memory = SimpleVectorStore()
    memory.add([n.model_copy() for n in nodes])
    for payload in PAYLOADS:
        for key, value in (
            (payload, 1),
            (payload, payload),
            ("k", payload),
            ("k", [payload]),
            ("l", payload),
            ("l", [payload]),
        ):
            if len(key) > 1_000:
                continue
            query = VectorStoreQuery(
                query_embedding=vector(1), similarity_top_k=100, filters=only(key, value, operator)
            )
            found = set(ours.query(query).ids)
            assert found == in_memory(memory, nodes, query), (key[:50], value)


def in_memory(memory, nodes, query):
    """What LlamaIndex's own store finds, asked row by row, because one that it raises for hides the others."""
    found = set()
    for node in nodes:
        query.node_ids = [node.id_]
        alone = SimpleVectorStore()
        alone.add([node.model_copy()])
        try:
            found |= set(alone.query(query).ids)
        except (TypeError, ValueError):
            continue
        finally:
            query.node_ids = None
    return found


def test_no_id_is_more_than_an_id(store, tenant_id):
    """Payloads as ids of nodes and documents name nothing, everywhere, without an error."""
    store.add([text_node(1, "d")])
    store.for_tenant(f"{tenant_id}-other").add([text_node(2, "d2")])
    for payload in [*PAYLOADS, *KEYS]:
        assert ask(store, "sync", node_ids=[payload]).ids == ask(store, "sync", doc_ids=[payload]).ids == []
        assert store.get_nodes([payload]) == []
        store.delete(payload)
        store.delete_nodes([payload])
    assert store.client.count() == 1


@pytest.mark.slow("stores 60,000 rows and builds their graph")
def test_ten_of_ten_rows_of_a_small_tenant_next_to_a_graph(admin_url, new_database):
    """60,000 rows, 300 tenants, a graph: a filter that 200 rows match gives all ten asked for, the right ones."""
    from pgrecall import Chunk
    from support.data import vectors

    url = new_database(migrated=True)
    space = pgrecall.EmbedSpace("test", "sixteen", 16)
    with pgrecall.connect(url, admin_url=url) as db:
        made = vectors(60_000, 16)
        for tenant in range(300):
            mine = range(200) if tenant else range(60_000 - 299 * 200)
            start = 0 if not tenant else 60_000 - (300 - tenant) * 200
            rows = [Chunk(f"c{n}", f"text {n}", made[start + n], metadata={"half": n % 2, "t": tenant}) for n in mine]
            db.tenant(f"t{tenant}").vectors("c", space).upsert(rows)
        big = PGRecallVectorStore(space, connection=db, tenant="big", collection="c")
        rows = [
            Chunk(f"b{n}", f"text {n}", v, metadata={"rare": n % 30 == 0}) for n, v in enumerate(vectors(6_000, 16, 1))
        ]
        big.client.upsert(rows)
        assert [(done.action, done.rows) for done in db.maintain()] == [("built", 6_000)]
        query = VectorStoreQuery(query_embedding=made[7].tolist(), similarity_top_k=10)
        small = big.for_tenant("t7")
        assert len(small.query(query).ids) == 10
        query.filters = only("half", 1)
        assert len(small.query(query).ids) == 10
        query.filters = MetadataFilters(filters=[MetadataFilter(key="rare", value="x", operator=FilterOperator.NE)])
        assert len(big.query(query).ids) == 10
        assert len(big.query(VectorStoreQuery(query_embedding=made[7].tolist(), similarity_top_k=10)).ids) == 10


def test_a_pool_of_the_application_is_used(app_url, tenant_id):
    """An engine of the caller's serves the store, and is never disposed of."""
    engine = sa.create_engine(app_url.set(drivername="postgresql+psycopg"))
    store = PGRecallVectorStore(SPACE, connection=engine, tenant=tenant_id)
    store.add([text_node(1)])
    store.close()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()
