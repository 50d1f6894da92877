//! Grammars: whatever is drawn from the candidates fits the grammar.

use std::collections::BTreeMap;

use concord_text::{
    CallEvent, CallFormat, CallParser, Grammar, Guide, GuideFactory, Next, TextTokenizer,
    ToolChoice, tool_grammar,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::fixtures::{SHARED_MODELS, byte_level, says, shared, tokenizer};

/// Bytes, a few merges that cross the joints of JSON, text tokens and special ones.
pub fn made() -> TextTokenizer {
    let merged = [
        ("\"", ":"),
        ("\"", ","),
        ("{", "\""),
        ("t", "r"),
        ("tr", "u"),
        ("tru", "e"),
        ("\u{120}", "\""),
        ("1", "2"),
    ];
    let added = [
        ("<|end|>", true),
        ("[TOOL_CALLS]", true),
        ("<tool_call>", false),
        ("</tool_call>", false),
    ];
    tokenizer(&byte_level(&added, &merged))
}

fn end(tokenizer: &TextTokenizer) -> u32 {
    let names = ["<|end|>", "</s>"].into_iter();
    names
        .filter_map(|name| tokenizer.token_id(name))
        .next()
        .unwrap()
}

pub fn factory(tokenizer: &TextTokenizer) -> GuideFactory {
    GuideFactory::new(tokenizer, tokenizer.vocab_size() as u32).unwrap()
}

pub fn candidates(bits: &[u8]) -> Vec<u32> {
    let all = 0..8 * bits.len() as u32;
    all.filter(|token| bits[*token as usize / 8] >> (token % 8) & 1 == 1)
        .collect()
}

/// Draws tokens at random, and the end as soon as it is allowed but for one time in four. Gives the
/// tokens without the stop token, or nothing where the walk is not done after `limit`.
fn walk(guide: &mut Guide, stop: u32, mut random: u64, limit: usize) -> Option<Vec<u32>> {
    let mut answer = Vec::new();
    for _ in 0..limit {
        let bits = match guide.allowed().unwrap() {
            Next::End => return Some(answer),
            Next::Tokens(bits) => bits,
        };
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let draw = random >> 33;
        let tokens = candidates(&bits);
        assert!(!tokens.is_empty());
        let closing = [b'"', b'}', b']', b','].map(u32::from);
        let close = tokens.iter().find(|token| closing.contains(token));
        let token = match close {
            _ if tokens.contains(&stop) && !draw.is_multiple_of(4) => stop,
            // So that strings and lists end some time.
            Some(token) if !draw.is_multiple_of(3) => *token,
            _ => tokens[(draw / 12) as usize % tokens.len()],
        };
        guide.accept(token).unwrap();
        if token == stop {
            assert_eq!(guide.allowed().unwrap(), Next::End);
            return Some(answer);
        }
        answer.push(token);
    }
    None
}

fn text(tokenizer: &TextTokenizer, ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids
        .iter()
        .flat_map(|id| tokenizer.token_bytes(*id))
        .collect();
    String::from_utf8(bytes).expect("a grammar gives whole characters")
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    age: u8,
    is_tall: bool,
    #[serde(default)]
    pets: Vec<Pet>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pet {
    Cat,
    Dog,
}

fn person_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "is_tall": {"type": "boolean"},
            "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 3}
        },
        "required": ["name", "age", "is_tall"],
        "additionalProperties": false
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn walks_under_a_schema_are_what_it_says(random: u64) {
        let grammar = Grammar::JsonSchema(person_schema().to_string());
        let mut all = vec![made()];
        let folder = SHARED_MODELS.first().and_then(|name| shared(&format!("models/{name}")));
        all.extend(folder.map(|folder| TextTokenizer::open(&folder).unwrap()));
        for tokenizer in all {
            let stop = end(&tokenizer);
            let mut guide = factory(&tokenizer).start(&grammar, &[stop]).unwrap();
            let Some(answer) = walk(&mut guide, stop, random, 400) else {
                continue;
            };
            let json = text(&tokenizer, &answer);
            let person: Person = serde_json::from_str(&json).expect(&json);
            prop_assert!(person.age <= 120 && person.name.chars().count() <= 8, "{}", json);
            prop_assert!(person.pets.len() <= 3, "{:?} {}", person.pets, person.is_tall);
        }
    }

    #[test]
    fn walks_to_any_object_are_objects(random: u64) {
        let tokenizer = made();
        let stop = end(&tokenizer);
        let mut guide = factory(&tokenizer).start(&Grammar::JsonObject, &[stop]).unwrap();
        if let Some(answer) = walk(&mut guide, stop, random, 400) {
            let json = text(&tokenizer, &answer);
            // Numbers beyond f64 are JSON too, so that values are only looked over.
            let object: BTreeMap<String, IgnoredAny> = serde_json::from_str(&json).expect(&json);
            prop_assert!(json.len() >= 2 || object.is_empty());
        }
    }

    #[test]
    fn forced_calls_are_calls(random: u64, parallel: bool) {
        let tokenizer = made();
        let stop = end(&tokenizer);
        let parameters = json!({"type": "object", "properties": {"n": {"type": "integer",
            "minimum": 0, "maximum": 9}}, "required": ["n"], "additionalProperties": false});
        let tool = |name: &str| json!({"type": "function", "function": {"name": name,
            "parameters": parameters}});
        let tools = json!([tool("add"), tool("say \"hi\"")]);
        let formats = [
            CallFormat::Hermes, CallFormat::Llama, CallFormat::Mistral, CallFormat::MistralArgs,
        ];
        for format in formats {
            for choice in [ToolChoice::Required, ToolChoice::Named("add".to_string())] {
                let grammar = tool_grammar(format, &tools, &choice, parallel, &tokenizer).unwrap();
                let mut guide = factory(&tokenizer).start(&grammar, &[stop]).unwrap();
                let answer = walk(&mut guide, stop, random, 20_000).expect("a call ends");
                let answer = text(&tokenizer, &answer);
                let names = vec!["add".to_string(), "say \"hi\"".to_string()];
                let mut parser = CallParser::new(format, names.clone());
                let mut calls: Vec<(String, String)> = Vec::new();
                let events = parser.push(&answer);
                for event in events.into_iter().chain(parser.finish()) {
                    match event {
                        CallEvent::Text(text) => prop_assert!(false, "{text:?} in {answer:?}"),
                        CallEvent::Started { name, .. } => calls.push((name, String::new())),
                        CallEvent::Arguments { piece, .. } => calls.last_mut().unwrap().1 += &piece,
                    }
                }
                prop_assert!(!calls.is_empty() && (parallel || calls.len() == 1), "{}", answer);
                for (name, arguments) in calls {
                    let is_chosen = choice == ToolChoice::Required || name == "add";
                    prop_assert!(names.contains(&name) && is_chosen);
                    let arguments: BTreeMap<String, u8> = serde_json::from_str(&arguments).unwrap();
                    prop_assert!(arguments["n"] <= 9 && arguments.len() == 1);
                }
            }
        }
    }
}

#[test]
fn the_same_spec_gives_the_same_candidates() {
    let grammar = Grammar::JsonSchema(person_schema().to_string());
    let tokenizer = made();
    let stop = end(&tokenizer);
    let answer = tokenizer
        .encode("{\"name\": \"Al\", \"age\": 12, \"is_tall\": true}", false)
        .unwrap();
    let masks = || {
        let mut guide = factory(&tokenizer).start(&grammar, &[stop]).unwrap();
        let step = |token: &u32| {
            let next = guide.allowed().unwrap();
            guide.accept(*token).unwrap();
            next
        };
        let mut all: Vec<Next> = answer.iter().map(step).collect();
        all.push(guide.allowed().unwrap());
        all
    };
    let first = masks();
    assert_eq!(first, masks());
    let Next::Tokens(start) = &first[0] else {
        panic!("it begins");
    };
    let brace = candidates(start);
    assert!(
        brace
            .iter()
            .all(|id| tokenizer.token_text(*id).starts_with('{')),
        "{brace:?}"
    );
    assert!(!brace.contains(&stop));
    // Behind the object, there may be nothing but the end.
    match first.last() {
        Some(Next::End) => {}
        Some(Next::Tokens(bits)) => assert!(candidates(bits).contains(&stop)),
        None => panic!("there are masks"),
    }
}

#[test]
fn a_clone_goes_its_own_way() {
    let tokenizer = made();
    let factory = factory(&tokenizer);
    let start = || factory.start(&Grammar::JsonObject, &[]).unwrap();
    let mut first = start();
    first.allowed().unwrap();
    let mut second = first.clone();
    first.accept(u32::from(b'{')).unwrap();
    assert_eq!(second.allowed().unwrap(), start().allowed().unwrap());
    assert!(second.accept(u32::from(b'"')).is_err());
    let mut third = first.clone();
    for byte in b"\"a\":1}" {
        assert_eq!(first.allowed().unwrap(), third.allowed().unwrap());
        first.accept(u32::from(*byte)).unwrap();
        third.accept(u32::from(*byte)).unwrap();
    }
}

/// A judge has `tokenizer.json` alone.
#[test]
fn the_candidates_need_no_other_file() {
    let Some(folder) = shared("models/tiny-llama31") else {
        return;
    };
    let opened = TextTokenizer::open(&folder).unwrap();
    let bytes = std::fs::read(folder.join("tokenizer.json")).unwrap();
    let alone = TextTokenizer::from_bytes(&bytes, None).unwrap();
    let first = |tokenizer: &TextTokenizer| {
        let grammar = Grammar::Lark("start: /[a-z ]*/ | <[1]> | \"x\"".to_string());
        let mut guide = factory(tokenizer).start(&grammar, &[2]).unwrap();
        guide.allowed().unwrap()
    };
    assert_eq!(first(&opened), first(&alone));
    let Next::Tokens(bits) = first(&alone) else {
        panic!("it begins");
    };
    assert!(candidates(&bits).starts_with(&[1, 2]) && candidates(&bits).len() > 100);
}

#[test]
fn stop_tokens_are_candidates_where_the_grammar_may_end() {
    let tokenizer = made();
    let stop = end(&tokenizer);
    let lark = Grammar::Lark("start: \"a\" \"b\"*".to_string());
    let mut guide = factory(&tokenizer)
        .start(&lark, &[stop, u32::from(b'b')])
        .unwrap();
    let bits = |guide: &mut Guide| match guide.allowed().unwrap() {
        Next::Tokens(bits) => candidates(&bits),
        Next::End => Vec::new(),
    };
    assert_eq!(bits(&mut guide), [u32::from(b'a')]);
    says(
        guide.accept(stop).unwrap_err(),
        &["token 264", "cannot end here"],
    );
    says(guide.accept(u32::from(b'c')).unwrap_err(), &["token 99"]);
    says(guide.accept(9_999).unwrap_err(), &["no such token"]);
    guide.accept(u32::from(b'a')).unwrap();
    assert_eq!(bits(&mut guide), [u32::from(b'b'), stop]);
    guide.accept(stop).unwrap();
    assert_eq!(guide.allowed().unwrap(), Next::End);
    says(guide.accept(stop).unwrap_err(), &["nothing may follow"]);
    // Without a stop token, what is complete ends by itself.
    let once = Grammar::Lark("start: \"a\"".to_string());
    let mut guide = factory(&tokenizer).start(&once, &[]).unwrap();
    guide.accept(u32::from(b'a')).unwrap();
    assert_eq!(guide.allowed().unwrap(), Next::End);
}

#[test]
fn a_vocabulary_wider_or_narrower_than_the_tokenizer() {
    let tokenizer = made();
    let lark = Grammar::Lark("start: /.*/".to_string());
    for vocab in [100, 1_000] {
        let factory = GuideFactory::new(&tokenizer, vocab).unwrap();
        let mut guide = factory.start(&lark, &[]).unwrap();
        let Next::Tokens(bits) = guide.allowed().unwrap() else {
            panic!("it begins");
        };
        assert_eq!(bits.len(), (vocab as usize).div_ceil(8));
        let tokens = candidates(&bits);
        assert!(tokens.contains(&65) && !tokens.contains(&264));
        assert!(tokens.iter().all(|token| *token < vocab.min(268)));
    }
    assert!(GuideFactory::new(&tokenizer, 0).is_err());
}
