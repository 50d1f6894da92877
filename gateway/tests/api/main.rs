//! The API as clients meet it: over real sockets, with an engine that follows a script.

mod chat;
mod client;
mod completions;
mod script;
mod stand;
mod stream;
