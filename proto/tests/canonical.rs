//! The canonical encoding of every message: one byte string for a value, one value for a byte
//! string, and no byte string that harms its reader.

mod messages;

use concord_proto::canonical::{DecodeError, decode, encode};
use concord_proto::client::ClientRequest;
use concord_proto::moment::{MOMENT_MARK, MomentHeader};
use concord_proto::session::ToCoordinator;
use concord_proto::tensor::TensorHeader;
use concord_proto::*;
use messages::visit::{Message, Visitor, visit_all};
use messages::{Source, Variants};
use proptest::prelude::*;

/// The maker of variant i makes that variant, and its encoding begins with i.
fn makes_all<T: Message + Variants>(make: fn(&mut Source, u64) -> T) {
    for (variant, name) in T::NAMES.iter().enumerate() {
        let value = make(&mut Source::new(1), variant as u64);
        assert_eq!(value.name(), *name, "variant {variant}");
        assert_eq!(encode(&value)[0], variant as u8, "{name}");
    }
}

/// A new variant does not compile until it is listed, and panics here until it has a maker.
#[test]
fn every_variant_has_a_maker() {
    makes_all(Source::sent_up);
    makes_all(Source::sent_down);
    makes_all(Source::client_request);
    makes_all(Source::client_response);
    makes_all(Source::job_event);
    makes_all(|s, variant| s.ledger_entry(variant).event);
    makes_all(Source::conviction);
    makes_all(Source::said_to_stage);
    makes_all(Source::said_by_stage);
    makes_all(Source::answer_verdict);
}

/// decode(encode(x)) == x, and no shorter or longer byte string is accepted.
struct RoundTrip(u64);

impl Visitor for RoundTrip {
    fn visit<T: Message>(&mut self, name: &str, variants: u64, make: fn(&mut Source, u64) -> T) {
        for variant in 0..variants {
            let value = make(&mut Source::new(self.0), variant);
            let bytes = encode(&value);
            assert_eq!(decode::<T>(&bytes).unwrap(), value, "{name} {variant}");
            for length in 0..bytes.len() {
                let cut = decode::<T>(&bytes[..length]);
                assert!(
                    cut.is_err(),
                    "{name} {variant} cut to {length} of {}",
                    bytes.len()
                );
            }
            for extra in [0, 1, 255] {
                let longer = decode::<T>(&[&bytes[..], &[extra]].concat());
                assert!(longer.is_err(), "{name} {variant} with {extra} appended");
            }
        }
    }
}

/// Any bytes give an error, or the one value that they are the encoding of.
struct Hostile<'a>(&'a [u8]);

impl Visitor for Hostile<'_> {
    fn visit<T: Message>(&mut self, name: &str, _: u64, _: fn(&mut Source, u64) -> T) {
        if let Ok(value) = decode::<T>(self.0) {
            assert_eq!(encode(&value), self.0, "{name}");
        }
    }
}

/// Valid messages with one bit flipped give an error or another value.
struct Flipped(u64);

impl Visitor for Flipped {
    fn visit<T: Message>(&mut self, name: &str, variants: u64, make: fn(&mut Source, u64) -> T) {
        let mut source = Source::new(self.0);
        for variant in 0..variants {
            let value = make(&mut source, variant);
            let mut bytes = encode(&value);
            let position = source.u64() as usize % bytes.len();
            bytes[position] ^= 1 << (source.u32() % 8);
            if let Ok(other) = decode::<T>(&bytes) {
                assert_ne!(other, value, "{name} {variant}, byte {position}");
                assert_eq!(encode(&other), bytes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_message_comes_back(seed in any::<u64>()) {
        visit_all(&mut RoundTrip(seed));
    }

    #[test]
    fn a_flipped_bit_is_never_the_same_message(seed in any::<u64>()) {
        visit_all(&mut Flipped(seed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        visit_all(&mut Hostile(&bytes));
        let _ = TensorHeader::split(&bytes);
        let _ = MomentHeader::split(&bytes);
        let _ = MomentHeader::split(&[&MOMENT_MARK[..], &bytes].concat());
    }

    #[test]
    fn hostile_bytes_with_small_tags_never_panic(bytes in prop::collection::vec(0_u8..4, 0..400)) {
        visit_all(&mut Hostile(&bytes));
        let _ = TensorHeader::split(&bytes);
        let _ = MomentHeader::split(&bytes);
        let _ = MomentHeader::split(&[&MOMENT_MARK[..], &bytes].concat());
    }
}

/// A length that claims four billion elements must not be allocated for: of the larger types that
/// would be hundreds of gigabytes, and the process would end here.
#[test]
fn claimed_lengths_take_no_memory() {
    for byte in [0xff, 0x7f, 0x00, 0x01] {
        for length in [4, 5, 36, 100, 1_000] {
            let bytes = vec![byte; length];
            visit_all(&mut Hostile(&bytes));
        }
    }
    // Each type with its own first bytes, up to a place where a list begins, then the claim.
    struct Claimed;
    impl Visitor for Claimed {
        fn visit<T: Message>(&mut self, _: &str, variants: u64, make: fn(&mut Source, u64) -> T) {
            for variant in 0..variants {
                let bytes = encode(&make(&mut Source::new(7), variant));
                for start in 0..bytes.len() {
                    let mut hostile = bytes.clone();
                    hostile[start..]
                        .iter_mut()
                        .take(4)
                        .for_each(|byte| *byte = 0xff);
                    let _ = decode::<T>(&hostile);
                }
            }
        }
    }
    visit_all(&mut Claimed);
}

#[test]
fn what_is_too_long_or_of_another_type_says_so() {
    let long = vec![0; limits::MESSAGE_BYTES_MAX + 1];
    assert!(matches!(
        decode::<Plan>(&long),
        Err(DecodeError::TooLong(_))
    ));
    let error = decode::<Plan>(&[1, 2, 3]).unwrap_err().to_string();
    assert!(error.contains("not an encoding of Plan"), "{error}");
    let not_a_flag = decode::<bool>(&[2]).unwrap_err().to_string();
    assert!(
        not_a_flag.contains("not an encoding of bool"),
        "{not_a_flag}"
    );
}

/// Written out by hand: little-endian numbers, u32 lengths, one-byte variants, nothing else.
#[test]
fn the_encoding_is_what_it_was() {
    assert_eq!(encode(&F32Bits::from(1.0)), [0, 0, 0x80, 0x3f]);
    assert_eq!(encode(&ModelPlace::Layer(258)), [1, 2, 1, 0, 0]);
    assert_eq!(encode(&ModelPlace::EmbedAndHead), [3]);
    assert_eq!(
        encode(&Order::Shuffled { seed: 1 }),
        [1, 1, 0, 0, 0, 0, 0, 0, 0]
    );
    let port = Port {
        kind: PortKind::Partial {
            node: tree::Node { start: 4, end: 6 },
            part: GradientPart::TiedHead,
        },
        digest: Digest([9; 32]),
    };
    let mut bytes = vec![6, 4, 0, 0, 0, 6, 0, 0, 0, 2];
    bytes.extend([9; 32]);
    assert_eq!(encode(&port), bytes);
    let request = ClientRequest::MissingBlobs(vec![Digest([1; 32]), Digest([2; 32])]);
    let mut bytes = vec![0, 2, 0, 0, 0];
    bytes.extend([[1; 32], [2; 32]].concat());
    assert_eq!(encode(&request), bytes);
    let ready = ToCoordinator::Ready {
        job: JobId(Digest([3; 32])),
        epoch: 0x0102_0304,
    };
    let mut bytes = vec![2];
    bytes.extend([3; 32]);
    bytes.extend([4, 3, 2, 1]);
    assert_eq!(encode(&ready), bytes);
    let failed = ToCoordinator::Failed {
        job: JobId(Digest([3; 32])),
        epoch: 0,
        reason: "no".to_string(),
        permanent: true,
    };
    let mut bytes = vec![3];
    bytes.extend([3; 32]);
    bytes.extend([0, 0, 0, 0, 2, 0, 0, 0, b'n', b'o', 1]);
    assert_eq!(encode(&failed), bytes);
}

/// One digest over the encodings of all variants of a type.
struct Golden(Vec<String>);

impl Visitor for Golden {
    fn visit<T: Message>(&mut self, name: &str, variants: u64, make: fn(&mut Source, u64) -> T) {
        let mut hasher = Hasher::new(Domain::Blob);
        for variant in 0..variants {
            for seed in 0..8 {
                hasher.update(&encode(&make(&mut Source::new(seed), variant)));
            }
        }
        self.0.push(format!("{name} {}", hasher.finish().short()));
    }
}

/// A change here changes what is sent, signed or hashed: it needs a new protocol version.
#[test]
fn no_encoding_changes_unnoticed() {
    let mut golden = Golden(Vec::new());
    visit_all(&mut golden);
    assert_eq!(golden.0, GOLDEN);
}

const GOLDEN: [&str; 40] = [
    "ToCoordinator ea1e823e",
    "ToWorker bdb64f7c",
    "ClientRequest 527d1cb6",
    "ClientResponse f1ed6771",
    "JobEvent eb41c59c",
    "LedgerEntry eed9f0f2",
    "Conviction c4e279a9",
    "ToStage b5e9ac37",
    "FromStage 328c84c1",
    "AnswerVerdict 3feb7185",
    "StageAssignment b4e32d1f",
    "StageStreamHello 889c08ed",
    "PassHeader 0cbeaf10",
    "StageClaim a9d60ea5",
    "Receipt 37a5edf6",
    "ReceiptBatch b7cf3673",
    "BatchedReceipt d9084249",
    "FrameHeader 47313d40",
    "JobSpec e55a3809",
    "Plan 15be4340",
    "FirstHalf e0a2a152",
    "Claim e6e01403",
    "Leaf ee78877e",
    "StepRecord 878bed2a",
    "Signed 493752b0",
    "Verdict a62d86c8",
    "Enrolment afb74a6b",
    "Reveal 9f18b132",
    "Scalars 6d92ce85",
    "OpenRequest 5f9f7984",
    "Opening 69cf36fd",
    "AddressChallenge d037e586",
    "AddressProof d037e586",
    "WatchRequest 1cf30067",
    "TensorHeader 03294afc",
    "MomentHeader 3a9b89eb",
    "ModelManifest 28917d97",
    "DataManifest ba4f120b",
    "StateManifest c60210b2",
    "Path 65020185",
];
