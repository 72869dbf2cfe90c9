"""A FastAPI app with notes of many tenants on one connection pool. Only the request's token decides the tenant.

    pip install fastapi uvicorn; uvicorn main:app
    curl -X POST localhost:8000/notes -H "Authorization: Bearer secret-of-acme" -H "Content-Type: application/json" \
         -d '{"text": "Holidays are 30 days.", "tags": ["hr"]}'
    curl "localhost:8000/search?q=holidays&tag=hr" -H "Authorization: Bearer secret-of-acme"
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from pydantic import BaseModel

import pgrecall
from langchain_pgrecall import PGRecallVectorStore

#: An application looks tokens up; it never trusts a tenant that a request names.
TENANTS = {"secret-of-acme": "acme", "secret-of-globex": "globex"}


class Note(BaseModel):
    text: str
    tags: list[str] = []


class Found(Note):
    id: str
    distance: float


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # PGRECALL_URL, or the embedded Postgres. One pool serves all tenants; use your own embedding model here.
    async with pgrecall.as_database(os.environ.get("PGRECALL_URL")) as db:
        embedding = DeterministicFakeEmbedding(size=256)
        app.state.notes = PGRecallVectorStore(embedding, connection=db, tenant="unused", collection="notes")
        yield


app = FastAPI(lifespan=lifespan)


def notes(
    request: Request, token: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
) -> PGRecallVectorStore:
    """The store of the tenant that the request's token belongs to. Creating it costs nothing."""
    tenant = TENANTS.get(token.credentials)
    if tenant is None:
        raise HTTPException(401, "unknown token")
    return request.app.state.notes.for_tenant(tenant)


Notes = Annotated[PGRecallVectorStore, Depends(notes)]


@app.post("/notes", status_code=201)
async def add(note: Note, store: Notes) -> list[str]:
    return await store.aadd_documents([Document(note.text, metadata={"tags": note.tags})])


@app.get("/search")
async def search(q: str, store: Notes, tag: str | None = None) -> list[Found]:
    found = await store.asimilarity_search_with_score(q, filter={"tags": {"$contains": tag}} if tag else None)
    return [Found(id=d.id, text=d.page_content, tags=d.metadata["tags"], distance=x) for d, x in found]


@app.delete("/notes/{note_id}", status_code=204)
async def remove(note_id: str, store: Notes) -> None:
    await store.adelete([note_id])
