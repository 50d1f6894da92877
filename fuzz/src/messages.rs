//! Messages. The first byte of an input says of which type it should be, the others are the
//! message.

use concord_proto::canonical::{decode, encode};
use concord_proto::tensor::TensorHeader;

use crate::made::Source;
use crate::made::visit::{Message, Visitor, visit_all};
use crate::seeds;

/// A message of every variant of every type.
struct Seeds {
    which: u8,
    inputs: Vec<Vec<u8>>,
}

impl Visitor for Seeds {
    fn visit<T: Message>(&mut self, _: &str, variants: u64, make: fn(&mut Source, u64) -> T) {
        for variant in 0..variants {
            let message = encode(&make(&mut Source::new(1), variant));
            self.inputs.push([&[self.which], &message[..]].concat());
        }
        self.which += 1;
    }
}

/// The message that an input is.
struct Read<'a> {
    /// The type that it should be, and the one that is shown next.
    which: u8,
    next: u8,
    message: &'a [u8],
}

impl Visitor for Read<'_> {
    fn visit<T: Message>(&mut self, name: &str, _: u64, _: fn(&mut Source, u64) -> T) {
        if self.next == self.which
            && let Ok(value) = decode::<T>(self.message)
        {
            assert_eq!(encode(&value), self.message, "{name}");
        }
        self.next += 1;
    }
}

/// Writes the first inputs.
pub fn write_seeds() {
    let mut seeds = Seeds {
        which: 0,
        inputs: Vec::new(),
    };
    visit_all(&mut seeds);
    seeds::write("messages", seeds.inputs.into_iter());
}

/// Reads an input: it is refused, or the one encoding of a value.
///
/// # Panics
/// Where it is another encoding of the value.
pub fn read(input: &[u8]) {
    let Some((which, message)) = input.split_first() else {
        return;
    };
    visit_all(&mut Read {
        which: *which,
        next: 0,
        message,
    });
    let _ = TensorHeader::split(message);
}
