//! `completion`: a document of its own, learnt whole.

use crate::error::DataError;
use crate::example::Example;
use crate::fields;
use crate::maker::ExampleMaker;
use crate::rows::Row;

/// The example of a row: its text as the tokenizer frames it, and the end-of-text token.
pub(crate) fn example(maker: &ExampleMaker, row: &Row) -> Result<Example, DataError> {
    let source = maker.source;
    let text = row.text(&source.field)?;
    let text = text.ok_or_else(|| fields::missing(source, row, &source.field))?;
    fields::check(source, row)?;
    if text.trim().is_empty() {
        return Err(row.fail(format!(
            "the field `{}` is empty, so there is nothing to learn; remove the row",
            source.field
        )));
    }
    let (end, mut ids) = (maker.needed_end()?, maker.tokenizer.encode(text, true)?);
    if ids.last() != Some(&end) {
        ids.push(end);
    }
    let mut example = Example::default();
    example.add(&ids, true);
    Ok(example)
}
