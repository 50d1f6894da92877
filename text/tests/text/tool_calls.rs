//! Calls found in answers, whatever pieces these come in.

use concord_text::{CallEvent, CallFormat, CallParser, ChatTemplate};
use proptest::prelude::*;
use serde_json::json;

use crate::fixtures::{byte_level, tokenizer};

/// The text of an answer, and its calls as (name, arguments).
type Found = (String, Vec<(String, String)>);

fn parse(format: CallFormat, text: &str, size: usize) -> Found {
    let mut parser = CallParser::new(format, vec!["get".to_string(), "f".to_string()]);
    let characters: Vec<char> = text.chars().collect();
    let mut events = Vec::new();
    for piece in characters.chunks(size) {
        events.extend(parser.push(&piece.iter().collect::<String>()));
    }
    events.extend(parser.finish());
    let mut found: Found = (String::new(), Vec::new());
    for event in events {
        match event {
            CallEvent::Text(text) => found.0 += &text,
            CallEvent::Started { index, name } => {
                assert_eq!(index as usize, found.1.len(), "calls come in their order");
                found.1.push((name, String::new()));
            }
            CallEvent::Arguments { index, piece } => {
                assert_eq!(
                    index as usize + 1,
                    found.1.len(),
                    "no call goes on behind another"
                );
                found.1[index as usize].1 += &piece;
            }
        }
    }
    assert_eq!(parser.calls() as usize, found.1.len());
    found
}

#[track_caller]
fn check(format: CallFormat, answer: &str, text: &str, calls: &[(&str, &str)]) {
    let calls = calls
        .iter()
        .map(|(name, arguments)| (name.to_string(), arguments.to_string()));
    let expected: Found = (text.to_string(), calls.collect());
    for size in [1, 2, 3, 5, 8, 1000] {
        assert_eq!(parse(format, answer, size), expected, "by {size}");
    }
}

#[test]
fn hermes() {
    let is = |answer, text, calls: &[_]| check(CallFormat::Hermes, answer, text, calls);
    is(
        "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"a\": [1, \"}\\\"\"]}}\n</tool_call>",
        "",
        &[("get", "{\"a\": [1, \"}\\\"\"]}")],
    );
    is(
        "Let me see.\n<tool_call>\n{\"arguments\": {\"b\":2}, \"name\": \"other\"}\n</tool_call>\n\
         <tool_call>{\"name\": \"f\"}</tool_call>\nSo",
        "Let me see.So",
        &[("other", "{\"b\":2}"), ("f", "{}")],
    );
    // Arguments as a string with JSON in it.
    is(
        "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
        "",
        &[("f", "{\"a\": 1}")],
    );
    is("a < b and <tool> is", "a < b and <tool> is", &[]);
    is("<tool_call>\nnot JSON", "<tool_call>\nnot JSON", &[]);
    is("<tool_call>\n{\"nam", "<tool_call>\n{\"nam", &[]);
    is(
        "<tool_call>{\"a\": 1}</tool_call>",
        "<tool_call>{\"a\": 1}</tool_call>",
        &[],
    );
    // Cut off by max_tokens: what is there is given.
    is(
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a",
        "",
        &[("f", "{\"a")],
    );
    is("{\"name\": \"f\"}", "{\"name\": \"f\"}", &[]);
}

#[test]
fn llama() {
    let is = |answer, text, calls: &[_]| check(CallFormat::Llama, answer, text, calls);
    let f = ("f", "{\"a\": 1}");
    is("{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "", &[f]);
    is(
        "\n<|python_tag|>{\"name\": \"x\", \"parameters\": {\"a\": 1}}",
        "",
        &[("x", f.1)],
    );
    is(
        "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": 1}}; \
         {\"name\": \"get\", \"parameters\": {}}",
        "",
        &[f, ("get", "{}")],
    );
    // JSON that is an answer, not a call.
    is(
        "{\"name\": \"Bob\", \"age\": 3}",
        "{\"name\": \"Bob\", \"age\": 3}",
        &[],
    );
    is("{\"answer\": 3}", "{\"answer\": 3}", &[]);
    is("{}", "{}", &[]);
    is("<|python_tag|>print(1)", "<|python_tag|>print(1)", &[]);
    is("Say {\"name\": \"f\"}", "Say {\"name\": \"f\"}", &[]);
}

#[test]
fn mistral() {
    for format in [CallFormat::Mistral, CallFormat::MistralArgs] {
        let is = |answer, text, calls: &[_]| check(format, answer, text, calls);
        is(
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": []}}, \
             {\"name\": \"get\", \"arguments\": {}, \"id\": \"123456789\"}]",
            "",
            &[("f", "{\"a\": []}"), ("get", "{}")],
        );
        is(
            "Hm[TOOL_CALLS]f[ARGS]{\"a\": 1}",
            "Hm",
            &[("f", "{\"a\": 1}")],
        );
        is(
            "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{\"a\": 1}[TOOL_CALLS]g{}",
            "",
            &[("f", "{\"a\": 1}"), ("g", "{}")],
        );
        is("[TOOL_CALLS] [1]", "[TOOL_CALLS] [1]", &[]);
        is("[TOOLS]", "[TOOLS]", &[]);
    }
}

/// A marker that opens no call is text, with the space around it.
#[test]
fn what_is_no_call_stays_as_it_was() {
    let texts = [
        "Use X like this",
        " X ",
        "a\n\nX\n\nb",
        "X",
        "a X",
        "X X a",
        "a X b X c",
        "a X {\"x\": 1} b",
        "a X {\"name\": 5} b",
        "a\tX\t{ b",
        "say  X  {} now",
    ];
    let formats = [
        (CallFormat::Hermes, "<tool_call>"),
        (CallFormat::Llama, "<|python_tag|>"),
        (CallFormat::Mistral, "[TOOL_CALLS]"),
        (CallFormat::MistralArgs, "[TOOL_CALLS]"),
    ];
    for (format, marker) in formats {
        for text in texts {
            // With a brace behind a word, this family reads a name and arguments.
            let is_mistral = marker == "[TOOL_CALLS]";
            if is_mistral && text.contains("X b X") {
                continue;
            }
            let text = text.replace('X', marker);
            check(format, &text, &text, &[]);
        }
    }
}

/// Wherever a call is cut off: a call has some of its arguments, or it is text.
#[test]
fn calls_that_are_cut_off() {
    let whole = [
        (
            CallFormat::Hermes,
            "Hm <tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"b\"}}\n",
        ),
        (
            CallFormat::Llama,
            "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}",
        ),
        (
            CallFormat::Mistral,
            "Hm [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": \"b\"}}",
        ),
        (
            CallFormat::MistralArgs,
            "Hm [TOOL_CALLS]f[ARGS]{\"a\": \"b\"}",
        ),
    ];
    for (format, answer) in whole {
        for end in answer
            .char_indices()
            .map(|(at, _)| at)
            .chain([answer.len()])
        {
            let mut parser = CallParser::new(format, vec!["f".to_string()]);
            let mut events = parser.push(&answer[..end]);
            events.extend(parser.finish());
            let has = |wanted: fn(&CallEvent) -> bool| events.iter().any(wanted);
            let started = has(|event| matches!(event, CallEvent::Started { .. }));
            let arguments: String = events
                .iter()
                .filter_map(|event| match event {
                    CallEvent::Arguments { piece, .. } => Some(piece.as_str()),
                    _ => None,
                })
                .collect();
            assert_eq!(started, !arguments.is_empty(), "{}", &answer[..end]);
            let is_whole = arguments == "{\"a\": \"b\"}";
            assert_eq!(parser.is_cut(), started && !is_whole, "{}", &answer[..end]);
            if !started {
                let text: String = events
                    .iter()
                    .map(|event| match event {
                        CallEvent::Text(text) => text.as_str(),
                        _ => "",
                    })
                    .collect();
                assert_eq!(text, &answer[..end]);
            }
        }
    }
}

#[test]
fn arguments_come_as_they_are_written() {
    let mut parser = CallParser::new(CallFormat::Hermes, Vec::new());
    let begun = parser.push("<tool_call>{\"name\": \"f\", \"arguments\": {\"city\": \"Par");
    let piece = |piece: &str| CallEvent::Arguments {
        index: 0,
        piece: piece.to_string(),
    };
    let started = CallEvent::Started {
        index: 0,
        name: "f".to_string(),
    };
    assert_eq!(begun, [started, piece("{\"city\": \"Par")]);
    assert_eq!(parser.push("is\"}"), [piece("is\"}")]);
    assert_eq!(parser.push("}"), []);
    assert_eq!(parser.push("</tool_call>"), []);
}

#[test]
fn formats_are_found() {
    let none = tokenizer(&byte_level(&[], &[]));
    let of =
        |source: &str| CallFormat::find(ChatTemplate::from_source(source).ok().as_ref(), &none);
    assert_eq!(of("<tool_call>"), Some(CallFormat::Hermes));
    assert_eq!(of("<tool_call>\n<function="), None);
    assert_eq!(of("[TOOL_CALLS][ARGS]"), Some(CallFormat::MistralArgs));
    assert_eq!(of("[TOOL_CALLS] ["), Some(CallFormat::Mistral));
    assert_eq!(
        of("{\"name\": n, \"parameters\": p}"),
        Some(CallFormat::Llama)
    );
    assert_eq!(of("hi"), None);
    let qwen = tokenizer(&byte_level(
        &[("<tool_call>", false), ("</tool_call>", false)],
        &[],
    ));
    assert_eq!(CallFormat::find(None, &qwen), Some(CallFormat::Hermes));
    assert_eq!(CallFormat::Hermes.marker_tokens(&qwen), [256, 257]);
}

/// A model may have a template of its own for tools, which alone speaks of calls.
#[test]
fn a_format_is_found_in_the_template_for_tools() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({ "chat_template": [
        { "name": "default", "template": "hi" },
        { "name": "tool_use", "template": "<tool_call>" },
        { "name": "rag", "template": "[TOOL_CALLS]" },
    ] });
    let path = folder.path().join("tokenizer_config.json");
    std::fs::write(path, config.to_string()).unwrap();
    let template = ChatTemplate::open(folder.path()).unwrap();
    let none = tokenizer(&byte_level(&[], &[]));
    let found = CallFormat::find(template.as_ref(), &none);
    assert_eq!(found, Some(CallFormat::Hermes));
    assert!(!template.unwrap().mentions("[TOOL_CALLS]"));
}

proptest! {
    /// However an answer is cut into pieces, the events are the same, and no text is lost but white
    /// space and markers.
    #[test]
    fn pieces_change_nothing(
        parts in prop::collection::vec(prop::sample::select(vec![
            "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "{", "}",
            "\"name\"", ":", "\"f\"", "\"arguments\"", ",", " ", "\n", "[", "]", "\\", "\"", "x",
            "{\"name\": \"f\", \"arguments\": {\"a\": 1}}", ";", "<",
        ]), 0..14),
    ) {
        let answer = parts.concat();
        let formats = [
            CallFormat::Hermes, CallFormat::Llama, CallFormat::Mistral, CallFormat::MistralArgs,
        ];
        for format in formats {
            let whole = parse(format, &answer, 1_000);
            for size in [1, 2, 3, 7] {
                prop_assert_eq!(&parse(format, &answer, size), &whole);
            }
            if !answer.contains("name") && !answer.contains("[TOOL_CALLS]") {
                let dense = |text: &str| text.split_whitespace().collect::<String>();
                prop_assert_eq!(dense(&whole.0), dense(&answer));
            }
        }
    }
}
