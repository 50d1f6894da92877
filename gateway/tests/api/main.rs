//! The API as clients meet it: over real sockets, with an engine that follows a script.

mod access;
mod adapters;
mod chat;
mod client;
mod completions;
mod drain;
mod fields;
mod fuzz;
mod hostile;
mod keep_alive;
mod key_file;
mod keys;
mod large;
mod limits;
mod models;
mod nested;
mod pool;
mod quotas;
mod receipts;
mod script;
mod special_tokens;
mod stand;
mod stream;
mod tokens;
mod wire;
