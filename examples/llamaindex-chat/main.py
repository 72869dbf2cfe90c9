"""A chat with memory in two processes: the second sees the chat, and facts from messages that left its window."""

import asyncio
import os
import subprocess
import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.memory import Memory
from llama_index.memory.pgrecall import PGRecallFactBlock
from llama_index.storage.chat_store.pgrecall import PGRecallChatStore

import pgrecall


def extract(messages: list[ChatMessage]) -> list[str]:
    """Sentences with "I" are facts about Ana. An application uses an LLM instead: extract=llm."""
    said = [m.content or "" for m in messages if m.role == "user"]
    return [f"Ana {text.removeprefix('I ').rstrip('.')}" for text in said if text.startswith("I ")]


def memory(db: pgrecall.Database) -> Memory:
    where = {"connection": db, "tenant": "acme", "subject": "ana"}
    return Memory.from_defaults(
        session_id="llama-chat",
        chat_store=PGRecallChatStore(**where),
        memory_blocks=[PGRecallFactBlock(extract=extract, **where)],
        token_limit=30,
        chat_history_token_ratio=0.4,
        token_flush_size=10,
        tokenizer_fn=str.split,
    )


async def first(db: pgrecall.Database) -> None:
    chat = memory(db)
    for text in ("Hello, I am Ana.", "I drinks tea.", "What is there to eat in the house this evening?"):
        await chat.aput(ChatMessage(role="user", content=text))


async def second(db: pgrecall.Database) -> None:
    chat = memory(db)
    print(await chat.memory_blocks[0].aget([ChatMessage(role="user", content="What does Ana drink?")]))
    messages = await chat.aget_all(status=None)
    print(f"{len(messages)} messages, the first: {messages[0].content}")


def main() -> None:
    with pgrecall.connect() as db:  # PGRECALL_URL, or the embedded Postgres
        asyncio.run(first(db))
        command = [sys.executable, __file__, "second"]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
        print(done.stdout, end="")
        db.tenant("acme").erase_subject("ana", actor="example")  # erases the chat and the facts, as Ana may request
        db.tenant("acme").reopen_subject("ana", actor="example")


if __name__ == "__main__":
    if sys.argv[1:] == ["second"]:
        with pgrecall.connect() as opened:
            asyncio.run(second(opened))
    else:
        main()
