//! Proofs, what parties keep of them, and receipts. The first byte of an input says what it is.
//!
//! Most of what a proof has is signed, so that a change of its bytes is refused at once. Some
//! inputs are therefore what is signed, and are signed here: a liar who has all keys.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use concord_gateway::receipt_file;
use concord_proto::canonical::{decode, encode};
use concord_proto::ledger::{LedgerEntry, LedgerEvent, Verdict};
use concord_proto::serving::Receipt;
use concord_proto::{Conviction, Digest, Domain, Keypair, PublicKey, Signed};
use concord_verify::serving::CheckedReceipt;
use concord_verify::training::bundle::{Bundle, FILES, from_blob, to_blob, verify};
use concord_verify::training::heads::{KeptHead, compare};

use crate::fixture::{COORDINATOR, Story, key, sealed, spec};
use crate::made::Source;
use crate::seeds;

/// Events of a ledger that are signed of one input.
const EVENTS_MAX: usize = 200;

/// Every key of the fixture, by its public half.
static KEYS: LazyLock<BTreeMap<PublicKey, Keypair>> = LazyLock::new(|| {
    let keys = (0..=u8::MAX).map(key);
    keys.map(|key| (key.public(), key)).collect()
});

static HONEST: LazyLock<Bundle> = LazyLock::new(|| Story::honest().bundle());

/// What an input is.
#[derive(Clone, Copy)]
enum Given {
    /// The files of a proof in one blob.
    Blob,
    /// One file of a proof whose others are right.
    File(usize),
    /// The events of a ledger, to be signed.
    Events,
    /// What a party has kept.
    Kept,
    /// An entry that it has kept and its findings, to be signed.
    KeptParts,
    /// A receipt, to be signed.
    Receipt,
    /// The JSON of a receipt.
    ReceiptFile,
}

const GIVEN: [Given; 13] = [
    Given::Blob,
    Given::File(0),
    Given::File(1),
    Given::File(2),
    Given::File(3),
    Given::File(4),
    Given::File(5),
    Given::File(6),
    Given::Events,
    Given::Kept,
    Given::KeptParts,
    Given::Receipt,
    Given::ReceiptFile,
];

/// Writes the first inputs.
pub fn write_seeds() {
    let mut inputs = Vec::new();
    for story in [Story::honest(), Story::honest_again()] {
        let files = story.bundle().files();
        for (given, which) in GIVEN.iter().zip(0_u8..) {
            let inner = match given {
                Given::Blob => to_blob(&files),
                Given::File(index) => files[*index].1.clone(),
                Given::Events => encode(&story.events),
                Given::Kept => encode(&kept(&story)),
                Given::KeptParts => encode(&parts(&kept(&story))),
                Given::Receipt => encode(&Source::new(1).receipt()),
                Given::ReceiptFile => {
                    let signed = Signed::new(&key(COORDINATOR), &Source::new(1).receipt());
                    let json = receipt_file::to_json(&signed).expect("a signed receipt");
                    json.to_string().into_bytes()
                }
            };
            inputs.push([&[which], &inner[..]].concat());
        }
    }
    seeds::write("bundle", inputs.into_iter());
}

/// What the checker of a story keeps: the newest entry, and all verdicts.
fn kept(story: &Story) -> KeptHead {
    let verdicts = story.events.iter().filter_map(|event| match event {
        LedgerEvent::Judged { verdict } => Some(verdict.clone()),
        _ => None,
    });
    KeptHead {
        job: spec().id(),
        head: sealed(&story.events).pop().expect("an entry"),
        findings: verdicts.collect(),
    }
}

fn parts(kept: &KeptHead) -> (LedgerEntry, Vec<Verdict>) {
    let verdicts = kept
        .findings
        .iter()
        .map(|one| one.open().expect("a verdict"));
    (kept.head.open().expect("an entry"), verdicts.collect())
}

/// Signs a statement again, where its signer is known here.
fn sign(signed: &mut Signed) {
    if let Some(key) = KEYS.get(&signed.signer) {
        signed.signature = key.sign(&Digest::of(Domain::Signature, &signed.body));
    }
}

/// Signs everything again that stands in an event.
fn sign_within(event: &mut LedgerEvent) {
    match event {
        LedgerEvent::Auditing { enrolment: signed }
        | LedgerEvent::Revealed { reveal: signed }
        | LedgerEvent::Judged { verdict: signed } => sign(signed),
        LedgerEvent::Convicted { conviction, .. } => match &mut **conviction {
            Conviction::WrongResult { claimed, .. } | Conviction::Equivocation { claimed, .. } => {
                sign(&mut claimed.half);
            }
            Conviction::FalseVerdict {
                verdict, claimed, ..
            } => {
                sign(verdict);
                sign(&mut claimed.half);
            }
            Conviction::BrokenRule { first, second, .. } => {
                sign(&mut first.signed);
                second.iter_mut().for_each(|half| sign(&mut half.signed));
            }
        },
        _ => {}
    }
}

/// Verifies a proof: a refusal names one of its files.
fn check(bundle: &Bundle) {
    if let Err(error) = verify(bundle) {
        assert!(FILES.contains(&error.file.as_str()), "{error}");
    }
}

fn check_files(files: &[(String, Vec<u8>)]) {
    let Ok(bundle) = Bundle::from_files(files) else {
        return;
    };
    let named = |name: &str| files.iter().find(|(other, _)| other == name);
    for (name, bytes) in bundle.files() {
        assert_eq!(named(&name).map(|(_, given)| given), Some(&bytes), "{name}");
    }
    check(&bundle);
    let _ = bundle.result_claims();
    let _ = bundle.state_after(bundle.claims.len() as u32);
}

fn check_receipt(signed: &Signed) {
    let _ = CheckedReceipt::open(signed, None);
    let Ok(json) = receipt_file::to_json(signed) else {
        return;
    };
    let back = receipt_file::from_json(&json.to_string());
    assert_eq!(back.ok().as_ref(), Some(signed));
}

/// Reads an input: it is refused, or has one encoding.
///
/// # Panics
/// Where it is neither.
pub fn read(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    match GIVEN[usize::from(*which) % GIVEN.len()] {
        Given::Blob => {
            if let Ok(files) = from_blob(bytes) {
                check_files(&files);
            }
        }
        Given::File(index) => {
            let mut files = HONEST.files();
            files[index].1 = bytes.to_vec();
            check_files(&files);
        }
        Given::Events => {
            if let Ok(mut events) = decode::<Vec<LedgerEvent>>(bytes) {
                events.truncate(EVENTS_MAX);
                events.iter_mut().for_each(sign_within);
                check(&Bundle {
                    ledger: sealed(&events),
                    ..HONEST.clone()
                });
            }
        }
        Given::Kept => {
            if let Ok(kept) = decode::<KeptHead>(bytes) {
                let _ = compare(&HONEST, &kept);
            }
        }
        Given::KeptParts => {
            if let Ok((entry, verdicts)) = decode::<(LedgerEntry, Vec<Verdict>)>(bytes) {
                let signed = verdicts
                    .iter()
                    .map(|one| Signed::new(&key(COORDINATOR), one));
                let kept = KeptHead {
                    job: spec().id(),
                    head: Signed::new(&key(COORDINATOR), &entry),
                    findings: signed.collect(),
                };
                let _ = compare(&HONEST, &kept);
            }
        }
        Given::Receipt => {
            if let Ok(receipt) = decode::<Receipt>(bytes) {
                check_receipt(&Signed::new(&key(COORDINATOR), &receipt));
            }
        }
        Given::ReceiptFile => {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(signed) = receipt_file::from_json(&text) {
                check_receipt(&signed);
            }
        }
    }
}
