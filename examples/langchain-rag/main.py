"""Answers from documents, and afterwards the proof what they rested on: each search is recorded with its run.

The embedding and the model here are stand-ins that need no key (equal words are near, and the model repeats what it
was given); put yours in their place.
"""

import hashlib
import re
import uuid

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

import pgrecall
from langchain_pgrecall import PGRecallVectorStore
from pgrecall import EmbedModel

TEXTS = {
    "holidays": "Everyone has 30 days of holidays.",
    "expenses": "Expenses are paid back in two weeks.",
    "laptop": "A lost laptop must be reported within a day.",
}


class Words(Embeddings):
    """Each word of a text adds to one of 64 dimensions."""

    def embed_query(self, text: str) -> list[float]:
        vector = [0.01] * 64
        for word in re.findall(r"\w+", text.lower()):
            vector[hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


def main() -> None:
    with pgrecall.connect() as db:  # PGRECALL_URL, or the embedded Postgres
        space = EmbedModel("example", "words-64")  # what a known class (OpenAIEmbeddings, …) says by itself
        store = PGRecallVectorStore(Words(), connection=db, tenant="acme", collection="rag", space=space)
        store.add_documents([Document(text, id=name) for name, text in TEXTS.items()])

        run_id = f"run-{uuid.uuid4()}"
        retriever = store.for_run(run_id).as_retriever(search_kwargs={"k": 2})
        prompt = ChatPromptTemplate.from_template("Answer from this alone:\n{context}\n\nQuestion: {question}")
        model = RunnableLambda(lambda value: value.to_string().splitlines()[1].removeprefix("Human: "))
        chain = {"context": retriever | joined, "question": RunnablePassthrough()} | prompt | model
        print(chain.invoke("When are expenses paid back?"))

        # Later, and also after the document was changed or deleted: what was this answer given, and is it still so?
        store.add_documents([Document("Expenses are paid back in a month.", id="expenses")])
        for evidence in db.tenant("acme").runs().evidence(run_id):
            for chunk in evidence.chunks:
                print(chunk.chunk_id, f"{chunk.score:.2f}", chunk.now)
        store.core.drop()


if __name__ == "__main__":
    main()
