"""`IngestionPipeline` on both stores: each strategy, re-runs, failures with and without atomic()."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Document
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.storage.docstore.pgrecall import PGRecallDocumentStore

from support.llama import text_node

SPLITTER = SentenceSplitter(chunk_size=20, chunk_overlap=0, tokenizer=str.split)


@pytest.fixture
def docstore(db, tenant_id):
    return PGRecallDocumentStore(connection=db, tenant=tenant_id, collection="wordy")


def document(name, text):
    return Document(id_=name, text=text, metadata={"file_name": f"{name}.md"})


def long(word):
    return " ".join(f"Sentence {n} is about {word} and a little more." for n in range(6))


def pipeline(wordy, docstore, model, strategy=DocstoreStrategy.UPSERTS):
    return IngestionPipeline(
        transformations=[SPLITTER, model], vector_store=wordy, docstore=docstore, docstore_strategy=strategy,
        disable_cache=True,
    )  # fmt: skip


def run(made, face, atomic=False, **given):
    if face == "sync":
        if not atomic:
            return made.run(**given)
        with made.vector_store.atomic():
            return made.run(**given)

    async def go():
        if not atomic:
            return await made.arun(**given)
        async with made.vector_store.atomic():
            return await made.arun(**given)

    return asyncio.run(go())


def rows(admin_connection, tenant_id):
    """Everything that a run may write, with what tells a rewritten row from one that was left alone."""
    return [
        admin_connection.execute(
            f"SELECT id, xmin::text FROM pgrecall.{t} WHERE tenant_id = %s ORDER BY 1", [tenant_id]
        ).fetchall()
        for t in ("documents", "chunks", "docstore")
    ]


@pytest.mark.parametrize("strategy", list(DocstoreStrategy), ids=lambda s: s.value)
def test_a_rerun_changes_nothing(wordy, docstore, model, admin_connection, tenant_id, face, strategy):
    """Not one row is written again, and nothing is embedded again."""
    documents = [document(name, long(name)) for name in ("cats", "dogs", "birds")]
    nodes = run(pipeline(wordy, docstore, model, strategy), face, documents=documents)
    assert wordy.client.count() == len(nodes) > 3
    before, calls = rows(admin_connection, tenant_id), model.calls
    assert run(pipeline(wordy, docstore, model, strategy), face, documents=documents) == []
    assert (rows(admin_connection, tenant_id), model.calls) == (before, calls)


@pytest.mark.parametrize("strategy", list(DocstoreStrategy), ids=lambda s: s.value)
def test_a_rerun_of_nodes_that_were_split_before_changes_nothing(wordy, docstore, model, face, strategy):
    """LlamaIndex runs such nodes again with two of its strategies; the rows are the same afterwards."""
    nodes = SPLITTER.get_nodes_from_documents([document("cats", long("cats"))])
    made = IngestionPipeline(
        transformations=[model], vector_store=wordy, docstore=docstore, docstore_strategy=strategy, disable_cache=True
    )
    run(made, face, nodes=[n.model_copy(deep=True) for n in nodes])
    before = ([n.model_dump() for n in wordy.get_nodes()], docstore.get_all_document_hashes())
    run(made, face, nodes=[n.model_copy(deep=True) for n in nodes])
    assert ([n.model_dump() for n in wordy.get_nodes()], docstore.get_all_document_hashes()) == before
    assert wordy.client.count() == len(nodes)


@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE])
def test_a_changed_document_replaces_its_chunks(wordy, docstore, model, face, strategy):
    """None of the old ones stay; others' do; a document that is gone goes with UPSERTS_AND_DELETE alone."""
    made = pipeline(wordy, docstore, model, strategy)
    run(made, face, documents=[document(name, long(name)) for name in ("cats", "dogs", "gone")])
    run(made, face, documents=[document("cats", "Short now."), document("dogs", long("dogs"))])
    kept = {node.ref_doc_id for node in wordy.get_nodes()}
    assert kept == {"cats", "dogs"} | ({"gone"} if strategy == DocstoreStrategy.UPSERTS else set())
    assert [n.text for n in wordy.get_nodes() if n.ref_doc_id == "cats"] == ["Short now."]
    assert set(docstore.get_all_document_hashes().values()) == kept
    assert docstore.get_ref_doc_info("cats").node_ids == [n.id_ for n in wordy.get_nodes() if n.ref_doc_id == "cats"]


def test_deleting_what_is_gone_touches_nobody_else(wordy, docstore, model, db, tenant_id, face):
    """UPSERTS_AND_DELETE in one collection leaves another, and another tenant, as they were."""
    from llama_index.vector_stores.pgrecall import PGRecallVectorStore

    space = wordy.client._model.given
    elsewhere = [
        (wordy.for_tenant(f"{tenant_id}-b"), docstore.for_tenant(f"{tenant_id}-b")),
        (
            PGRecallVectorStore(model, connection=db, tenant=tenant_id, collection="other", space=space),
            PGRecallDocumentStore(connection=db, tenant=tenant_id, collection="other"),
        ),
    ]
    for stores in elsewhere:
        run(pipeline(*stores, model), face, documents=[document("theirs", "Their text.")])
    run(pipeline(wordy, docstore, model), face, documents=[document("ours", "Our text.")])
    run(
        pipeline(wordy, docstore, model, DocstoreStrategy.UPSERTS_AND_DELETE), face, documents=[document("new", "New.")]
    )
    assert {n.ref_doc_id for n in wordy.get_nodes()} == {"new"}
    for store, of in elsewhere:
        assert {n.ref_doc_id for n in store.get_nodes()} == set(of.get_all_document_hashes().values()) == {"theirs"}


@pytest.mark.parametrize("strategy", list(DocstoreStrategy), ids=lambda s: s.value)
def test_a_failing_model_within_atomic_leaves_everything_as_it_was(
    wordy, docstore, model, face, strategy, admin_connection, tenant_id
):
    """The old chunks and their hashes are there; the next run does what this one could not."""
    documents = [document("cats", long("cats")), document("gone", "Soon gone.")]
    run(pipeline(wordy, docstore, model, strategy), face, documents=documents)
    before = rows(admin_connection, tenant_id)
    changed = [document("cats", "Changed."), document("more", "More.")]
    made = pipeline(wordy, docstore, model.model_copy(update={"broken": True}), strategy)
    with pytest.raises(ConnectionError):
        run(made, face, atomic=True, documents=changed)
    assert rows(admin_connection, tenant_id) == before
    run(pipeline(wordy, docstore, model, strategy), face, atomic=True, documents=changed)
    texts = {n.text for n in wordy.get_nodes()}
    assert {"Changed.", "More."} <= texts
    assert ("Soon gone." in texts) == (strategy != DocstoreStrategy.UPSERTS_AND_DELETE)


@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE])
def test_without_atomic_the_next_run_heals(wordy, docstore, model, face, strategy):
    """The failed run took the old chunks; the next one writes the new, or the old again."""
    run(pipeline(wordy, docstore, model, strategy), face, documents=[document("cats", "Old.")])
    broken = pipeline(wordy, docstore, model.model_copy(update={"broken": True}), strategy)
    for text in ("Changed.", "Old."):
        with pytest.raises(ConnectionError):
            run(broken, face, documents=[document("cats", "Meanwhile.")])
        assert wordy.get_nodes() == []
        run(pipeline(wordy, docstore, model, strategy), face, documents=[document("cats", text)])
        assert [n.text for n in wordy.get_nodes()] == [text]


def test_atomic_is_of_both_stores(wordy, docstore, face):
    """A block opened on either takes both, and what follows an error in it is refused."""
    wordy.client.upsert([])

    async def ablock():
        async with docstore.atomic():
            await wordy.async_add([with_dim(text_node(1))])
            await docstore.async_add_documents([text_node(1)])
            raise ZeroDivisionError

    def block():
        with docstore.atomic():
            wordy.add([with_dim(text_node(1))])
            docstore.add_documents([text_node(1)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block() if face == "sync" else asyncio.run(ablock())
    assert wordy.get_nodes() == [] and docstore.docs == {}


def with_dim(node):
    node.embedding = [1.0] * 384
    return node
