//! Conversations as text: what transformers renders, and templates that go wrong.

use std::fs;
use std::path::Path;

use concord_text::{ChatTemplate, TextError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::fixtures::{says, shared};

const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/text/templates");

/// A conversation, and what transformers made of it.
#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Value,
    tools: Option<Value>,
    add_generation_prompt: bool,
    more: Map<String, Value>,
    text: Option<String>,
    error: Option<String>,
}

fn render(template: &ChatTemplate, messages: Value) -> Result<String, TextError> {
    let chat = template.render(&messages, None, true, &Map::new())?;
    Ok(chat.text().to_string())
}

fn from(source: &str) -> ChatTemplate {
    ChatTemplate::from_source(source).unwrap()
}

fn one(source: &str, variables: Value) -> String {
    let variables = variables.as_object().unwrap();
    from(source)
        .render(&json!([]), None, false, variables)
        .unwrap()
        .text()
        .to_string()
}

#[test]
fn conversations_as_transformers_renders_them() {
    let cases = fs::read(format!("{TEMPLATES}/transformers.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() >= 40);
    for (index, case) in cases.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let source = format!("{TEMPLATES}/{}.jinja", case.template);
        fs::copy(source, folder.path().join("chat_template.jinja")).unwrap();
        let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}}).to_string();
        fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let template = ChatTemplate::open(folder.path()).unwrap().unwrap();
        let rendered = template.render(
            &case.messages,
            case.tools.as_ref(),
            case.add_generation_prompt,
            &case.more,
        );
        match (&case.text, &case.error) {
            (Some(text), _) => assert_eq!(rendered.unwrap().text(), text, "case {index}"),
            (None, error) => says(rendered.unwrap_err(), &[error.as_deref().unwrap()]),
        }
    }
}

#[test]
fn templates_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let open = || ChatTemplate::open(folder.path());
    assert!(open().unwrap().is_none());
    write("tokenizer_config.json", "{\"eos_token\": \"</s>\"}");
    assert!(open().unwrap().is_none());
    let list = json!({"chat_template": [
        {"name": "default", "template": "plain{{ tools is none }}"},
        {"name": "tool_use", "template": "with {{ tools | length }}"},
    ]});
    write("tokenizer_config.json", &list.to_string());
    let template = open().unwrap().unwrap();
    let text = |tools: Option<Value>| {
        template
            .render(&json!([]), tools.as_ref(), true, &Map::new())
            .unwrap()
            .text()
            .to_string()
    };
    assert_eq!(text(None), "plainTrue");
    assert_eq!(text(Some(json!([]))), "plainTrue");
    assert_eq!(text(Some(json!([1, 2]))), "with 2");
    write("chat_template.jinja", "own");
    assert_eq!(render(&open().unwrap().unwrap(), json!([])).unwrap(), "own");
    write("chat_template.jinja", "a\n{% if %}");
    says(open().unwrap_err(), &["chat_template.jinja", "line 2"]);
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    write("tokenizer_config.json", "{");
    says(open().unwrap_err(), &["tokenizer_config.json", "JSON"]);
    let Some(model) = shared("models/tiny-qwen3") else {
        return;
    };
    let template = ChatTemplate::open(Path::new(&model)).unwrap().unwrap();
    let messages =
        json!([{"role": "user", "content": "Once"}, {"role": "user", "content": "upon"}]);
    assert_eq!(render(&template, messages).unwrap(), "Once upon");
}

#[test]
fn a_model_without_a_template() {
    let messages =
        json!([{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}]);
    let text = render(&ChatTemplate::plain(), messages).unwrap();
    assert_eq!(text, "system: Be kind\nuser: Hi\nassistant:");
}

#[test]
fn json_as_python_spells_it() {
    let value = json!({
        "z": [1, -2.5, 1e16, 1e-5, 123456789.0, true, null],
        "a": {"\u{E9}<'&": "\u{1F980}\n"},
        "empty": [{}, []]
    });
    let flat = "{\"z\": [1, -2.5, 1e+16, 1e-05, 123456789.0, true, null], \
                \"a\": {\"\u{E9}<'&\": \"\u{1F980}\\n\"}, \"empty\": [{}, []]}";
    assert_eq!(one("{{ x | tojson }}", json!({"x": value})), flat);
    let ascii = one(
        "{{ x | tojson(ensure_ascii=true) }}",
        json!({"x": "\u{E9}\u{1F980}"}),
    );
    assert_eq!(ascii, "\"\\u00e9\\ud83e\\udd80\"");
    let indented = one(
        "{{ x | tojson(indent=2) }}",
        json!({"x": {"a": [1, {}], "b": 2}}),
    );
    assert_eq!(
        indented,
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": 2\n}"
    );
    let sorted = one(
        "{{ x | tojson(sort_keys=true) }}",
        json!({"x": {"b": 1, "a": 2}}),
    );
    assert_eq!(sorted, "{\"a\": 2, \"b\": 1}");
}

#[test]
fn the_date_is_spelt() {
    let year = one("{{ strftime_now('%Y') }}", json!({}));
    assert!(year.parse::<u32>().unwrap() >= 2025, "{year}");
    let day = one("{{ strftime_now('%-d|%d %b %q%%') }}", json!({}));
    assert!(day.ends_with(" %q%") && !day.starts_with('0'), "{day}");
}

#[test]
fn what_clients_may_set() {
    let folder = tempfile::tempdir().unwrap();
    let source = "{{ bos_token }}{{ messages | length }}{{ documents }}{{ own }}\
                  {{ pad_token is defined }}";
    let config = json!({"bos_token": "<s>", "pad_token": null, "chat_template": source});
    fs::write(
        folder.path().join("tokenizer_config.json"),
        config.to_string(),
    )
    .unwrap();
    let template = ChatTemplate::open(folder.path()).unwrap().unwrap();
    let text = |more: Value| {
        let more = more.as_object().unwrap();
        let chat = template.render(&json!([1]), None, true, more).unwrap();
        chat.text().to_string()
    };
    assert_eq!(text(json!({})), "<s>1NoneFalse");
    let more = json!({"bos_token": "<b>", "messages": [], "documents": "d", "own": 7});
    assert_eq!(text(more), "<b>1d7False");
}

#[test]
fn what_clients_get_told() {
    let raises = from("{{ raise_exception('No system messages, please.') }}");
    let error = render(&raises, json!([])).unwrap_err();
    assert!(matches!(error, TextError::Conversation { .. }));
    says(error, &["No system messages, please."]);
    // A message without what the template needs.
    let needs = from("a\n{{ messages[0].content.strip() }}");
    says(
        render(&needs, json!([{"role": "user"}])).unwrap_err(),
        &["line 2"],
    );
}

#[test]
fn no_template_goes_on_for_ever() {
    let checks = "{% if b %}{% endif %}".repeat(10);
    let long = format!(
        "{{% for a in range(100000) %}}{{% for b in range(1000) %}}\
         {checks}{{% endfor %}}{{% endfor %}}"
    );
    let error = render(&from(&long), json!([])).unwrap_err();
    says(error, &["too many steps"]);
    let deep = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    says(render(&from(deep), json!([])).unwrap_err(), &["too deep"]);
    let wide = "{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}";
    says(render(&from(wide), json!([])).unwrap_err(), &["bytes"]);
    let brackets = format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000));
    says(ChatTemplate::from_source(&brackets).unwrap_err(), &["deep"]);
    let chain = format!("{{{{ 1{} }}}}", " + 1".repeat(50_000));
    says(ChatTemplate::from_source(&chain).unwrap_err(), &["links"]);
}

/// Whatever can hold a value may hold itself as it was before, but not for ever: neither what looks
/// through such a chain nor what drops it runs out of stack.
#[test]
fn no_value_stands_in_itself_for_ever() {
    let chains = [
        "{% set ns.x = [ns.x] %}",
        "{% set ns.x = (ns.x, 1) %}",
        "{% set ns.x = {'a': ns.x} %}",
        "{% set ns.x = [ns.x] | select('defined') %}",
        "{% set ns.x = {'a': ns.x}.values() %}",
        "{% set ns.x = cycler(ns.x) %}",
        "{% set ns.x = joiner(ns.x) %}",
        "{% for y in [ns.x] %}{% set ns.x = loop %}{% endfor %}",
    ];
    for chain in chains {
        let source = format!(
            "{{% set ns = namespace(x=1) %}}{{% for i in range(90000) %}}{chain}{{% endfor %}}"
        );
        let error = render(&from(&source), json!([])).unwrap_err();
        says(error, &["too deep in each other"]);
    }
}

/// Whatever doubles a value ends at the bound of bytes, steps or depth.
#[test]
fn no_template_makes_more_and_more() {
    let doubles = [
        "x ~ x",
        "x + x",
        "x * 2",
        "[x, x] | join",
        "'-'.join([x, x])",
        "x.replace('a', 'aa')",
        "x | replace('a', 'aa')",
        "'{}{}'.format(x, x)",
        "'%s%s' % (x, x)",
        "x.ljust(4096) * 2",
        "(x | tojson) ~ x",
        "(x | list | join) ~ x",
        "x.upper() ~ x",
        "(x | e) ~ x",
        "(x | urlencode) ~ x",
        "x | indent(x | length, true)",
        "x | center((x | length) * 2)",
        "x.center((x | length) * 2)",
        "x.zfill((x | length) * 2)",
        "(x.split('a') | join('aa'))",
        "([x] * 2) | join",
        "([x] + [x]) | join",
        "(x, x) | join",
        "[x, x]",
        "{'a': x, 'b': x}",
        "[x, x] | string",
        "x[:] ~ x[::-1]",
        "(x | batch(2) | list | string) ~ x",
    ];
    for double in doubles {
        let source = format!(
            "{{% set ns = namespace(x='aaaaaaaa') %}}{{% for i in range(400) %}}\
             {{% set x = ns.x %}}{{% set ns.x = {double} %}}{{% endfor %}}{{{{ ns.x | length }}}}"
        );
        let error = render(&from(&source), json!([])).unwrap_err().to_string();
        let bounds = ["bytes", "too many steps", "too deep", "hold too much"];
        assert!(
            bounds.iter().any(|bound| error.contains(bound)),
            "{double}: {error}"
        );
    }
    let blanks = "{{ 'x' | indent(10000000000) }}{{ '%s' | tojson(indent=10000000000) }}";
    says(render(&from(blanks), json!([])).unwrap_err(), &["bytes"]);
}

#[test]
fn keys_and_comparisons_have_bounds() {
    let keys = [
        "{% set ns.k = (ns.k, ns.k) %}{% set d = {ns.k: 1} %}",
        "{% set ns.k = (ns.k,) %}{% set d = {} %}{{ ns.k in d }}",
        "{% set ns.k = (ns.k, 'a') %}{% set d = {} %}{{ d.get(ns.k) }}",
        "{% set ns.k = (ns.k, 1) %}{{ [ns.k] | unique | list }}",
        "{% set ns.k = ns.k ~ 'abcdefgh' * 1024 %}{% set d = {ns.k: 1} %}",
    ];
    for key in keys {
        let source = format!(
            "{{% set ns = namespace(k='k') %}}{{% for i in range(12) %}}{key}{{% endfor %}}"
        );
        let error = render(&from(&source), json!([])).unwrap_err();
        says(error, &["a key that is so large"]);
    }
    let pairs = "{% set d = {(1, 'a'): 1, ('1', 'a'): 2, (1.0, 'a'): 3, ((1,), 'a'): 4} %}\
                 {{ d.get((1, 'a')) }} {{ d.get(('1', 'a')) }} {{ d | length }}";
    assert_eq!(render(&from(pairs), json!([])).unwrap(), "3 2 3");
    // Both have the same keys, which stand in opposite orders.
    let messages: Vec<_> = [false, true]
        .map(|is_reversed| {
            let mut keys: Vec<usize> = (0..4000).collect();
            if is_reversed {
                keys.reverse();
            }
            let entry = |key: usize| (format!("k{key}"), json!(1));
            serde_json::Value::Object(keys.into_iter().map(entry).collect())
        })
        .into();
    let once = from("{{ messages[0] == messages[1] }} {{ [messages[0]] == [messages[1]] }}");
    assert_eq!(render(&once, json!(messages)).unwrap(), "True True");
    for compared in [
        "messages[0] == messages[1]",
        "[messages[0]] != [messages[1]]",
        "messages[0] in [messages[1]]",
    ] {
        let source =
            format!("{{% for i in range(1000) %}}{{% if {compared} %}}{{% endif %}}{{% endfor %}}");
        let error = render(&from(&source), json!(messages)).unwrap_err();
        says(error, &["too many steps"]);
    }
}

#[test]
fn texts_are_found_in_texts() {
    let cases = [
        ("'aab' in 'aaab'", "True"),
        ("'abab' in 'abacabad'", "False"),
        ("'' in ''", "True"),
        ("'aaaa'.count('aa')", "2"),
        ("'abc'.count('')", "4"),
        ("'abcabc'.find('c')", "2"),
        ("'abcabc'.rfind('abc')", "3"),
        ("'abc'.rfind('')", "3"),
        ("'aaa'.rfind('aa')", "1"),
        ("'ababac'.find('abac')", "2"),
        ("'a\u{e9}a\u{e9}'.rfind('\u{e9}')", "3"),
        ("'aabaabaaab'.split('aab')", "['', '', 'a', '']"),
        ("'abcd'.find('abcde')", "-1"),
    ];
    for (expression, expected) in cases {
        let template = from(&format!("{{{{ {expression} }}}}"));
        assert_eq!(
            render(&template, json!([])).unwrap(),
            expected,
            "{expression}"
        );
    }
}
