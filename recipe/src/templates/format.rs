//! A format of conversations as a table, and the template that writes it.

use std::fmt::Write;

/// What stands before and behind a text. `{bos}` and `{eos}` are the tokenizer's own tokens.
pub(super) type Around = (&'static str, &'static str);

/// Where the system's text goes.
#[derive(Clone, Copy)]
pub(super) enum System {
    /// It is a turn of its own, in front of all others.
    Turn(Around),
    /// It stands in front of the first turn's text.
    Within(Around),
    /// A conversation with one is refused.
    Refused,
}

/// A format of conversations.
#[derive(Clone, Copy)]
pub(super) struct TurnFormat {
    /// What a conversation begins with.
    pub begin: &'static str,
    pub system: System,
    /// The system's text of a conversation that has none.
    pub default_system: Option<&'static str>,
    /// A conversation without one is refused: the tool would write a long text of its own.
    pub needs_system: bool,
    pub user: Around,
    pub assistant: Around,
    /// What a tool said; a conversation with it is refused where there is none.
    pub tool: Option<Around>,
    /// White space around texts is left out.
    pub trims: bool,
    /// Turns of the user and the assistant must alternate.
    pub alternates: bool,
}

/// The usual one, of which others are made.
pub(super) const PLAIN: TurnFormat = TurnFormat {
    begin: "",
    system: System::Refused,
    default_system: None,
    needs_system: false,
    user: ("", ""),
    assistant: ("", ""),
    tool: None,
    trims: false,
    alternates: false,
};

/// How LLaMA-Factory learns answers, which the template marks.
#[derive(Clone, Copy, Default)]
pub(super) struct Marks {
    /// The end token stands behind the last answer alone.
    pub ends_last: bool,
    /// What answers without a thought begin with, and whether thoughts are kept and learnt.
    pub thoughts: Option<bool>,
}

/// The words around a thought.
const THOUGHT: (&str, &str) = ("<think>\n", "\n</think>\n\n");

impl TurnFormat {
    /// The template. With `marks` the answers are marked, with all that stands around them.
    pub fn jinja(&self, default_system: Option<&str>, marks: Option<Marks>) -> String {
        let default = default_system.or(self.default_system);
        let mut out = String::new();
        write_slot(&mut out, self.begin);
        self.write_system(&mut out, default, marks);
        out += "{% for message in turns %}{% set role = message['role'] %}";
        out += match self.trims {
            true => "{% set content = message['content'] | trim %}",
            false => "{% set content = message['content'] %}",
        };
        if self.alternates {
            let tool = if self.tool.is_some() {
                " or role == 'tool'"
            } else {
                ""
            };
            let _ = write!(
                out,
                "{{% if (role == 'user'{tool}) != (loop.index0 % 2 == 0) %}}{{{{ raise_exception(\
                 'turns must alternate between user and assistant') }}}}{{% endif %}}"
            );
        }
        out += "{% if role == 'user' %}";
        self.write_user(&mut out, default);
        if let Some(tool) = self.tool {
            out += "{% elif role == 'tool' %}";
            write_around(&mut out, tool);
        }
        out += "{% elif role == 'assistant' %}";
        match marks {
            Some(marks) => self.write_marked(&mut out, marks),
            None => write_around(&mut out, self.assistant),
        }
        if let (System::Turn(around), None) = (self.system, marks) {
            out += "{% elif role == 'system' %}";
            write_around(&mut out, around);
        }
        out += "{% else %}{{ raise_exception('this template has no turns of ' + role) }}\
                {% endif %}{% endfor %}";
        if marks.is_none() {
            out += "{% if add_generation_prompt %}";
            write_slot(&mut out, self.assistant.0);
            out += "{% endif %}";
        }
        out
    }

    fn write_system(&self, out: &mut String, default: Option<&str>, marks: Option<Marks>) {
        if let System::Refused = self.system {
            *out += "{% set turns = messages %}{% if messages[0]['role'] == 'system' %}\
                     {{ raise_exception('this template has no turns of system') }}{% endif %}";
            return;
        }
        // To LLaMA-Factory an empty text is none; others write it.
        let says = match marks {
            Some(_) => "messages[0]['role'] == 'system' and messages[0]['content']",
            None => "messages[0]['role'] == 'system'",
        };
        *out += "{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}";
        let _ = write!(out, "{{% set has_system = {says} %}}");
        if self.needs_system {
            *out += "{% if not has_system %}{{ raise_exception('the tool has a long system text \
                     of its own for conversations without one: give each one') }}{% endif %}";
        }
        if let System::Turn(around) = self.system {
            self.write_text(out, around, default);
        }
    }

    /// The system's text, or else the default one.
    fn write_text(&self, out: &mut String, around: Around, default: Option<&str>) {
        *out += "{% if has_system %}";
        write_slot(out, around.0);
        // Gemma's own takes a system's text as it is.
        *out += match (self.trims, self.system) {
            (true, System::Turn(_)) => "{{ messages[0]['content'] | trim }}",
            _ => "{{ messages[0]['content'] }}",
        };
        write_slot(out, around.1);
        if let Some(default) = default.filter(|text| !text.is_empty()) {
            *out += "{% else %}";
            write_slot(out, around.0);
            write_literal(out, default);
            write_slot(out, around.1);
        }
        *out += "{% endif %}";
    }

    /// A turn of the user, with the system's text in the first one.
    fn write_user(&self, out: &mut String, default: Option<&str>) {
        write_slot(out, self.user.0);
        if let System::Within(system) = self.system {
            *out += "{% if loop.first %}";
            self.write_text(out, system, default);
            *out += "{% endif %}";
        }
        *out += "{{ content }}";
        write_slot(out, self.user.1);
    }

    fn write_marked(&self, out: &mut String, marks: Marks) {
        let has_none = "'<think>' not in content and '</think>' not in content";
        let empty = format!("{}{}", THOUGHT.0, THOUGHT.1);
        if let Some(false) = marks.thoughts {
            let (begin, end) = (quoted(THOUGHT.0), quoted(THOUGHT.1));
            let _ = write!(
                out,
                "{{% if {begin} in content and {end} in content %}}{{% set content = \
                 content.split({end})[-1].lstrip('\\n') %}}{{% endif %}}{{% if {has_none} %}}"
            );
            write_literal(out, &empty);
            *out += "{% endif %}";
        }
        if marks.ends_last {
            *out += "{% if not loop.last %}{{ raise_exception('the tool learns the end of an \
                     earlier answer in the place of the next question: give each row one answer') \
                     }}{% endif %}";
        }
        *out += "{% generation %}";
        if let Some(true) = marks.thoughts {
            let _ = write!(out, "{{% if {has_none} %}}");
            write_literal(out, &empty);
            *out += "{% endif %}";
        }
        write_around(out, self.assistant);
        if marks.ends_last {
            *out += "{{ eos_token }}";
        }
        *out += "{% endgeneration %}";
    }
}

fn write_around(out: &mut String, around: Around) {
    write_slot(out, around.0);
    *out += "{{ content }}";
    write_slot(out, around.1);
}

/// A text with the tokenizer's own tokens in it.
fn write_slot(out: &mut String, slot: &str) {
    let mut rest = slot;
    while let Some(at) = rest.find('{') {
        let Some((token, after)) = token(&rest[at..]) else {
            break;
        };
        write_literal(out, &rest[..at]);
        let _ = write!(out, "{{{{ {token} }}}}");
        rest = after;
    }
    write_literal(out, rest);
}

fn token(text: &str) -> Option<(&'static str, &str)> {
    let tokens = [("{bos}", "bos_token"), ("{eos}", "eos_token")];
    let mut found = tokens.iter();
    found.find_map(|(slot, name)| Some((*name, text.strip_prefix(slot)?)))
}

fn write_literal(out: &mut String, text: &str) {
    if !text.is_empty() {
        let _ = write!(out, "{{{{ {} }}}}", quoted(text));
    }
}

/// A text as Jinja quotes it.
fn quoted(text: &str) -> String {
    let inner = text.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{}'", inner.replace('\n', "\\n"))
}
