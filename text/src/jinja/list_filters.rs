//! Filters of lists.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::budget::Budget;
use super::fault::{Fault, Made};
use super::operators::{binary, order};
use super::run::Rendering;
use super::syntax::Binary;
use super::text_cases::cased;
use super::value::{Given, Value, key_name};

impl Rendering {
    /// Applies a filter to what a value holds.
    pub fn apply_to_many(&mut self, value: Value, mut given: Given) -> Made<Value> {
        let name = given.name.clone();
        let made = match name.as_str() {
            "first" | "last" => {
                let mut items = value.iterate(&mut self.budget)?;
                let item = match name.as_str() {
                    "first" => items.into_iter().next(),
                    _ => items.pop(),
                };
                let none = || Value::undefined(format!("no {name} item: the sequence was empty"));
                item.unwrap_or_else(none)
            }
            "reverse" => match &value {
                Value::Text(text) => {
                    self.budget.make::<u32>(text.len())?;
                    Value::Text(text.letters().iter().rev().copied().collect())
                }
                other => {
                    let mut items = other.iterate(&mut self.budget)?;
                    items.reverse();
                    Value::once(items)
                }
            },
            "sum" => {
                let attribute = given.take(0, "attribute");
                let mut sum = given.take(1, "start").unwrap_or(Value::Int(0));
                for item in value.iterate(&mut self.budget)? {
                    let item = self.part(&item, attribute.as_ref(), None)?;
                    sum = binary(Binary::Add, &sum, &item, &mut self.budget)?;
                }
                sum
            }
            "batch" | "slice" => self.pieces(&value, &mut given)?,
            "map" => self.map(&value, &mut given)?,
            "select" | "reject" | "selectattr" | "rejectattr" => self.select(&value, &mut given)?,
            "min" | "max" | "sort" | "unique" | "groupby" | "dictsort" => {
                self.ordered(value, &mut given)?
            }
            other => return Err(Fault::new(format!("No filter named '{other}'."))),
        };
        given.finish()?;
        Ok(made)
    }

    /// An attribute of an item, or the item itself where none is named.
    fn part(
        &mut self,
        item: &Value,
        attribute: Option<&Value>,
        default: Option<&Value>,
    ) -> Made<Value> {
        match attribute {
            None | Some(Value::None) => Ok(item.clone()),
            Some(attribute) => self.looked_up(item, attribute, default),
        }
    }

    fn pieces(&mut self, value: &Value, given: &mut Given) -> Made<Value> {
        let is_batch = given.name == "batch";
        let count = given.int(0, if is_batch { "linecount" } else { "slices" })?;
        let fill = given
            .take(1, "fill_with")
            .filter(|fill| !matches!(fill, Value::None));
        let items = value.iterate(&mut self.budget)?;
        let count = count
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count > 0);
        let count = count.ok_or_else(|| Fault::new("batch and slice need a number above 0"))?;
        self.budget
            .make::<Value>(count.saturating_add(items.len()))?;
        let mut pieces: Vec<Vec<Value>> = Vec::new();
        if is_batch {
            pieces.extend(items.chunks(count).map(<[Value]>::to_vec));
            if let (Some(last), Some(fill)) = (pieces.last_mut(), &fill) {
                last.resize(count, fill.clone());
            }
        } else {
            let (each, more) = (items.len() / count, items.len() % count);
            let mut items = items.into_iter();
            for index in 0..count {
                let length = each + usize::from(index < more);
                let mut piece: Vec<Value> = items.by_ref().take(length).collect();
                piece.extend(fill.clone().filter(|_| index >= more));
                pieces.push(piece);
            }
        }
        let lists: Made<Vec<Value>> = pieces.into_iter().map(Value::list).collect();
        Ok(Value::once(lists?))
    }

    fn map(&mut self, value: &Value, given: &mut Given) -> Made<Value> {
        let items = value.iterate(&mut self.budget)?;
        let mut made = Vec::with_capacity(items.len());
        if given.values.is_empty()
            && let Some(attribute) = given.take_named("attribute")
        {
            let default = given.take_named("default");
            for item in &items {
                made.push(self.looked_up(item, &attribute, default.as_ref())?);
            }
            return Ok(Value::once(made));
        }
        let name = given.need_text(0, "filter")?.to_string();
        let values = given.rest();
        let named = std::mem::take(&mut given.named);
        for item in items {
            let own = Given {
                name: name.clone(),
                values: values.iter().cloned().map(Some).collect(),
                named: named.clone(),
            };
            made.push(self.apply(item, own)?);
        }
        Ok(Value::once(made))
    }

    fn select(&mut self, value: &Value, given: &mut Given) -> Made<Value> {
        let keeps = given.name.starts_with("select");
        let attribute = match given.name.ends_with("attr") {
            true => Some(given.need(0, "attribute")?),
            false => None,
        };
        let at = usize::from(attribute.is_some());
        let test = given.text(at, "test")?.map(|test| test.to_string());
        let values = given.rest();
        let named = std::mem::take(&mut given.named);
        let mut kept = Vec::new();
        for item in value.iterate(&mut self.budget)? {
            let part = self.part(&item, attribute.as_ref(), None)?;
            let is_chosen = match &test {
                None => part.is_true(),
                Some(test) => {
                    let own = Given {
                        name: test.clone(),
                        values: values.iter().cloned().map(Some).collect(),
                        named: named.clone(),
                    };
                    self.test(&part, own)?
                }
            };
            if is_chosen == keeps {
                kept.push(item);
            }
        }
        Ok(Value::once(kept))
    }

    /// Filters that compare what a value holds.
    fn ordered(&mut self, value: Value, given: &mut Given) -> Made<Value> {
        let name = given.name.clone();
        let group = match name.as_str() {
            "groupby" => Some(given.need(0, "attribute")?),
            _ => None,
        };
        let first = usize::from(group.is_some());
        let (reverse, by, default) = match name.as_str() {
            "sort" => (given.flag(0, "reverse", false), None, None),
            "dictsort" => (given.flag(2, "reverse", false), given.text(1, "by")?, None),
            "groupby" => (false, None, given.take(first, "default")),
            _ => (false, None, None),
        };
        let place = match name.as_str() {
            "sort" => 1,
            "groupby" => 2,
            _ => 0,
        };
        let minds_case = given.flag(place, "case_sensitive", false);
        let attribute = match (&group, name.as_str()) {
            (None, "dictsort") => {
                let by = by.map_or("key".to_string(), |by| by.to_string());
                match by.as_str() {
                    "key" => Some(Value::Int(0)),
                    "value" => Some(Value::Int(1)),
                    _ => return Err(Fault::new("dictsort: 'by' is 'key' or 'value'")),
                }
            }
            (None, _) => given.take(place + 1, "attribute"),
            (Some(_), _) => group.clone(),
        };
        let items = match (&value, name.as_str()) {
            (Value::Dict(dict), "dictsort") => {
                self.budget.make::<(Value, Value)>(dict.entries().len())?;
                let entries = dict.entries().iter();
                let pairs =
                    entries.map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                pairs.collect::<Made<Vec<Value>>>()?
            }
            (_, "dictsort") => return Err(Fault::new("dictsort: a mapping is expected")),
            _ => value.iterate(&mut self.budget)?,
        };
        let mut keyed = Vec::with_capacity(items.len());
        for item in items {
            let key = self.sort_key(&item, attribute.as_ref(), default.as_ref(), minds_case)?;
            keyed.push((key, item));
        }
        match name.as_str() {
            "unique" => unique(keyed, &mut self.budget),
            "groupby" => {
                self.sort(&mut keyed, false)?;
                self.groups(keyed, attribute.as_ref(), default.as_ref())
            }
            "min" | "max" => {
                let wanted = if name == "min" {
                    Ordering::Less
                } else {
                    Ordering::Greater
                };
                self.extreme(keyed, wanted)
            }
            _ => {
                self.sort(&mut keyed, reverse)?;
                Value::list(keyed.into_iter().map(|(_, item)| item).collect())
            }
        }
    }

    /// What an item is compared by. Several attributes stand between commas.
    fn sort_key(
        &mut self,
        item: &Value,
        attribute: Option<&Value>,
        default: Option<&Value>,
        minds_case: bool,
    ) -> Made<Value> {
        let folded = |value: Value| match value {
            Value::Text(text) if !minds_case => Value::Text(cased(&text, "lower")),
            other => other,
        };
        if let Some(Value::Text(names)) = attribute
            && names.chars().any(|character| character == ',')
        {
            let names = names.to_string();
            let mut keys = Vec::new();
            for name in names.split(',') {
                keys.push(folded(self.looked_up(item, &Value::own(name), default)?));
            }
            return Value::list(keys);
        }
        Ok(folded(self.part(item, attribute, default)?))
    }

    fn sort(&mut self, keyed: &mut [(Value, Value)], reverse: bool) -> Made<()> {
        let looks = keyed
            .iter()
            .map(|(key, _)| 1 + key.cost())
            .fold(0, usize::saturating_add);
        let depth = usize::BITS - keyed.len().leading_zeros();
        self.budget.steps(looks.saturating_mul(depth as usize))?;
        let mut failed = None;
        keyed.sort_by(|(left, _), (right, _)| match order(left, right) {
            Ok(order) if reverse => order.unwrap_or(Ordering::Equal).reverse(),
            Ok(order) => order.unwrap_or(Ordering::Equal),
            Err(fault) => {
                failed = Some(fault);
                Ordering::Equal
            }
        });
        failed.map_or(Ok(()), Err)
    }

    fn extreme(&mut self, keyed: Vec<(Value, Value)>, wanted: Ordering) -> Made<Value> {
        let mut best: Option<(Value, Value)> = None;
        for (key, item) in keyed {
            self.budget.steps(key.cost())?;
            let is_better = match &best {
                None => true,
                Some((known, _)) => order(&key, known)? == Some(wanted),
            };
            if is_better {
                best = Some((key, item));
            }
        }
        let none = || Value::undefined("No aggregated item, sequence was empty.");
        Ok(best.map_or_else(none, |(_, item)| item))
    }

    fn groups(
        &mut self,
        keyed: Vec<(Value, Value)>,
        attribute: Option<&Value>,
        default: Option<&Value>,
    ) -> Made<Value> {
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        for (key, item) in keyed {
            match groups.last_mut() {
                Some((known, items)) if known.equals(&key) => items.push(item),
                _ => groups.push((key, vec![item])),
            }
        }
        let mut made = Vec::new();
        for (_, items) in groups {
            // Its name as the first item has it, in its own case.
            let name = self.part(&items[0], attribute, default)?;
            made.push(Value::tuple(vec![name, Value::list(items)?])?);
        }
        Value::list(made)
    }
}

fn unique(keyed: Vec<(Value, Value)>, budget: &mut Budget) -> Made<Value> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for (key, item) in keyed {
        budget.steps(key.cost())?;
        if seen.insert(key_name(&key)?) {
            kept.push(item);
        }
    }
    Ok(Value::once(kept))
}
