"""An agent with long-term memory: it remembers in one run what it learned in another, even in another process.

The model is scripted, so the example needs no API key. Use your own instead:
`create_agent("openai:gpt-5", tools=[remember, recall], store=store)`.
"""

from langchain.agents import create_agent
from langchain.tools import ToolRuntime, tool
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import pgrecall
from langchain_pgrecall import PGRecallStore


@tool
def remember(key: str, what: str, runtime: ToolRuntime) -> str:
    """Remember something about the user."""
    runtime.store.put(("users", runtime.config["configurable"]["user"]), key, {"what": what})
    return "I'll remember that."


@tool
def recall(runtime: ToolRuntime) -> str:
    """Return what is known about the user."""
    items = runtime.store.search(("users", runtime.config["configurable"]["user"]))
    return "; ".join(f"{item.key}: {item.value['what']}" for item in items) or "nothing yet"


class Scripted(GenericFakeChatModel):
    """Calls one tool, then says that it is done."""

    def bind_tools(self, tools, **kwargs):
        return self


def agent(store: PGRecallStore, name: str, **args: str):
    call = {"name": name, "args": args, "id": "call-1", "type": "tool_call"}
    return create_agent(
        Scripted(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("Done.")])),
        tools=[remember, recall],
        store=store,
    )


def main() -> None:
    ana = {"configurable": {"user": "ana"}}
    with pgrecall.connect() as db:  # PGRECALL_URL, or the embedded Postgres

        def subject_of(namespace):
            return namespace[1] if namespace[0] == "users" else None

        def store() -> PGRecallStore:
            return PGRecallStore(connection=db, tenant="acme", subject_of=subject_of)

        given = {"messages": [("user", "I drink my tea without sugar.")]}
        agent(store(), "remember", key="tea", what="without sugar").invoke(given, ana)

        asked = {"messages": [("user", "How do I like my tea?")]}
        for message in agent(store(), "recall").invoke(asked, ana)["messages"]:
            print(f"{message.type}: {message.text or message.tool_calls}")

        # The person asks to be forgotten: all of her items in the tenant are erased.
        db.tenant("acme").erase_subject("ana", actor="admin")
        print(agent(store(), "recall").invoke(asked, ana)["messages"][-2].text)
        db.tenant("acme").reopen_subject("ana", actor="admin")  # only so that the example can be run again


if __name__ == "__main__":
    main()
