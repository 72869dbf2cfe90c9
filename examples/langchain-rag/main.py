"""Answers from documents, with a record of what each answer was based on.

The embedding and the model are stand-ins that need no API key: texts with common words are near each other, and the
model repeats its first line of context. Use your own instead.
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
        space = EmbedModel("example", "words-64")  # not needed for known classes such as OpenAIEmbeddings
        store = PGRecallVectorStore(Words(), connection=db, tenant="acme", collection="rag", space=space)
        store.add_documents([Document(text, id=name) for name, text in TEXTS.items()])

        run_id = f"run-{uuid.uuid4()}"
        retriever = store.for_run(run_id).as_retriever(search_kwargs={"k": 2})
        prompt = ChatPromptTemplate.from_template("Answer from this alone:\n{context}\n\nQuestion: {question}")
        model = RunnableLambda(lambda value: value.to_string().splitlines()[1].removeprefix("Human: "))
        chain = {"context": retriever | joined, "question": RunnablePassthrough()} | prompt | model
        print(chain.invoke("When are expenses paid back?"))

        # Later, even if the document has changed or is gone: what was the answer based on, and is it still the same?
        store.add_documents([Document("Expenses are paid back in a month.", id="expenses")])
        for evidence in db.tenant("acme").runs().list_evidence(run_id):
            for chunk in evidence.chunks:
                print(chunk.chunk_id, f"{chunk.score:.2f}", chunk.now)
        store.core.drop()


if __name__ == "__main__":
    main()
