//! Code that commands share. It does not depend on any command.

pub mod adapter_blobs;
mod blob_spool;
pub mod blobs;
pub mod byte_tokenizer;
pub mod bytes;
pub mod client;
pub mod device;
mod digest_cache;
pub mod gpu;
pub mod home;
pub mod job_events;
pub mod job_file;
pub mod job_list;
pub mod kv_cache;
pub mod layers;
pub mod leave;
pub mod load_in;
pub mod loaded_model;
pub mod logging;
pub mod open_files;
pub mod output;
pub mod pool;
pub mod profile;
pub mod result_weights;
pub mod scratch;
pub mod signals;
pub mod table;
