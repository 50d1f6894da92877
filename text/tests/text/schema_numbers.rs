//! Numbers that no grammar can enforce are refused, with their place.

use concord_text::{CallFormat, Grammar, TextError, ToolChoice, tool_grammar};
use serde_json::{Value, json};

use crate::fixtures::says;
use crate::guide::{factory, made};

const LONG: u64 = 9_300_000_000_000_000_000;

#[test]
fn in_all_places() {
    let tokenizer = made();
    let factory = factory(&tokenizer);
    let number = |value: Value| json!({"type": "integer", "minimum": value});
    let refused = [
        (number(json!(LONG)), "minimum is 9300000000000000000"),
        (
            number(json!(-9_007_199_254_740_993_i64)),
            "minimum is -9007199254740993",
        ),
        (json!({"type": "integer", "maximum": LONG}), "maximum"),
        (
            json!({"type": "number", "exclusiveMinimum": 1e17}),
            "exclusiveMinimum",
        ),
        (
            json!({"type": "number", "exclusiveMaximum": -1e300}),
            "exclusiveMaximum",
        ),
        (json!({"type": "integer", "multipleOf": LONG}), "multipleOf"),
        (json!({"enum": [1, "a", LONG]}), "enum/2"),
        (json!({"enum": [{"a": [LONG]}]}), "enum/0/a/0"),
        (json!({"const": LONG}), "const"),
        (
            json!({"properties": {"id": number(json!(LONG))}}),
            "properties/id/minimum",
        ),
        (
            json!({"$defs": {"id": {"const": LONG}}, "$ref": "#/$defs/id"}),
            "$defs/id/const",
        ),
        (
            json!({"items": {"anyOf": [{}, number(json!(LONG))]}}),
            "items/anyOf/1/minimum",
        ),
        (
            json!({"additionalProperties": number(json!(LONG))}),
            "additionalProperties/minimum",
        ),
    ];
    for (schema, place) in refused {
        match factory.start(&Grammar::JsonSchema(schema.to_string()), &[]) {
            Err(error @ TextError::Grammar { .. }) => says(error, &[place, "9007199254740992"]),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{schema} was taken"),
        }
    }
    // A longer number than any Rust type holds, as text in a request.
    let long = Grammar::JsonSchema("{\"enum\": [12345678901234567890123]}".to_string());
    assert!(factory.start(&long, &[]).is_err());
}

#[test]
fn numbers_that_mean_nothing_for_answers() {
    let tokenizer = made();
    let factory = factory(&tokenizer);
    let taken = [
        json!({"type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_992_i64}),
        json!({"type": "number", "minimum": -0.5, "multipleOf": 0.25}),
        json!({"type": "integer", "default": LONG, "examples": [LONG], "title": "x"}),
        json!({"type": "object", "properties": {"minimum": {"type": "integer"},
               "enum": {"type": "string"}, "default": {"type": "null"}}}),
        json!({"enum": [1, 0.1, "9300000000000000000"]}),
    ];
    for schema in taken {
        let started = factory.start(&Grammar::JsonSchema(schema.to_string()), &[]);
        assert!(started.is_ok(), "{schema}: {:?}", started.err());
    }
}

#[test]
fn in_tools() {
    let tokenizer = made();
    let tools = json!([{"function": {"name": "f", "parameters": {
        "type": "object", "properties": {"id": {"type": "integer", "minimum": LONG}}}}}]);
    let grammar = tool_grammar(
        CallFormat::Hermes,
        &tools,
        &ToolChoice::Required,
        false,
        &tokenizer,
    );
    says(
        grammar.unwrap_err(),
        &["tools[0].function.parameters", "properties/id/minimum"],
    );
}
