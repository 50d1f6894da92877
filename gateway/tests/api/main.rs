//! The API as clients meet it: over real sockets, with an engine that follows a script.

mod adapters;
mod chat;
mod client;
mod completions;
mod fields;
mod fuzz;
mod hostile;
mod keys;
mod limits;
mod models;
mod pool;
mod receipts;
mod script;
mod special_tokens;
mod stand;
mod stream;
mod tokens;
