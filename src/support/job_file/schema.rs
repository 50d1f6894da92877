//! `concord train --schema`: the keys of a job file as a JSON schema, for editors.

use serde_json::{Map, Value, json};

use super::known::{Absent, Allowed, Ends, Key, Section};

/// The schema (draft 2020-12).
pub fn schema() -> Value {
    let mut schema = object(Section::Job);
    let title = json!("A job file of Concord");
    let draft = json!("https://json-schema.org/draft/2020-12/schema");
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".to_string(), draft);
        map.insert("title".to_string(), title);
        let steps = json!([{ "required": ["max_steps"] }, { "required": ["num_epochs"] }]);
        map.insert("anyOf".to_string(), steps);
    }
    schema
}

fn object(section: Section) -> Value {
    let properties: Map<String, Value> = section
        .keys()
        .map(|key| (key.name.to_string(), property(key)))
        .collect();
    let needed = section
        .keys()
        .filter(|key| matches!(key.absent, Absent::Refused));
    let needed: Vec<&str> = needed.map(|key| key.name).collect();
    json!({
        "type": "object", "properties": properties, "required": needed,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut property = allowed(key);
    let Value::Object(map) = &mut property else {
        return property;
    };
    let words = match key.absent {
        Absent::Means(words) => format!("{}; without it: {words}", key.meaning),
        _ => key.meaning.to_string(),
    };
    map.insert("description".to_string(), json!(words));
    if let Absent::Is(default) = key.absent {
        let default = serde_yaml_ng::from_str::<Value>(default).unwrap_or_default();
        map.insert("default".to_string(), default);
    }
    property
}

fn allowed(key: &Key) -> Value {
    match key.allowed {
        Allowed::Text | Allowed::Path | Allowed::Model => {
            json!({ "type": "string", "minLength": 1 })
        }
        Allowed::Names => json!({ "type": "array", "items": { "type": "string" } }),
        Allowed::Flag => json!({ "type": "boolean" }),
        Allowed::Modules | Allowed::NameOrNames => json!({ "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" }, "minItems": 1 },
        ] }),
        Allowed::Layers => {
            let index = json!({ "type": "integer", "minimum": 0 });
            json!({ "anyOf": [index, { "type": "array", "items": index, "minItems": 1 }] })
        }
        Allowed::Ranks => {
            let rank = json!({ "type": "integer", "minimum": 1 });
            json!({ "type": "object", "additionalProperties": rank })
        }
        Allowed::Alphas => {
            let alpha = json!({ "type": "number", "exclusiveMinimum": 0 });
            json!({ "type": "object", "additionalProperties": alpha })
        }
        Allowed::Words(words) => json!({ "enum": words }),
        Allowed::Whole(first, last) => {
            json!({ "type": "integer", "minimum": first, "maximum": last })
        }
        Allowed::WholeOr(first, last, word) => json!({ "anyOf": [
            { "type": "integer", "minimum": first, "maximum": last }, { "const": word },
        ] }),
        Allowed::Seed => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
        Allowed::Positive => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Allowed::ShareOrCount => json!({ "type": "number", "minimum": 0 }),
        Allowed::NotNegative => json!({ "type": "number", "minimum": 0 }),
        Allowed::Share(Ends::Lower) => {
            json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 })
        }
        Allowed::Share(Ends::Upper) => {
            json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 })
        }
        Allowed::Share(Ends::Both) => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Allowed::Bits => json!({ "enum": [8, 14, 16] }),
        Allowed::Shares => {
            let share = json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 });
            json!({ "type": "array", "items": share, "minItems": 2 })
        }
        Allowed::Mappings => json!({ "type": "array", "items": object(Section::Dataset) }),
        Allowed::Mapping if key.name == "precision" => object(Section::Precision),
        // Their keys are names that the data and the template give.
        Allowed::Mapping => json!({ "type": "object" }),
    }
}
