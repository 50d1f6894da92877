//! What the targets of libFuzzer share: the first inputs, which are made by the code of the tests,
//! and what is done with an input.

#[path = "../../data/tests/data/broken_forms.rs"]
mod broken_forms;
#[path = "../../data/tests/data/broken_shapes.rs"]
mod broken_shapes;
pub mod bundle;
#[path = "../../models/tests/fuzz/files.rs"]
#[allow(dead_code, reason = "the test of random files uses the rest")]
mod files;
#[path = "../../verify/tests/fixture/mod.rs"]
mod fixture;
#[path = "../../text/tests/text/fixtures.rs"]
#[allow(dead_code, reason = "the tests of text use the rest")]
mod fixtures;
#[path = "../../models/tests/packed/gguf_writer.rs"]
#[allow(dead_code, reason = "the tests of packed weights use the rest")]
mod gguf_writer;
#[path = "../../proto/tests/messages/mod.rs"]
mod made;
pub mod messages;
pub mod models;
#[path = "../../runtime/src/moment_blob.rs"]
#[allow(dead_code, reason = "workers use the rest")]
mod moment_blob;
#[path = "../../models/tests/fuzz/mutate.rs"]
#[allow(dead_code, reason = "libFuzzer makes the changes")]
mod mutate;
#[path = "../../models/tests/fuzz/packed.rs"]
mod packed;
#[path = "../../models/tests/fuzz/read.rs"]
mod read;
pub mod recipe;
pub mod request;
pub mod rows;
mod seeds;
pub mod template;
#[path = "../../runtime/src/tensor_blob.rs"]
#[allow(dead_code, reason = "workers use the rest")]
mod tensor_blob;
pub mod tokenizer;
