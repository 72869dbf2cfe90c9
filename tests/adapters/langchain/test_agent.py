"""LangChain's agents with their long-term memory here."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain.tools import ToolRuntime, tool
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langchain_pgrecall import PGRecallStore

USER = ("users", "ana")


class Scripted(GenericFakeChatModel):
    """A model that gives scripted answers, with or without tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Scripted:
        return self


def test_an_agent_remembers_across_runs(db, tenant_id):
    """`create_agent(store=…)`: a tool of one run puts what a tool of another one, with another store object, finds."""

    @tool
    def remember(what: str, runtime: ToolRuntime) -> str:
        """Remember something about the user."""
        runtime.store.put(USER, "likes", {"what": what})
        return "remembered"

    @tool
    async def recall(runtime: ToolRuntime) -> str:
        """What is known about the user."""
        return str((await runtime.store.aget(USER, "likes")).value)

    def agent(name: str, args: dict[str, str]) -> Any:
        call = {"name": name, "args": args, "id": "call-1", "type": "tool_call"}
        says = iter([AIMessage("", tool_calls=[call]), AIMessage("done")])
        store = PGRecallStore(connection=db, tenant=tenant_id)
        return create_agent(Scripted(messages=says), tools=[remember, recall], store=store)

    question = {"messages": [("user", "hello")]}
    agent("remember", {"what": "tea"}).invoke(question)
    result = asyncio.run(agent("recall", {}).ainvoke(question))
    assert result["messages"][-2].content == "{'what': 'tea'}" and result["messages"][-1].content == "done"
