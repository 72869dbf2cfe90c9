"""A server on the loopback that speaks as OpenAI's chat completions do, with scripted answers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: From the name of what is asked for (a tool's, or a schema's) and the whole request, to the answer's JSON.
Script = Callable[[str, dict[str, Any]], dict[str, Any]]


@contextmanager
def openai_server(script: Script) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The base URL of a running server, and the requests that it got so far."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(request)
            message: dict[str, Any] = {"role": "assistant", "content": None}
            if tools := request.get("tools"):
                name = tools[0]["function"]["name"]
                arguments = json.dumps(script(name, request))
                call = {"id": "call", "type": "function", "function": {"name": name, "arguments": arguments}}
                message["tool_calls"] = [call]
            else:
                schema = request.get("response_format", {}).get("json_schema", {})
                # In JSON mode the schema stands in the first message, its own title last.
                titles = re.findall(r'"title": "(\w+)"', str(request["messages"][0]["content"]))
                message["content"] = json.dumps(script(schema.get("name") or titles[-1], request))
            body = json.dumps(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": request["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")  # so that clients, which live in loops of their own, keep none open
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: tests stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
