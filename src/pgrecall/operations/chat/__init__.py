"""Chats: their messages, and windows of messages that fit a model's context."""
