//! What a template is found to read of a conversation.

use std::fs;

use concord_text::ChatTemplate;

const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/text/templates");

fn reads_field(source: &str, field: &str) -> bool {
    let template = ChatTemplate::from_source(source).expect(source);
    template.reads_message_field(field, false)
}

#[test]
fn fields_of_messages_that_a_template_reads() {
    let loops = |body: &str| format!("{{% for m in messages %}}{body}{{% endfor %}}");
    let read = [
        loops("{{ m.name }}"),
        loops("{{ m['name'] }}"),
        loops("{{ m.get('name', '') }}"),
        loops("{% if 'name' in m %}x{% endif %}"),
        loops("{% if m.role == 'tool' and 'name' not in m %}x{% endif %}"),
        loops("{{ m | attr('name') }}"),
        // All of it.
        loops("{{ m }}"),
        loops("{{ m | tojson }}"),
        loops("{% for key in m %}{{ key }}{% endfor %}"),
        loops("{% for key, value in m.items() %}{{ value }}{% endfor %}"),
        loops("{% for key in ['na' ~ 'me'] %}{{ m[key] }}{% endfor %}"),
        loops("{{ dict(m) }}"),
        "{{ messages | tojson }}".to_string(),
        "{{ messages | join }}".to_string(),
        "{{ messages | map('tojson') | join }}".to_string(),
        // Not the loop's own variable.
        "{{ messages[0].name }}".to_string(),
        "{{ (messages | first).name }}".to_string(),
        "{{ (messages[1:] | last)['name'] }}".to_string(),
        "{% for m in messages | selectattr('name') %}x{% endfor %}".to_string(),
        "{{ messages | map(attribute='name') | join }}".to_string(),
        "{% set all = messages[1:] %}{% for m in all | reverse %}{{ m.name }}{% endfor %}"
            .to_string(),
        loops("{% set ns = namespace(last=m) %}{{ ns.last.name }}"),
        "{% set ns = namespace() %}".to_string() + &loops("{% set ns.m = m %}") + "{{ ns.m.name }}",
        "{% macro one(x) %}{{ x.name }}{% endmacro %}".to_string() + &loops("{{ one(m) }}"),
        "{% macro one(x) %}{{ x.name }}{% endmacro %}".to_string() + &loops("{{ one(x=m) }}"),
        "{% macro one() %}{{ varargs[0].name }}{% endmacro %}".to_string() + &loops("{{ one(m) }}"),
        loops("{% if loop.previtem is defined %}{{ loop.previtem.name }}{% endif %}"),
        loops("{% with x = m %}{{ x.name }}{% endwith %}"),
        loops("{{ (m if m.role == 'tool' else none).name }}"),
        loops("{{ (m or {}).name }}"),
        "{% for m in [messages[0]] + messages[1:] %}{{ m.name }}{% endfor %}".to_string(),
    ];
    for source in &read {
        assert!(reads_field(source, "name"), "{source}");
    }
    let not_read = [
        loops("{{ m.role }}: {{ m.content | trim }}"),
        // That of a tool, of a call and of something else.
        loops("{% for call in m.tool_calls %}{{ call.function.name }}{% endfor %}"),
        loops("x")
            + "{% for tool in tools %}{{ tool.function.name }}{{ tool | tojson }}{% endfor %}",
        loops("{% set name = 'name' %}{{ name }}"),
        loops("{{ messages[loop.index0 - 1].role }}{{ loop.index0 }}"),
        loops("{% if m == messages[-1] %}x{% endif %}{{ messages | length }}"),
        loops("{{ m['content'].split('name')[0] }}"),
        "{% set ns = namespace(n=0) %}".to_string() + &loops("{% set ns.n = ns.n + 1 %}"),
        "the name of {{ messages[0].role }}".to_string(),
    ];
    for source in &not_read {
        assert!(!reads_field(source, "name"), "{source}");
    }
}

#[test]
fn what_was_thought_is_read_under_any_of_its_names() {
    let source = |field: &str| format!("{{{{ messages[0].{field} }}}}");
    for field in ["reasoning_content", "thinking"] {
        assert!(reads_field(&source(field), "reasoning_content"), "{field}");
    }
    assert!(!reads_field(&source("content"), "reasoning_content"));
}

#[test]
fn variables_that_a_template_reads() {
    let template = ChatTemplate::from_source(
        "{% set other = 1 %}{% if enable_thinking is defined and enable_thinking %}x{% endif %}\
         {{ messages[0].effort }} verbosity {{ 'budget' }}{{ f(key=1) }}",
    )
    .expect("a right template");
    for name in ["enable_thinking", "messages", "f"] {
        assert!(template.reads_variable(name, false), "{name}");
    }
    for name in ["other", "effort", "verbosity", "budget", "key", "tools"] {
        assert!(!template.reads_variable(name, false), "{name}");
    }
}

/// Those of well-known families, and the plain one.
#[test]
fn families_read_what_they_show() {
    let read = |name: &str| fs::read_to_string(format!("{TEMPLATES}/{name}.jinja"));
    for name in ["chatml", "llama31", "mistral"] {
        let source = read(name).expect("a template");
        let template = ChatTemplate::from_source(&source).expect(name);
        for field in ["role", "content", "tool_calls"] {
            assert!(template.reads_message_field(field, true), "{name}: {field}");
        }
        assert!(
            !template.reads_message_field("reasoning_content", true),
            "{name}"
        );
        assert!(!template.reads_variable("reasoning_effort", true), "{name}");
    }
    let plain = ChatTemplate::plain();
    assert!(plain.reads_message_field("content", true));
    assert!(!plain.reads_message_field("name", true) && !plain.reads_variable("tools", true));
}

/// Values that go from name to name, in an order that needs too many walks: what is not followed
/// counts as read.
#[test]
fn a_long_way_is_given_up() {
    let mut source = String::from("{% for x in [1, 2] %}{{ v0.name }}");
    for index in 0..200 {
        source += &format!("{{% set v{index} = v{} %}}", index + 1);
    }
    source += "{% set v200 = messages[0] %}{% endfor %}";
    assert!(reads_field(&source, "name"));
}

/// Templates may be nested deeper than the walk follows.
#[test]
fn what_lies_too_deep_counts_as_read() {
    let mut expression = String::from("x");
    for _ in 0..20 {
        expression = format!("({expression}{})", " + 1".repeat(190));
    }
    let source = format!("{{{{ {expression} }}}}");
    let template = ChatTemplate::from_source(&source).expect("a right template");
    assert!(template.reads_variable("x", false) && template.reads_message_field("name", false));
}
