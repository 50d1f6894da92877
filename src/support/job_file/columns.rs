//! What the rows of a data set are, by the columns of the first, as TRL finds it.

use std::fs::File;
use std::io::{BufReader, Read};

use concord_recipe::RowKind;
use serde_json::{Map, Value};

/// Bytes of the longest first row.
const ROW_BYTES_MAX: u64 = 16 << 20;

/// The kind of the rows of a .jsonl or .json file.
pub(super) fn kind(path: &str) -> Result<RowKind, String> {
    kind_of(&first_row(path)?)
}

fn kind_of(row: &Map<String, Value>) -> Result<RowKind, String> {
    let has = |key: &str| row.get(key).is_some_and(|value| !value.is_null());
    let others = [
        "chosen",
        "rejected",
        "label",
        "labels",
        "completions",
        "images",
        "image",
    ];
    if let Some(other) = others.into_iter().find(|key| has(key)) {
        return Err(format!(
            "its rows have `{other}`: only texts and answers are learnt"
        ));
    }
    match (
        has("messages"),
        has("prompt") && has("completion"),
        has("text"),
    ) {
        (true, _, _) => Ok(RowKind::Chat),
        (false, true, _) => Ok(RowKind::PromptCompletion),
        (false, false, true) => Ok(RowKind::Completion),
        _ => Err(
            "its rows have neither `messages`, nor `prompt` and `completion`, nor `text`"
                .to_string(),
        ),
    }
}

/// The type in Concord's words of the rows of a .jsonl or .json file.
pub(super) fn word(path: &str) -> Result<&'static str, String> {
    let row = first_row(path)?;
    let has = |key: &str| row.contains_key(key);
    if has("instruction") && has("output") {
        return Ok("instruct");
    }
    if has("conversations") {
        return Ok("sharegpt");
    }
    Ok(match kind_of(&row)? {
        RowKind::Chat => "chat_template",
        RowKind::PromptCompletion => "prompt_completion",
        _ => "text",
    })
}

fn first_row(path: &str) -> Result<Map<String, Value>, String> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "no such file; data sets of the hub are not fetched: download it, and name the file"
                .to_string()
        }
        _ => error.to_string(),
    })?;
    let mut reader = BufReader::new(file.take(ROW_BYTES_MAX));
    let mut first = [0];
    let is_list = loop {
        match reader.read(&mut first) {
            Ok(1) if first[0].is_ascii_whitespace() => {}
            Ok(1) => break first[0] == b'[',
            Ok(_) => return Err("the file is empty".to_string()),
            Err(error) => return Err(error.to_string()),
        }
    };
    let rows: Box<dyn Read> = match is_list {
        true => Box::new(reader),
        false => Box::new(std::io::Cursor::new(first).chain(reader)),
    };
    let mut rows = serde_json::Deserializer::from_reader(rows).into_iter::<Map<String, Value>>();
    match rows.next() {
        Some(Ok(row)) => Ok(row),
        Some(Err(error)) => Err(format!("its first row is not read: {error}")),
        None => Err("it has no rows".to_string()),
    }
}
