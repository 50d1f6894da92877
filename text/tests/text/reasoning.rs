//! Reasoning is separated from content, whatever pieces the answer comes in.

use concord_text::{ChatTemplate, ReasoningSplit};

/// Splits `text`, given in pieces of `size` characters.
fn split(text: &str, inside: bool, size: usize) -> (String, String) {
    let mut splitter = ReasoningSplit::new(inside);
    let characters: Vec<char> = text.chars().collect();
    let (mut reasoning, mut content) = (String::new(), String::new());
    for piece in characters.chunks(size) {
        let part = splitter.push(&piece.iter().collect::<String>());
        reasoning += &part.reasoning;
        content += &part.content;
    }
    let part = splitter.finish();
    (reasoning + &part.reasoning, content + &part.content)
}

#[test]
fn in_pieces_of_any_size() {
    let cases = [
        (
            "<think>\nwhy? a </b> c\n</think>\n\nIt is.\n",
            false,
            "why? a </b> c",
            "It is.\n",
        ),
        ("why?\n</think>\n\nIt is.", true, "why?", "It is."),
        ("<think>\n\n</think>\n\nIt is.", false, "", "It is."),
        ("It <think>is</think>", false, "", "It <think>is</think>"),
        ("<think>cut of", false, "cut of", ""),
        ("<think>cut of </thin", false, "cut of </thin", ""),
        ("<thing>", false, "", "<thing>"),
        ("<th", false, "", "<th"),
        ("  \n", false, "", "  \n"),
        ("a\n</think>b</think>c", true, "a", "b</think>c"),
        ("", true, "", ""),
    ];
    for (text, inside, reasoning, content) in cases {
        for size in 1..20 {
            let found = split(text, inside, size);
            assert_eq!(
                found,
                (reasoning.to_string(), content.to_string()),
                "{text:?} by {size}"
            );
        }
    }
}

#[test]
fn thoughts_come_as_they_are_thought() {
    let mut splitter = ReasoningSplit::new(false);
    assert_eq!(splitter.push("<think>one two").reasoning, "one two");
    assert_eq!(splitter.push(" three\n").reasoning, " three");
    assert_eq!(splitter.push("four").reasoning, "\nfour");
}

#[test]
fn only_models_that_think() {
    let thinks = ChatTemplate::from_source("{{ messages }}<think>\n").unwrap();
    assert!(ReasoningSplit::find(&ChatTemplate::plain(), "x").is_none());
    let mut inside = ReasoningSplit::find(&thinks, "hi<think>\n").unwrap();
    assert_eq!(inside.push("why").reasoning, "why");
    let mut before = ReasoningSplit::find(&thinks, "hi").unwrap();
    assert_eq!(before.push("why").content, "why");
}
