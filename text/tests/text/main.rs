//! Texts in, tokens out, and back. One test binary, since linking many is slow. Tests that need the
//! real tokenizers of `shared/` say so and pass where it is not there.

mod chat_template;
mod control_tokens;
mod fixtures;
mod grammar_limits;
mod guide;
mod jinja;
mod pieces;
mod reads;
mod reasoning;
mod schema_numbers;
mod spelling;
mod stop;
mod token_width;
mod tokenizer;
mod tokenizer_class;
mod tokenizer_config;
mod tool_calls;
