//! A machine for pickles that makes values and calls nothing.
//!
//! Values lie in one list and name each other by their place in it, so that a pickle whose values
//! hold each other, or itself, is as flat as any.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::{AGAIN, PICKLE_MAX, SAVE_AGAIN, STEPS_MAX};
use crate::json::shown;

/// The place of a value.
pub(super) type Id = usize;

/// A value, as far as tensors are made of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A number or bytes that no tensor is made of.
    Other,
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// Numbers of a type, by their key, and how many there are.
    Storage {
        dtype: Dtype,
        key: &'a str,
        count: i64,
    },
    /// A view of a storage: the first number, sizes and strides.
    Tensor {
        storage: Id,
        offset: i64,
        sizes: Id,
        strides: Id,
    },
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

/// The names that a pickle may have.
const GLOBALS: [(&str, Global); 13] = [
    ("collections OrderedDict", Global::OrderedDict),
    ("torch._utils _rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils _rebuild_parameter", Global::RebuildParameter),
    ("torch FloatStorage", Global::Storage(Dtype::F32)),
    ("torch HalfStorage", Global::Storage(Dtype::F16)),
    ("torch BFloat16Storage", Global::Storage(Dtype::BF16)),
    ("torch DoubleStorage", Global::Storage(Dtype::F64)),
    ("torch LongStorage", Global::Storage(Dtype::I64)),
    ("torch IntStorage", Global::Storage(Dtype::I32)),
    ("torch ShortStorage", Global::Storage(Dtype::I16)),
    ("torch CharStorage", Global::Storage(Dtype::I8)),
    ("torch ByteStorage", Global::Storage(Dtype::U8)),
    ("torch BoolStorage", Global::Storage(Dtype::BOOL)),
];

/// What a pickle comes to.
#[derive(Debug)]
pub(super) struct Values<'a> {
    all: Vec<Value<'a>>,
    /// The value of the whole.
    pub(super) root: Id,
}

impl<'a> Values<'a> {
    pub(super) fn all(&self) -> impl Iterator<Item = &Value<'a>> {
        self.all.iter()
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        self.all.get(id).unwrap_or(&Value::None)
    }
}

/// Follows a pickle to its end, and says where that is.
///
/// # Errors
/// What cannot be followed, and what to do.
pub(super) fn run(pickle: &[u8]) -> Result<(Values<'_>, usize), String> {
    let mut machine = Machine {
        pickle: &pickle[..pickle.len().min(PICKLE_MAX)],
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    for _ in 0..STEPS_MAX {
        let start = machine.at;
        let place = |reason| format!("its pickle, at byte {start}, {reason}");
        let code = machine.take(1).map_err(place)?[0];
        if code == b'.' {
            let root = machine.pop().map_err(place)?;
            let values = Values {
                all: machine.values,
                root,
            };
            return Ok((values, machine.at));
        }
        machine.step(code).map_err(place)?;
    }
    Err(format!(
        "its pickle takes more than {STEPS_MAX} steps: {SAVE_AGAIN}"
    ))
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            // Protocol and frames say nothing of values.
            0x80 => self.take(1).map(|_| ()),
            0x95 => self.take(8).map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool(code == 0x88)),
            b'J' | b'K' | b'M' | 0x8a => self.int(code),
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)
            }
            b'X' | 0x8c | 0x8d | b'T' | b'U' => self.text(code),
            b'B' | b'C' => {
                let length = self.length(if code == b'C' { 1 } else { 4 })?;
                self.take(length)?;
                self.push(Value::Other)
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.marked()?;
                self.push(Value::Tuple(items))
            }
            0x85..=0x87 => {
                let items = self.top(usize::from(code - 0x84))?;
                self.push(Value::Tuple(items))
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory(code),
            b'c' | 0x93 => self.global(code),
            b'Q' => self.persistent(),
            b'R' => self.call(),
            b'b' => self.build(),
            b's' | b'u' | b'a' | b'e' => self.put(code),
            other => Err(format!(
                "has the step {other:#04x}, which no dictionary of tensors needs: {SAVE_AGAIN}"
            )),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.pickle.get(self.at..end));
        let taken = taken.ok_or_else(|| format!("is cut short; {AGAIN}"))?;
        self.at += count;
        Ok(taken)
    }

    /// A length in so many bytes, little-endian.
    fn length(&mut self, bytes: usize) -> Result<usize, String> {
        let word = self.take(bytes)?;
        let number = word
            .iter()
            .rev()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    /// A text up to the end of a line.
    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.pickle[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| format!("names something without an end; {AGAIN}"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| format!("has a broken name; {AGAIN}"))
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let is_above = self.stack.len() > self.marks.last().copied().unwrap_or(0);
        let top = is_above.then(|| self.stack.pop()).flatten();
        top.ok_or_else(|| format!("takes a value where there is none; {AGAIN}"))
    }

    /// The topmost values, in their order.
    fn top(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        Ok(items)
    }

    /// The values since the last mark.
    fn marked(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| format!("looks for a mark where there is none; {AGAIN}"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn int(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'J' => {
                let word = self.take(4)?;
                i64::from(i32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            }
            b'K' => self.length(1)? as i64,
            b'M' => self.length(2)? as i64,
            _ => {
                let count = self.length(1)?;
                let bytes = self.take(count)?;
                if bytes.len() > 8 {
                    return self.push(Value::Other);
                }
                // Two's complement of just these bytes.
                let sign = bytes
                    .last()
                    .map_or(0, |byte| if byte & 0x80 == 0 { 0 } else { 0xff });
                let mut word = [sign; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                i64::from_le_bytes(word)
            }
        };
        self.push(Value::Int(value))
    }

    fn text(&mut self, code: u8) -> Result<(), String> {
        let length = self.length(match code {
            0x8c | b'U' => 1,
            0x8d => 8,
            _ => 4,
        })?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| format!("has a text that is not UTF-8; {AGAIN}"))?;
        self.push(Value::Text(text))
    }

    fn memory(&mut self, code: u8) -> Result<(), String> {
        let key = match code {
            b'q' | b'h' => self.length(1)?,
            b'r' | b'j' => self.length(4)?,
            _ => self.memo.len(),
        } as u32;
        if matches!(code, b'h' | b'j') {
            let known = self.memo.get(&key).copied();
            let known = known.ok_or_else(|| format!("recalls what it never kept; {AGAIN}"))?;
            self.stack.push(known);
            return Ok(());
        }
        let top = self.pop()?;
        self.stack.push(top);
        self.memo.insert(key, top);
        Ok(())
    }

    fn global(&mut self, code: u8) -> Result<(), String> {
        let [module, name] = match code {
            b'c' => [self.line()?, self.line()?],
            _ => {
                let ids = self.top(2)?;
                let text = |id: &Id| match self.values[*id] {
                    Value::Text(text) => text,
                    _ => "",
                };
                [text(&ids[0]), text(&ids[1])]
            }
        };
        let named = format!("{module} {name}");
        let known = GLOBALS.iter().find(|(known, _)| *known == named);
        let Some((_, global)) = known else {
            return Err(format!(
                "names `{}`, which could run code: only tensors are read. Where you trust the \
                 file, {SAVE_AGAIN}",
                shown(format!("{module}.{name}"))
            ));
        };
        self.push(Value::Global(*global))
    }

    /// A storage: `("storage", its type, its key, its device, how many numbers)`; in old files the
    /// view that it may be follows, which none is.
    fn persistent(&mut self) -> Result<(), String> {
        let bad = || format!("has a storage of another form; {AGAIN}");
        let id = self.pop()?;
        let Value::Tuple(items) = &self.values[id] else {
            return Err(bad());
        };
        let items: Vec<&Value<'a>> = items.iter().map(|id| &self.values[*id]).collect();
        let storage = match items.as_slice() {
            [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                Value::Text(_),
                Value::Int(count),
            ]
            | [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                Value::Text(_),
                Value::Int(count),
                Value::None,
            ] => Value::Storage {
                dtype: *dtype,
                key,
                count: *count,
            },
            _ => return Err(bad()),
        };
        self.push(storage)
    }

    /// Of what may be called, the value that torch makes.
    fn call(&mut self) -> Result<(), String> {
        let ids = self.top(2)?;
        let bad = || format!("calls something in another way than torch; {AGAIN}");
        let (Value::Global(global), Value::Tuple(arguments)) =
            (&self.values[ids[0]], &self.values[ids[1]])
        else {
            return Err(bad());
        };
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            (Global::RebuildTensor, &[storage, offset, sizes, strides, _, _, ..]) => {
                let (Value::Storage { .. }, Value::Int(offset)) =
                    (&self.values[storage], &self.values[offset])
                else {
                    return Err(bad());
                };
                let offset = *offset;
                self.push(Value::Tensor {
                    storage,
                    offset,
                    sizes,
                    strides,
                })
            }
            (Global::RebuildParameter, &[tensor, _, _]) => {
                self.stack.push(tensor);
                Ok(())
            }
            _ => Err(bad()),
        }
    }

    /// What an ordered dictionary has beside its items says nothing of tensors: the versions of
    /// modules (`_metadata`).
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        let id = self.pop()?;
        self.stack.push(id);
        match self.values[id] {
            Value::Dict(_) => Ok(()),
            _ => Err(format!(
                "gives a state to something else than a dictionary; {SAVE_AGAIN}"
            )),
        }
    }

    /// Items of a list or a dictionary.
    fn put(&mut self, code: u8) -> Result<(), String> {
        let items = match code {
            b's' => self.top(2)?,
            b'a' => self.top(1)?,
            _ => self.marked()?,
        };
        let id = self.pop()?;
        self.stack.push(id);
        match (code, &mut self.values[id]) {
            (b's' | b'u', Value::Dict(pairs)) => {
                let (of_two, []) = items.as_chunks::<2>() else {
                    return Err(format!("has a key without a value; {AGAIN}"));
                };
                pairs.extend(of_two.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            (b'a' | b'e', Value::List(list)) => {
                list.extend(items);
                Ok(())
            }
            _ => Err(format!("puts items where none can be; {AGAIN}")),
        }
    }
}
