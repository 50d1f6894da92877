//! The reference of all keys. It is made of the tables that files are read by.

use crate::tables::{self, Treat};
use crate::tool::Tool;

/// For each row of the tables of a tool: its keys, and what becomes of them, as Markdown.
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
