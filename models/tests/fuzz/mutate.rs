//! Changes of files, drawn from a seed.

use serde_json::{Map, Value, json};

/// A generator of numbers from a seed.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// A file with some of its first `reach` bytes changed, cut out, doubled, or set to extremes; or
/// one that is cut short.
pub fn bytes(bytes: &[u8], reach: usize, draw: &mut Draw) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + draw.below(4) {
        let at = draw.below(reach.min(bytes.len()));
        match draw.below(7) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][draw.below(5)],
            2 => {
                let end = bytes.len().min(at + 8);
                bytes[at..end].fill([0, 0xff, 0x7f][draw.below(3)]);
            }
            3 => drop(bytes.drain(at..bytes.len().min(at + 1 + draw.below(16)))),
            4 => {
                let some = bytes[at..bytes.len().min(at + 1 + draw.below(16))].to_vec();
                drop(bytes.splice(at..at, some));
            }
            // A part of the file in place of another.
            5 => {
                let from = draw.below(bytes.len());
                let length = (1 + draw.below(32)).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + length, at);
            }
            _ => bytes.truncate(bytes.len() - draw.below(bytes.len().min(64))),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// An object with some of its values changed, taken away, or given to another key.
pub fn object(object: &Value, draw: &mut Draw) -> Value {
    let mut changed = object.clone();
    for _ in 0..1 + draw.below(3) {
        change(&mut changed, draw, 0);
    }
    changed
}

fn change(value: &mut Value, draw: &mut Draw, depth: usize) {
    let Value::Object(map) = value else {
        *value = other(value, draw);
        return;
    };
    let keys: Vec<String> = map.keys().cloned().collect();
    if keys.is_empty() {
        map.insert("x".to_string(), json!(1));
        return;
    }
    let key = keys[draw.below(keys.len())].clone();
    match draw.below(6) {
        0 => drop(map.remove(&key)),
        1 => {
            let from = keys[draw.below(keys.len())].clone();
            map[&key] = map[&from].clone();
        }
        2 => drop(map.insert(format!("{key}_"), json!(1))),
        _ if depth < 4 => change(&mut map[&key], draw, depth + 1),
        _ => map[&key] = Value::Null,
    }
}

/// A value near another, or far from it.
fn other(value: &Value, draw: &mut Draw) -> Value {
    let extremes = [
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(1 << 20),
        json!(u64::MAX),
        json!(1e300),
        json!(1e-45),
        json!(0.5),
        json!(true),
        json!(false),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        Value::Null,
        json!([[[[]]]]),
        json!([1, "a"]),
        json!("\u{0}"),
    ];
    match value {
        Value::Number(number) if draw.below(2) == 0 => {
            let number = number.as_f64().unwrap_or(1.0);
            let near = [
                number + 1.0,
                number - 1.0,
                number * 2.0,
                -number,
                number / 2.0,
            ];
            let near = near[draw.below(near.len())];
            match near.fract() == 0.0 && near.abs() < 1e15 {
                true => json!(near as i64),
                false => json!(near),
            }
        }
        Value::Array(items) if !items.is_empty() && draw.below(2) == 0 => {
            let mut items = items.clone();
            let at = draw.below(items.len());
            items[at] = other(&items[at], draw);
            Value::Array(items)
        }
        Value::Array(items) if draw.below(3) == 0 => {
            Value::Array(items.iter().chain(items).cloned().collect())
        }
        Value::Object(map) => Value::Object(
            map.iter()
                .take(1)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Map<_, _>>(),
        ),
        _ => extremes[draw.below(extremes.len())].clone(),
    }
}
