//! Makes the reference of the API from the tables by which requests are read.

use crate::code::Code;
use crate::fields::{Accepts, CHOICE, Effects, Field, Items, PART, Table};
use crate::options::Limits;
use crate::paths::{Access, PATHS};

const HEAD: &str = "# The API of `concord serve`

<!-- Made from the tables in gateway/src (fields/, paths.rs, code.rs) by the test
     `gateway/tests/reference.rs`: CONCORD_WRITE_DOCS=1 writes it again. -->

Requests and answers are in the shapes of OpenAI, so that its clients work as they are. A request
is read strictly. A field of a wrong type, out of its bounds, not supported or unknown is refused
with a 400 whose `param` names the field; `null` is the same as no field. Unknown fields of objects
*within* a request (messages, tools, formats) change no answer: the request is answered, and the
header `x-concord-ignored` names them.

A server without a key file (`--api-keys`) answers requests without a key. Otherwise the header
`Authorization: Bearer ck-...` is needed on all paths, except those that say so.

A key may have limits on its line: requests a minute (`rpm`), requests at a time (`concurrent`) and
tokens a day in UTC (`tokens_per_day`). The tokens that a request may need are set aside before its
answer begins, on disk too; those that it did not use are released at its end. Tokens that were set
aside when a server was killed count as used.

";

const HEADERS: &str = "
## Headers

| header | where | what |
|---|---|---|
| `Authorization` | request | `Bearer` and a key that `concord key` made |
| `Content-Type` | request | `application/json`, where there is a body |
| `X-Request-Id` | both | the client's name for the request, or else that of the answer |
| `X-Concord-Ignored` | response | fields that changed nothing; at most 16, then their number |
| `Retry-After` | response | seconds after which a retry may succeed |
| `X-Should-Retry` | response | `false` where a retry would not help |

";

/// The reference of the API, as Markdown: paths, fields with types and bounds, headers, errors and
/// limits.
///
/// ```
/// let reference = concord_gateway::api_reference();
/// assert!(reference.contains("| `temperature` | number from 0 to 2 |"));
/// ```
pub fn api_reference() -> String {
    let mut text = HEAD.to_string();
    paths(&mut text);
    text.push_str(HEADERS);
    for api_path in PATHS {
        if let Some(fields) = api_path.fields {
            line(&mut text, &format!("## `{}`\n", api_path.path));
            object(&mut text, fields, "");
        }
    }
    errors(&mut text);
    limits(&mut text);
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn row(text: &mut String, cells: &[&str]) {
    line(text, &format!("| {} |", cells.join(" | ")));
}

fn paths(text: &mut String) {
    line(text, "## Paths\n");
    row(text, &["path", "needs", "what"]);
    line(text, "|---|---|---|");
    for api_path in PATHS {
        let needs = match api_path.access {
            Access::Open => "nothing",
            Access::Key => "a key",
            Access::Admin => "an admin's key",
        };
        let path = format!("`{} {}`", api_path.method, api_path.path);
        row(text, &[&path, needs, api_path.about]);
    }
}

/// The fields of an object at the path `at`, then those of the objects within it.
fn object(text: &mut String, table: Table, at: &str) {
    if !at.is_empty() {
        line(text, &format!("### `{at}`\n"));
    }
    let all = || table.iter().flat_map(|fields| fields.iter());
    fields(text, all().filter(|field| field.effect == Effects::Some));
    let idle = |field: &&Field| field.effect == Effects::None && !is_refused(field);
    if all().any(|field| idle(&field)) {
        line(text, "Fields that are read and change no answer:\n");
        fields(text, all().filter(idle));
    }
    refused(text, all().filter(|field| is_refused(field)));
    for field in all() {
        let path = match at {
            "" => field.name.to_string(),
            at => format!("{at}.{}", field.name),
        };
        match field.takes {
            Accepts::Object(inner) => object(text, inner, &path),
            Accepts::List(_, Items::Objects(inner)) => object(text, inner, &format!("{path}[]")),
            _ => {}
        }
        match path.as_str() {
            "messages[].content" | "content" => object(text, PART, &format!("{path}[]")),
            "tool_choice" => object(text, CHOICE, &path),
            _ => {}
        }
    }
}

fn is_refused(field: &Field) -> bool {
    matches!(field.takes, Accepts::Only(_) | Accepts::Never(_))
}

fn fields<'a>(text: &mut String, fields: impl Iterator<Item = &'a Field>) {
    row(text, &["field", "takes", "what"]);
    line(text, "|---|---|---|");
    for field in fields {
        let name = format!("`{}`", field.name);
        row(text, &[&name, &takes(field.takes), field.about]);
    }
    text.push('\n');
}

fn refused<'a>(text: &mut String, fields: impl Iterator<Item = &'a Field>) {
    let say = |field: &Field| match field.takes {
        Accepts::Only("null") => format!("`{}`", field.name),
        Accepts::Only(value) => format!("`{}` (but {value})", field.name),
        Accepts::Never(instead) => {
            format!("`{}` (use {})", field.name, instead.replace('\'', "`"))
        }
        _ => String::new(),
    };
    let all: Vec<String> = fields.map(say).collect();
    if !all.is_empty() {
        let mut column = 0;
        let mut words = String::from("Refused:");
        column += words.len();
        for (index, one) in all.iter().enumerate() {
            let end = if index + 1 == all.len() { "." } else { "," };
            let width = one.len() + 1 + end.len();
            let space = if column + width > 100 { '\n' } else { ' ' };
            column = if space == '\n' { width } else { column + width };
            words.push(space);
            words.push_str(one);
            words.push_str(end);
        }
        line(text, &words);
        text.push('\n');
    }
}

/// What a field accepts, as text.
fn takes(takes: Accepts) -> String {
    match takes {
        Accepts::Text => "string".to_string(),
        Accepts::Flag => "boolean".to_string(),
        Accepts::Number(low, high) => format!("number from {low} to {high}"),
        Accepts::Integer(low, high) if high == i64::from(u32::MAX) => {
            format!("integer from {low} to 2^32 - 1")
        }
        Accepts::Integer(low, high) => format!("integer from {low} to {high}"),
        Accepts::Count(most) => format!("integer from 1 to {}", most(&Limits::default())),
        Accepts::List(most, Items::Objects(_)) => format!("array of at most {most} objects"),
        Accepts::List(most, Items::Other(what)) => format!("array of at most {most} {what}"),
        Accepts::Object(_) | Accepts::Map => "object".to_string(),
        Accepts::Other(what) => what.to_string(),
        Accepts::Only(value) => format!("only {value}"),
        Accepts::Never(_) => "nothing".to_string(),
    }
}

fn errors(text: &mut String) {
    line(text, "## Errors\n");
    line(
        text,
        "Errors have OpenAI's shape: an object `error` with `message`, `type`, `param` and\n\
         `code`. In a stream that has begun an error is the last event, with the usage so far.\n",
    );
    row(text, &["code", "status", "what"]);
    line(text, "|---|---|---|");
    for code in Code::ALL {
        let name = format!("`{}`", code.as_str());
        row(text, &[&name, code.status().as_str(), code.about()]);
    }
    text.push('\n');
}

fn limits(text: &mut String) {
    let limits = Limits::default();
    line(text, "## Limits\n");
    row(text, &["what", "at most"]);
    line(text, "|---|---|");
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    for (what, most) in [
        ("bytes of a body", limits.body_bytes.to_string()),
        (
            "bytes of all bodies that are being read",
            limits.bodies_bytes.to_string(),
        ),
        ("connections at a time", limits.connections.to_string()),
        (
            "until the header of a request is there",
            seconds(limits.header_time),
        ),
        (
            "until the body of a request is there",
            seconds(limits.body_time),
        ),
        (
            "requests of a key at a time, unless its line says more",
            limits.concurrent.to_string(),
        ),
        ("answers to a prompt (`n`)", limits.choices.to_string()),
        (
            "answers of a request (prompts times `n`)",
            limits.generations.to_string(),
        ),
        ("stop texts", limits.stops.to_string()),
        ("levels of nested JSON", limits.json_depth.to_string()),
    ] {
        row(text, &[what, &most]);
    }
}
