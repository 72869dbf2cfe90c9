"""Chats: their messages, and windows of messages that fit a context."""
