//! `prompt_completion`: a prompt and what follows it: two texts, or two lists of turns.

use serde_json::Value;

use crate::chat;
use crate::error::DataError;
use crate::example::Example;
use crate::fields;
use crate::maker::ExampleMaker;
use crate::messages;
use crate::rows::Row;

/// The example of a row.
pub(crate) fn example(maker: &ExampleMaker, row: &Row) -> Result<Example, DataError> {
    let source = maker.source;
    let (asks, answers) = (&source.field_instruction, &source.field_output);
    let is_list = |key: &str| matches!(row.fields.get(key), Some(Value::Array(_)));
    match (is_list(asks), is_list(answers)) {
        (true, true) => {
            let conversation = messages::of_two_lists(source, maker.template()?, row)?;
            chat::example(maker, row, &conversation)
        }
        (false, false) => of_texts(maker, row),
        _ => Err(row.fail(format!(
            "one of `{asks}` and `{answers}` is a list of turns and the other is not; make both \
             texts, or both lists"
        ))),
    }
}

/// Two texts are tokenized as one, which is what a reader of the whole sees; a token that stands
/// for a part of both is learnt.
fn of_texts(maker: &ExampleMaker, row: &Row) -> Result<Example, DataError> {
    let source = maker.source;
    let needed = |key: &str| {
        let text = row.text(key)?;
        text.ok_or_else(|| fields::missing(source, row, key))
    };
    let (asks, answers) = (&source.field_instruction, &source.field_output);
    let (prompt, completion) = (needed(asks)?, needed(answers)?);
    fields::check(source, row)?;
    if completion.trim().is_empty() {
        return Err(row.fail(format!(
            "the field `{answers}` is empty, so there is nothing to learn; remove the row"
        )));
    }
    let (end, text) = (maker.needed_end()?, format!("{prompt}{completion}"));
    let mut tokens = maker.tokenizer.encode_placed(&text, true)?;
    // Whether the tokenizer appends it or the text ends with it: once.
    if tokens.last().is_some_and(|(id, _)| *id == end) {
        tokens.pop();
    }
    let answer = prompt.len()..text.len();
    let mut example = Example::of_spans(tokens, std::slice::from_ref(&answer));
    example.add(&[end], true);
    Ok(example)
}
