//! From a row to an example, by the kind of the data set.

use crate::error::DataError;
use crate::example::Example;
use crate::maker::ExampleMaker;
use crate::rows::Row;
use crate::source::DatasetKind;
use crate::{
    alpaca, chat, completion, conversation, input_output, instruct, messages, prompt_completion,
    token_rows,
};

/// The example of a row.
///
/// # Errors
/// [`DataError::Row`] with field and remedy.
pub(crate) fn of_row(maker: &ExampleMaker, row: &Row) -> Result<Example, DataError> {
    match maker.source.kind {
        DatasetKind::Text | DatasetKind::Completion => completion::example(maker, row),
        DatasetKind::Instruct => instruct::example(maker, row),
        DatasetKind::Alpaca => alpaca::example(maker, row),
        DatasetKind::AlpacaTurns => {
            let conversation = conversation::of_instruction(maker.source, row)?;
            chat::example(maker, row, &conversation)
        }
        DatasetKind::ChatTemplate | DatasetKind::ShareGpt => {
            let conversation = messages::conversation(maker.source, maker.template()?, row)?;
            chat::example(maker, row, &conversation)
        }
        DatasetKind::PromptCompletion => prompt_completion::example(maker, row),
        DatasetKind::InputOutput => input_output::example(maker, row),
        DatasetKind::Tokens => token_rows::example(maker.source, row),
    }
}
