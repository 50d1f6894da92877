//! The reference of all keys, as Markdown. It is written from the tables that files are read by.

use std::fmt::Write as _;

use crate::dataset::Kind;
use crate::tables::{self, Treat};
use crate::tool::Tool;

/// One line for each key of each tool.
pub fn rows(tool: Tool) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    for row in tables::rows(tool).into_iter().flatten() {
        let keys: Vec<String> = row.keys.split(' ').map(|key| format!("`{key}`")).collect();
        rows.push([keys.join(", "), what(row.treat)]);
    }
    rows
}

fn what(treat: Treat) -> String {
    match treat {
        Treat::Same(key) => format!("`{key}`"),
        Treat::Read(text) => format!("read: {text}"),
        Treat::Idle(why) => format!("no effect: {why}"),
        Treat::Refuse(remedy) => format!("refused: {remedy}"),
        Treat::Unless { values, else_, .. } => {
            let shown = |value: &&str| match *value {
                "" => "empty".to_string(),
                value => format!("`{value}`"),
            };
            let values: Vec<String> = values.iter().map(shown).collect();
            format!("no effect if {}; else refused: {else_}", values.join(", "))
        }
    }
}

/// The kinds of rows, in words.
pub fn kinds() -> String {
    let mut text = String::new();
    for kind in Kind::ALL {
        let _ = writeln!(text, "* {}", kind.words());
    }
    text
}
