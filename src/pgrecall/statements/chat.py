"""Chats and their messages.

A writer locks the chat's row first, so that positions have one order and writers don't deadlock. Expired rows are never
read, whether swept or not. Neither is a chat of another subject than the one that the caller named.
"""

from pgrecall.statements.words import TSQUERY

_SESSION = """
  s.tenant_id = %(tenant)s AND s.session_id = %(session)s
  AND (s.expires_at IS NULL OR s.expires_at > statement_timestamp())
  AND (%(subject)s::text IS NULL OR s.subject IS NULL OR s.subject = %(subject)s::text)"""

#: The visible messages of a chat. The chat is looked up once, because its row does not depend on the messages.
_MESSAGES = "".join(
    (
        """
  m.tenant_id = %(tenant)s AND m.session_id = %(session)s
  AND (m.expires_at IS NULL OR m.expires_at > statement_timestamp())
  AND (%(status)s::text IS NULL OR m.status = %(status)s::text)
  AND (SELECT true FROM pgrecall.chat_sessions s WHERE""",
        _SESSION,
        ")",
    )
)

_COLUMNS = """
  m.position, m.message_id, m.role, m.name, m.text, m.content, m.tool_calls, m.tool_call_id, m.metadata, m.payload,
  m.framework, m.status, m.created_at, m.expires_at"""

# Reserves `count` positions. `updated_at` never goes back, even if the writer waited for the row, so messages' times
# increase with their positions.
TOUCH = "".join(
    (
        """
UPDATE pgrecall.chat_sessions s
SET next_position = s.next_position + %(count)s, subject = coalesce(s.subject, %(subject)s::text),
    ttl = coalesce(%(ttl)s::interval, s.ttl), message_ttl = coalesce(%(message_ttl)s::interval, s.message_ttl),
    updated_at = greatest(s.updated_at, statement_timestamp()),
    expires_at = statement_timestamp() + coalesce(%(ttl)s::interval, s.ttl)
WHERE""",
        _SESSION,
        "\nRETURNING s.next_position - %(count)s, s.updated_at, s.message_ttl, s.text_config",
    )
)

# A message with an id that the chat has already replaces that message, at its position unless it has expired.
APPEND = """
INSERT INTO pgrecall.chat_messages AS m
  (tenant_id, session_id, position, message_id, role, name, text, content, tool_calls, tool_call_id, metadata, payload,
   framework, status, text_search, expires_at, created_at)
SELECT %(tenant)s, %(session)s, %(first)s::int8 + i.at - 1, i.message_id, i.role, i.name, i.text, i.content,
  i.tool_calls, i.tool_call_id, i.metadata, i.payload, i.framework, i.status,
  -- The prefix keeps the worst text below tsvector's limit of 1 MB; the text itself is stored whole.
  to_tsvector(%(text_config)s::text::regconfig, left(i.text, 100000)),
  %(now)s::timestamptz + %(message_ttl)s::interval, %(now)s::timestamptz
FROM unnest(%(ids)s::text[], %(roles)s::text[], %(names)s::text[], %(texts)s::text[], %(contents)s::jsonb[],
  %(tool_calls)s::jsonb[], %(tool_call_ids)s::text[], %(metadata)s::jsonb[], %(payloads)s::jsonb[],
  %(frameworks)s::text[], %(statuses)s::text[]) WITH ORDINALITY
  AS i (message_id, role, name, text, content, tool_calls, tool_call_id, metadata, payload, framework, status, at)
ORDER BY i.at
ON CONFLICT (tenant_id, session_id, message_id) WHERE message_id IS NOT NULL DO UPDATE
SET position = CASE WHEN m.expires_at <= excluded.created_at THEN excluded.position ELSE m.position END,
    role = excluded.role, name = excluded.name, text = excluded.text, content = excluded.content,
    tool_calls = excluded.tool_calls, tool_call_id = excluded.tool_call_id, metadata = excluded.metadata,
    payload = excluded.payload, framework = excluded.framework, status = excluded.status,
    text_search = excluded.text_search, expires_at = excluded.expires_at, created_at = excluded.created_at
RETURNING message_id, position, status, created_at, expires_at
"""

# Replaces one message at its position. The id stays if the new message has none.
REPLACE_MESSAGE = "".join(
    (
        """
UPDATE pgrecall.chat_messages m
SET message_id = coalesce(%(new_id)s::text, m.message_id), role = i.role, name = i.name, text = i.text,
    content = i.content, tool_calls = i.tool_calls, tool_call_id = i.tool_call_id, metadata = i.metadata,
    payload = i.payload, framework = i.framework, status = i.status,
    text_search = to_tsvector(%(text_config)s::text::regconfig, left(i.text, 100000))
FROM pgrecall.chat_sessions s
CROSS JOIN unnest(%(roles)s::text[], %(names)s::text[], %(texts)s::text[], %(contents)s::jsonb[],
  %(tool_calls)s::jsonb[], %(tool_call_ids)s::text[], %(metadata)s::jsonb[], %(payloads)s::jsonb[],
  %(frameworks)s::text[], %(statuses)s::text[])
  AS i (role, name, text, content, tool_calls, tool_call_id, metadata, payload, framework, status)
WHERE m.tenant_id = %(tenant)s AND m.session_id = %(session)s
  AND (m.expires_at IS NULL OR m.expires_at > statement_timestamp())
  AND (%(old_id)s::text IS NULL OR m.message_id = %(old_id)s::text)
  AND (%(position)s::int8 IS NULL OR m.position = %(position)s::int8) AND""",
        _SESSION,
        "\nRETURNING",
        _COLUMNS,
    )
)

# For a write that reads first: after waiting for the row it sees what the previous writer did.
LOCK_SESSION = """
SELECT s.subject, s.expires_at <= statement_timestamp(), s.text_config FROM pgrecall.chat_sessions s
WHERE s.tenant_id = %(tenant)s AND s.session_id = %(session)s FOR UPDATE
"""

ADD_SESSION = """
INSERT INTO pgrecall.chat_sessions (tenant_id, session_id, subject, text_config)
VALUES (%(tenant)s, %(session)s, %(subject)s, coalesce(%(text_config)s::text, 'simple')) ON CONFLICT DO NOTHING
"""

# An expired chat that is written to again is a new chat. Positions continue, so that a reader's cursor sees none twice.
EMPTY_SESSION = "DELETE FROM pgrecall.chat_messages WHERE tenant_id = %(tenant)s AND session_id = %(session)s"
RENEW_SESSION = """
UPDATE pgrecall.chat_sessions s
SET subject = %(subject)s, text_config = coalesce(%(text_config)s::text, 'simple'), metadata = '{}'::jsonb,
    ttl = NULL, message_ttl = NULL, expires_at = NULL, created_at = statement_timestamp()
WHERE s.tenant_id = %(tenant)s AND s.session_id = %(session)s
"""
DROP_SESSION = "DELETE FROM pgrecall.chat_sessions WHERE tenant_id = %(tenant)s AND session_id = %(session)s"


def _page(order: str) -> str:
    return "".join(
        (
            "SELECT",
            _COLUMNS,
            """
FROM pgrecall.chat_messages m WHERE""",
            _MESSAGES,
            """
  AND (%(after)s::int8 IS NULL OR m.position > %(after)s::int8)
  AND (%(before)s::int8 IS NULL OR m.position < %(before)s::int8)
  AND (%(since)s::timestamptz IS NULL OR m.created_at >= %(since)s::timestamptz)
ORDER BY m.position """,
            order,
            " LIMIT %(limit)s::int8 OFFSET %(offset)s::int8",
        )
    )


FIRST, LAST = _page("ASC"), _page("DESC")

BY_ID = "".join(
    ("SELECT", _COLUMNS, "\nFROM pgrecall.chat_messages m WHERE", _MESSAGES, " AND m.message_id = %(id)s::text")
)

COUNT = "".join(("SELECT count(*) FROM pgrecall.chat_messages m WHERE", _MESSAGES))

DELETE = "".join(
    (
        "DELETE FROM pgrecall.chat_messages m WHERE",
        _MESSAGES,
        """
  AND (%(ids)s::text[] IS NULL OR m.message_id = ANY (%(ids)s::text[]))
  AND (%(positions)s::int8[] IS NULL OR m.position = ANY (%(positions)s::int8[]))""",
    )
)


def _chosen(order: str) -> str:
    return "".join(
        (
            """m.tenant_id = %(tenant)s AND m.session_id = %(session)s AND m.position = ANY (ARRAY (
  SELECT m.position FROM pgrecall.chat_messages m WHERE""",
            _MESSAGES,
            "\n  ORDER BY m.position ",
            order,
            " LIMIT %(limit)s::int8 OFFSET %(offset)s::int8))\nRETURNING",
            _COLUMNS,
        )
    )


TAKE_FIRST = "".join(("DELETE FROM pgrecall.chat_messages m WHERE ", _chosen("ASC")))
TAKE_LAST = "".join(("DELETE FROM pgrecall.chat_messages m WHERE ", _chosen("DESC")))
ARCHIVE_FIRST = "".join(("UPDATE pgrecall.chat_messages m SET status = 'archived' WHERE ", _chosen("ASC")))

SET_METADATA = "".join(
    (
        """
UPDATE pgrecall.chat_sessions s
SET metadata = CASE WHEN %(replace)s THEN %(metadata)s::jsonb ELSE s.metadata || %(metadata)s::jsonb END WHERE""",
        _SESSION,
    )
)

SET_TTL = "".join(
    (
        """
UPDATE pgrecall.chat_sessions s
SET ttl = %(ttl)s::interval, message_ttl = %(message_ttl)s::interval,
    expires_at = statement_timestamp() + %(ttl)s::interval WHERE""",
        _SESSION,
    )
)

# The page first, then the counts of the chats on it.
SESSIONS = """
WITH page AS MATERIALIZED (
  SELECT s.session_id, s.subject, s.metadata, s.text_config, s.ttl, s.message_ttl, s.created_at, s.updated_at,
    s.expires_at
  FROM pgrecall.chat_sessions s
  WHERE s.tenant_id = %(tenant)s AND (s.expires_at IS NULL OR s.expires_at > statement_timestamp())
    AND (%(subject)s::text IS NULL OR s.subject = %(subject)s::text)
    AND (%(session)s::text IS NULL OR s.session_id = %(session)s::text)
  ORDER BY s.updated_at DESC, s.session_id LIMIT %(limit)s::int8 OFFSET %(offset)s::int8)
SELECT p.session_id, p.subject, c.active, c.archived, p.metadata, p.text_config, p.ttl, p.message_ttl, p.created_at,
  p.updated_at, p.expires_at
FROM page p CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE m.status = 'active') AS active,
    count(*) FILTER (WHERE m.status = 'archived') AS archived
  FROM pgrecall.chat_messages m
  WHERE m.tenant_id = %(tenant)s AND m.session_id = p.session_id
    AND (m.expires_at IS NULL OR m.expires_at > statement_timestamp()) LIMIT 1) c
ORDER BY p.updated_at DESC, p.session_id
"""

#: The text search configurations of the chats that a search covers.
TEXT_CONFIGS = """
SELECT DISTINCT s.text_config FROM pgrecall.chat_sessions s
WHERE s.tenant_id = %(tenant)s AND (%(session)s::text IS NULL OR s.session_id = %(session)s::text)
  AND (%(subject)s::text IS NULL OR s.subject = %(subject)s::text)
"""

# One text search configuration at a time, so that each chat's text is matched with a query in its own configuration.
SEARCH = "".join(
    (
        "WITH typed AS MATERIALIZED (",
        TSQUERY,
        """)
SELECT m.session_id, ts_rank_cd(m.text_search, (SELECT query FROM typed)) AS score,""",
        _COLUMNS,
        """
FROM pgrecall.chat_messages m
CROSS JOIN LATERAL (
  SELECT FROM pgrecall.chat_sessions s
  WHERE s.tenant_id = %(tenant)s AND s.session_id = m.session_id AND s.text_config = %(text_config)s::text
    AND (s.expires_at IS NULL OR s.expires_at > statement_timestamp())
    AND (%(subject)s::text IS NULL OR s.subject = %(subject)s::text) LIMIT 1) own
WHERE m.tenant_id = %(tenant)s AND m.text_search @@ (SELECT query FROM typed)
  AND (%(session)s::text IS NULL OR m.session_id = %(session)s::text)
  AND (%(roles)s::text[] IS NULL OR m.role = ANY (%(roles)s::text[]))
  AND (%(status)s::text IS NULL OR m.status = %(status)s::text)
  AND (m.expires_at IS NULL OR m.expires_at > statement_timestamp())
ORDER BY score DESC, m.created_at DESC, m.session_id, m.position LIMIT %(limit)s::int8
""",
    )
)
