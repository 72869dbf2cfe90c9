"""LangGraph's PostgresSaver and pgrecall in one database: erasing a person deletes her threads too."""

import os
from typing import Annotated, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

import pgrecall
from langchain_pgrecall.checkpoints import erase_threads, of_person


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def answer(state: State) -> State:
    return {"messages": [AIMessage(f"You said: {state['messages'][-1].text}")]}


def main() -> None:
    # `setup` creates LangGraph's tables, so this login needs the right to. Migrations create pgrecall's.
    url = os.environ["PGRECALL_URL"]
    with pgrecall.connect(url) as db, PostgresSaver.from_conn_string(url) as saver:
        saver.setup()
        db.on_erase(erase_threads(saver))
        graph = StateGraph(State).add_node(answer).add_edge(START, "answer").compile(checkpointer=saver)
        for person in ("ana", "bob"):
            config = {"configurable": {"thread_id": f"chat-of-{person}"}, "metadata": of_person("acme", person)}
            graph.invoke({"messages": [("user", f"I am {person}")]}, config)
        memory = db.tenant("acme").memory(actor="example")
        memory.put_fact(pgrecall.Fact("ana", "profile", "name", "Ana"))

        report = db.tenant("acme").erase_subject("ana", actor="admin")
        print(f"failed hooks: {dict(report.failed_hooks)}")
        for person in ("ana", "bob"):
            held = saver.get_tuple({"configurable": {"thread_id": f"chat-of-{person}"}})
            print(f"{person}: {'no thread' if held is None else 'a thread'}")
        db.tenant("acme").reopen_subject("ana", actor="admin")  # only so that the example can be run again


if __name__ == "__main__":
    main()
