//! `alpaca`: instruction, input and output within the words that Stanford's Alpaca was trained
//! with, and Axolotl's type of this name trains with. Other tools have a kind of this name that is
//! a turn of a conversation: that is `alpaca_turns`.

use crate::error::DataError;
use crate::example::Example;
use crate::instruct::{Asked, answered};
use crate::maker::ExampleMaker;
use crate::rows::Row;

/// The example of a row.
pub(crate) fn example(maker: &ExampleMaker, row: &Row) -> Result<Example, DataError> {
    let asked = Asked::read(maker.source, row)?;
    answered(maker, &prompt(&asked), asked.output)
}

fn prompt(asked: &Asked) -> String {
    let (instruction, input) = (asked.instruction, asked.input);
    match input.trim().is_empty() {
        true => format!(
            "Below is an instruction that describes a task. Write a response that appropriately \
             completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
        ),
        false => format!(
            "Below is an instruction that describes a task, paired with an input that provides \
             further context. Write a response that appropriately completes the \
             request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### \
             Response:\n"
        ),
    }
}
