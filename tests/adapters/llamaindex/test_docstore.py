"""`PGRecallDocumentStore`: LlamaIndex's interface of a document store, in both modes."""

from __future__ import annotations

import asyncio
import copy

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.docstore.types import RefDocInfo
from llama_index.storage.docstore.pgrecall import PGRecallDocumentStore

from support.llama import every_node, source, text_node

ASYNC = {"add_documents": "async_add_documents"}


@pytest.fixture
def docstore(db, tenant_id):
    return PGRecallDocumentStore(connection=db, tenant=tenant_id, collection="handbook")


def call(store, face, verb, *args, **kwargs):
    if face == "sync":
        return getattr(store, verb)(*args, **kwargs)
    return asyncio.run(getattr(store, ASYNC.get(verb, f"a{verb}"))(*args, **kwargs))


@pytest.mark.parametrize("at", range(len(every_node())), ids=lambda at: every_node()[at].id_)
def test_a_document_of_each_class_comes_back_exactly(docstore, face, at):
    """Embedding and order of metadata included."""
    node = every_node()[at]
    call(docstore, face, "add_documents", [node])
    back = call(docstore, face, "get_document", node.id_)
    assert type(back) is type(node) and back == node and back.hash == node.hash
    assert back.get_content(metadata_mode=MetadataMode.ALL) == node.get_content(metadata_mode=MetadataMode.ALL)
    assert docstore.docs == {node.id_: node}


def test_it_answers_as_llama_index_s_own_store(docstore, face):
    """The same calls on both give the same: documents, hashes, source documents, errors."""
    nodes = [text_node(1, "d1"), text_node(2, "d1"), text_node(3, "d2"), TextNode(id_="free", text="t")]
    whole = Document(id_="d1", text="whole", metadata={"k": 1})
    answers = []
    for store, mode in ((docstore, face), (SimpleDocumentStore(), "sync")):

        def ask(verb, *args, store=store, mode=mode, **kwargs):
            try:
                found = call(store, mode, verb, *args, **kwargs)
            except ValueError as exc:
                return ValueError if isinstance(exc, ValueError) else exc
            return copy.deepcopy(found)  # LlamaIndex's own store goes on changing what it gave

        answers.append(
            [
                ask("add_documents", [*nodes, whole]),
                ask("add_documents", [nodes[0]], allow_update=False),
                ask("get_document", "n0001"),
                ask("get_document", "nope"),
                ask("get_document", "nope", raise_error=False),
                ask("get_nodes", ["n0002", "n0001"]),
                ask("get_nodes", ["n0002", "nope"]),
                ask("get_nodes", ["n0002", "nope"], raise_error=False),
                ask("document_exists", "n0001"),
                ask("document_exists", "nope"),
                ask("get_document_hash", "n0001"),
                ask("get_document_hash", "nope"),
                ask("set_document_hash", "new", "its hash"),
                ask("set_document_hashes", {"n0001": "other", "new2": "h2"}),
                ask("get_document_hash", "n0001"),
                ask("document_exists", "new"),
                sorted(ask("get_all_document_hashes").items()),
                ask("get_ref_doc_info", "d1"),
                ask("get_ref_doc_info", "nope"),
                ask("get_all_ref_doc_info"),
                ask("ref_doc_exists", "d2"),
                ask("delete_document", "free"),
                ask("delete_document", "free"),
                ask("delete_document", "free", raise_error=False),
                ask("delete_ref_doc", "d1"),
                ask("delete_ref_doc", "d1"),
                ask("delete_ref_doc", "d1", raise_error=False),
                ask("document_exists", "d1"),
                ask("get_all_ref_doc_info"),
                sorted(ask("get_all_document_hashes").values()),
            ]
        )
    for ours, theirs in zip(*answers, strict=True):
        assert ours == theirs
    assert isinstance(answers[0][17], RefDocInfo)


def test_without_text_hashes_alone_are_kept(docstore, face):
    """store_text=False keeps hash and source; such a document is not there, and can be deleted."""
    call(docstore, face, "add_documents", [text_node(1, "d1")], store_text=False)
    assert call(docstore, face, "get_document_hash", "n0001") == text_node(1, "d1").hash
    assert call(docstore, face, "document_exists", "n0001") is False
    assert call(docstore, face, "get_ref_doc_info", "d1").node_ids == ["n0001"]
    call(docstore, face, "delete_document", "n0001")
    assert call(docstore, face, "get_ref_doc_info", "d1") is None


def test_source_documents_of_the_vector_store_are_answered(docstore, store, face):
    """What a pipeline wrote into the collection counts, though it gave the docstore whole documents only."""
    store.add([text_node(1, "d1"), text_node(2, "d1")])
    info = call(docstore, face, "get_ref_doc_info", "d1")
    assert (info.node_ids, info.metadata["file_name"]) == (["n0001", "n0002"], "d1.txt")
    assert call(docstore, face, "get_all_ref_doc_info").keys() == {"d1"}
    store.delete("d1")
    assert call(docstore, face, "get_ref_doc_info", "d1") is None


def test_tenants_and_collections_are_apart(docstore, db, tenant_id):
    """The same ids elsewhere are other documents."""
    others = [
        docstore.for_tenant(f"{tenant_id}-other"),
        PGRecallDocumentStore(connection=db, tenant=tenant_id, collection="other"),
    ]
    docstore.add_documents([text_node(1, "d1")])
    for other in others:
        assert other.docs == other.get_all_document_hashes() == other.get_all_ref_doc_info() == {}
        other.set_document_hash("n0001", "theirs")
        other.delete_ref_doc("d1", raise_error=False)
        other.delete_document("n0001")
    assert docstore.get_document_hash("n0001") == text_node(1, "d1").hash


def test_refresh_survives_a_restart(app_url, tenant_id, model):
    """Another process, with an index of its own, knows which documents are unchanged."""
    from llama_index.vector_stores.pgrecall import PGRecallVectorStore

    import pgrecall

    documents = [Document(id_=name, text=f"text of {name}") for name in ("a", "b")]
    space = pgrecall.EmbedSpace("test", "hashed words", 384)
    for change, expected in (("", [True, True]), ("", [False, False]), (" changed", [True, False])):
        with pgrecall.connect(app_url) as db:
            vector_store = PGRecallVectorStore(model, connection=db, tenant=tenant_id, collection="r", space=space)
            docstore = PGRecallDocumentStore(connection=db, tenant=tenant_id, collection="r")
            context = StorageContext.from_defaults(vector_store=vector_store, docstore=docstore)
            index = VectorStoreIndex([], storage_context=context, embed_model=model)
            documents[0] = Document(id_="a", text=f"text of a{change}")
            assert index.refresh_ref_docs(documents) == expected
            assert sorted(n.text for n in vector_store.get_nodes()) == [f"text of a{change}", "text of b"]


def test_sources_are_relations(docstore):
    """A node without a source has none; one with a source names it by id."""
    docstore.add_documents([TextNode(id_="x", text="t", relationships=source("d", k=1))])
    assert docstore.get_document("x").ref_doc_id == "d"
    assert docstore.get_ref_doc_info("x") is None
