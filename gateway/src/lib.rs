//! The HTTP gateway: an OpenAI-compatible API over an engine.
