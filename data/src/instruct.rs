//! `instruct`: instruction, input and output, a line each, of which the output is predicted.

use crate::error::DataError;
use crate::example::Example;
use crate::fields;
use crate::maker::ExampleMaker;
use crate::rows::Row;
use crate::source::DatasetSource;

/// What a row of this kind, or of one like it, asks and answers.
pub(crate) struct Asked<'a> {
    /// Blank only where there is an input.
    pub instruction: &'a str,
    /// Blank where there is none.
    pub input: &'a str,
    /// Never blank.
    pub output: &'a str,
}

impl<'a> Asked<'a> {
    /// Reads the fields of a row.
    pub fn read(source: &DatasetSource, row: &'a Row) -> Result<Self, DataError> {
        let needed = |key: &str| {
            let text = row.text(key)?;
            text.ok_or_else(|| fields::missing(source, row, key))
        };
        let (asks, answers) = (&source.field_instruction, &source.field_output);
        let (instruction, output) = (needed(asks)?, needed(answers)?);
        let input = row.text(&source.field_input)?.unwrap_or_default();
        fields::check(source, row)?;
        if output.trim().is_empty() {
            return Err(row.fail(format!(
                "the field `{answers}` is empty, so there is nothing to learn; remove the row"
            )));
        }
        if instruction.trim().is_empty() && input.trim().is_empty() {
            return Err(row.fail(format!("the field `{asks}` is empty")));
        }
        Ok(Self {
            instruction,
            input,
            output,
        })
    }

    /// The prompt, by the data set's own format; else the instruction and a line feed, then, where
    /// there is an input, the input and a line feed.
    fn prompt(&self, source: &DatasetSource) -> String {
        let (instruction, input) = (self.instruction, self.input);
        let without = source
            .no_input_format
            .as_ref()
            .filter(|_| input.trim().is_empty());
        if let Some(format) = without.or(source.format.as_ref()) {
            return self.filled(format);
        }
        match (instruction.trim().is_empty(), input.trim().is_empty()) {
            (_, true) => format!("{instruction}\n"),
            (true, false) => format!("{input}\n"),
            (false, false) => format!("{instruction}\n{input}\n"),
        }
    }
}

impl Asked<'_> {
    /// A format with the texts in the places of `{instruction}` and `{input}`; a brace is written
    /// twice.
    fn filled(&self, format: &str) -> String {
        let places = [
            ("{instruction}", self.instruction),
            ("{input}", self.input),
            ("{{", "{"),
            ("}}", "}"),
        ];
        let (mut prompt, mut rest) = (String::new(), format);
        while let Some(first) = rest.chars().next() {
            let place = places.iter().find(|(name, _)| rest.starts_with(name));
            let (text, taken) = match place {
                Some((name, text)) => (*text, name.len()),
                None => (&rest[..first.len_utf8()], first.len_utf8()),
            };
            prompt += text;
            rest = &rest[taken..];
        }
        prompt
    }
}

/// The example of a row.
pub(crate) fn example(maker: &ExampleMaker, row: &Row) -> Result<Example, DataError> {
    let asked = Asked::read(maker.source, row)?;
    answered(maker, &asked.prompt(maker.source), asked.output)
}

/// A prompt, as a text begins, and an answer with its end, tokenized apart, so that a prompt has
/// the tokens that it has when the tuned model is asked.
pub(crate) fn answered(
    maker: &ExampleMaker,
    prompt: &str,
    answer: &str,
) -> Result<Example, DataError> {
    let end = maker.needed_end()?;
    let mut ids = maker.tokenizer.encode(prompt, true)?;
    // Some tokenizers append the end-of-text token; here the text goes on.
    if ids.last() == Some(&end) {
        ids.pop();
    }
    let mut example = Example::default();
    example.add(&ids, false);
    example.add(&maker.tokenizer.encode(answer, false)?, true);
    example.add(&[end], true);
    Ok(example)
}
