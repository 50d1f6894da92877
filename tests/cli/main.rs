//! The real binary: what it prints, what it refuses and how it says so.

mod adapters;
mod bad_data;
mod bad_model;
mod bad_rows;
#[path = "../../data/tests/data/broken_forms.rs"]
mod broken_forms;
#[path = "../../data/tests/data/broken_shapes.rs"]
mod broken_shapes;
#[path = "../../data/tests/data/byte_tokenizer.rs"]
mod byte_tokenizer;
mod chat_server;
mod data;
mod device;
mod foreign_job;
mod generate;
mod gguf;
mod job_file;
mod kv_cache;
mod load_in;
mod logging;
mod logits;
mod merge;
mod mixes;
mod one_model;
mod own_head;
mod plan;
mod pool;
mod program;
mod push;
mod rates;
mod serving;
mod tiny_model;
mod verify;
