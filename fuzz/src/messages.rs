//! Messages. The first byte of an input says of which type it should be, the others are the
//! message.

use concord_models::train::Moment;
use concord_proto::SequenceEntry;
use concord_proto::TrainingSequence;
use concord_proto::canonical::{decode, encode};
use concord_verify::training::WorkerClaim;
use concord_verify::training::bundle::StepClaims;
use concord_verify::training::heads::KeptHead;

use crate::made::Source;
use crate::made::visit::{Message, Visitor, visit_all};
use crate::{moment_blob, seeds, tensor_blob};

/// The first byte of an input that is a blob of numbers.
const NUMBERS: u8 = 254;
/// That of one that is a sequence behind its entry of the manifest.
const SEQUENCE: u8 = 255;

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

/// Shows every type: the messages, and what stands in files of proofs.
fn visit(visitor: &mut impl Visitor) {
    visit_all(visitor);
    visitor.visit("KeptHead", 1, |source, _| KeptHead {
        job: source.job(),
        head: source.signed(),
        findings: vec![source.signed()],
    });
    visitor.visit("WorkerClaim", 1, |source, _| worker_claim(source));
    visitor.visit("StepClaims", 1, |source, _| StepClaims {
        step: source.u32(),
        scalars: source.scalars(),
        claims: vec![worker_claim(source)],
    });
}

fn worker_claim(source: &mut Source) -> WorkerClaim {
    WorkerClaim {
        first_half: source.signed(),
        claim: source.signed(),
        leaves: vec![source.leaf()],
    }
}

/// Writes the first inputs.
pub fn write_seeds() {
    let mut seeds = Seeds {
        which: 0,
        inputs: Vec::new(),
    };
    visit(&mut seeds);
    assert!(seeds.which < NUMBERS);
    let sequence = TrainingSequence::whole(vec![3, 4, 5], vec![0, 1, 1]);
    let sequence = [
        &[SEQUENCE],
        &encode(&sequence.entry())[..],
        &sequence.encode(),
    ]
    .concat();
    seeds::write("messages", seeds.inputs.into_iter().chain([sequence]));
}

/// Reads an input: it is refused, or the one encoding of a value.
///
/// # Panics
/// Where it is another encoding of the value.
pub fn read(input: &[u8]) {
    let Some((which, message)) = input.split_first() else {
        return;
    };
    match *which {
        NUMBERS => read_numbers(message),
        SEQUENCE => read_sequence(message),
        which => visit(&mut Read {
            which,
            next: 0,
            message,
        }),
    }
}

/// Numbers take no more memory than a small multiple of their bytes.
fn read_numbers(blob: &[u8]) {
    const STORED_MAX: u64 = 1 << 16;
    if let Ok(tensor) = tensor_blob::decode(blob) {
        assert!(tensor.data().len() <= blob.len());
    }
    if let Ok(tensor) = tensor_blob::decode_stored(blob, STORED_MAX) {
        assert!(tensor.data().len() as u64 <= STORED_MAX);
    }
    if let Ok(tensors) = tensor_blob::decode_all(blob) {
        let count: usize = tensors.iter().map(|(_, tensor)| tensor.data().len()).sum();
        assert!(count <= blob.len());
    }
    if let Ok(Moment::F32(tensor)) = moment_blob::decode(blob) {
        assert!(tensor.data().len() <= blob.len());
    }
}

/// A sequence that fits its entry has one encoding.
fn read_sequence(bytes: &[u8]) {
    // A digest and three counts.
    let Some((entry, bytes)) = bytes.split_at_checked(32 + 3 * 4) else {
        return;
    };
    let entry: SequenceEntry = decode(entry).expect("any bytes are an entry");
    if let Ok(sequence) = TrainingSequence::decode(bytes, &entry) {
        assert_eq!(sequence.encode(), bytes);
    }
}
