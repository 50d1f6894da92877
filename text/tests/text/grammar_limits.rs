//! Grammars that cannot be used, or would cost too much.

use concord_text::{
    CallFormat, Grammar, Guide, GuideFactory, Next, TextError, ToolChoice, tool_grammar,
};
use serde_json::{Value, json};

use crate::fixtures::says;
use crate::guide::{candidates, factory, made};

#[test]
fn white_space_has_an_end() {
    let tokenizer = made();
    let mut guide = factory(&tokenizer)
        .start(&Grammar::JsonObject, &[])
        .unwrap();
    guide.accept(u32::from(b'{')).unwrap();
    let spaces = (0..200).take_while(|_| guide.accept(u32::from(b' ')).is_ok());
    assert_eq!(spaces.count(), 1);
}

#[test]
fn grammars_that_cannot_be_used() {
    let tokenizer = made();
    let factory = factory(&tokenizer);
    let refused = |grammar: Grammar, parts: &[&str]| match factory.start(&grammar, &[]) {
        Err(error @ TextError::Grammar { .. }) => says(error, parts),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken"),
    };
    let schema = |schema: Value| Grammar::JsonSchema(schema.to_string());
    refused(Grammar::JsonSchema("{".to_string()), &["no JSON"]);
    refused(schema(json!({"type": "strange"})), &["strange"]);
    refused(
        schema(json!({"type": "array", "uniqueItems": true})),
        &["uniqueItems"],
    );
    refused(
        schema(json!({"$ref": "https://example.com/x"})),
        &["example.com"],
    );
    refused(schema(json!({"type": "string", "pattern": "("})), &[]);
    refused(
        schema(json!({"const": "a".repeat(300_000)})),
        &["bytes", "smaller"],
    );
    refused(Grammar::Lark("start: other".to_string()), &["other"]);
    refused(Grammar::Lark("start: <[99999]>".to_string()), &["99999"]);
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "array", "items": deep});
    }
    refused(schema(deep), &["no JSON"]);
}

#[test]
fn a_grammar_that_costs_too_much_is_an_error() {
    let tokenizer = made();
    let huge =
        json!({"type": "string", "pattern": "^(([a-z]{1,300}[0-9]{1,300}){1,300}x){1,300}$"});
    let started = factory(&tokenizer).start(&Grammar::JsonSchema(huge.to_string()), &[]);
    let outcome = started.and_then(|mut guide| {
        for _ in 0..50 {
            guide.allowed()?;
            guide.accept(u32::from(b'a'))?;
        }
        Ok(())
    });
    assert!(outcome.is_err());
}

/// Hostile grammars give a guide or an error, and soon.
#[test]
fn hostile_grammars() {
    let tokenizer = made();
    let factory = factory(&tokenizer);
    let schema = |schema: Value| Grammar::JsonSchema(schema.to_string());
    let nested = |count: usize, key: &str| {
        let wrap = |inner: Value, _| match key {
            "items" => json!({"type": "array", "items": inner}),
            key => json!({key: [inner, {"type": "integer"}]}),
        };
        (0..count).fold(json!({"type": "string"}), wrap)
    };
    let either = |index: usize| {
        let of = |kind: &str| json!({"properties": {format!("p{index}"): {"type": kind}}});
        json!({"anyOf": [of("string"), of("integer")]})
    };
    let crossed: Vec<Value> = (0..40).map(either).collect();
    let wide: Vec<Value> = (0..5_000)
        .map(|index| json!(format!("value {index}")))
        .collect();
    let hostile = [
        schema(nested(60, "items")),
        schema(nested(50, "anyOf")),
        schema(nested(50, "allOf")),
        schema(nested(50, "oneOf")),
        schema(json!({"$ref": "#"})),
        schema(json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]})),
        schema(json!({"allOf": crossed})),
        schema(json!({"enum": wide})),
        schema(json!({"type": "string", "minLength": 1_000_000_000})),
        schema(json!({"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000_000})),
        schema(json!({"type": "string", "pattern": "(a?){1000}{1000}"})),
        schema(json!({"type": "string", "pattern": "(".repeat(100_000)})),
        schema(json!({"type": "string", "pattern": "(".repeat(200) + "x" + &")".repeat(200)})),
        schema(json!({"type": "integer", "multipleOf": 1e-300})),
        schema(json!({"type": "number", "minimum": 1e308, "exclusiveMaximum": -1e308})),
        Grammar::Lark(format!(
            "start: {}\"a\"{}",
            "(".repeat(50_000),
            ")".repeat(50_000)
        )),
        Grammar::Lark(format!(
            "start: {}\"a\"{}",
            "[".repeat(50_000),
            "]".repeat(50_000)
        )),
        Grammar::Lark(format!(
            "start: /{}a{}/",
            "(".repeat(50_000),
            ")".repeat(50_000)
        )),
        Grammar::Lark("start: a\na: a a | \"x\" |".to_string()),
        Grammar::Lark("start: start".to_string()),
        Grammar::Lark(format!("start: {}", "\"a\" ".repeat(50_000))),
    ];
    for (index, grammar) in hostile.iter().enumerate() {
        let begun = std::time::Instant::now();
        let outcome = factory
            .start(grammar, &[])
            .and_then(|mut guide| walk_some(&mut guide));
        let took = begun.elapsed().as_secs_f64();
        assert!(took < 20.0, "grammar {index} took {took:.1} s");
        if let Err(error) = outcome {
            let words = error.to_string();
            assert!(words.len() < 2_000 && !words.contains("verbose"), "{words}");
        }
    }
}

#[test]
fn a_dead_end_is_an_error_and_stays_one() {
    let tokenizer = made();
    let only = Grammar::JsonSchema(json!({"$ref": "#"}).to_string());
    let mut guide = factory(&tokenizer).start(&only, &[]).unwrap();
    for _ in 0..2 {
        says(
            guide.allowed().unwrap_err(),
            &["nothing that the model can write"],
        );
    }
    // No token of 100 has a brace.
    let narrow = GuideFactory::new(&tokenizer, 100).unwrap();
    let mut guide = narrow.start(&Grammar::JsonObject, &[]).unwrap();
    assert!(guide.allowed().is_err());
}

/// Up to 30 steps, the last candidate each time.
fn walk_some(guide: &mut Guide) -> Result<(), TextError> {
    for _ in 0..30 {
        match guide.allowed()? {
            Next::End => break,
            Next::Tokens(bits) => guide.accept(*candidates(&bits).last().unwrap())?,
        }
    }
    Ok(())
}

#[test]
fn tools_that_cannot_be_used() {
    let tokenizer = made();
    let refused = |tools: Value, choice: ToolChoice, parts: &[&str]| {
        let made = tool_grammar(CallFormat::Hermes, &tools, &choice, false, &tokenizer);
        says(made.unwrap_err(), parts);
    };
    refused(json!([]), ToolChoice::Required, &["no tools"]);
    refused(
        json!([{"type": "function"}]),
        ToolChoice::Required,
        &["tools[0].function.name"],
    );
    let tool = json!([{"function": {"name": "f", "parameters": 3}}]);
    refused(
        tool.clone(),
        ToolChoice::Required,
        &["tools[0].function.parameters"],
    );
    let named = ToolChoice::Named("g".to_string());
    refused(json!([{"function": {"name": "f"}}]), named, &["`g`"]);
}
