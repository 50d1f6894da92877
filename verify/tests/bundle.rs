//! Bundles: a valid one passes, and no byte of it can be changed.

mod fixture;
#[allow(dead_code)]
#[path = "../../examples/verify_bundle.rs"]
mod verify_bundle;

use concord_verify::training::bundle::{
    Bundle, BundleError, FILES, VerifyError, from_blob, to_blob, verify,
};
use fixture::*;
use proptest::prelude::*;

/// Reads and verifies a bundle.
fn check(files: &[(String, Vec<u8>)]) -> Result<(), VerifyError> {
    verify(&Bundle::from_files(files)?).map(|_| ())
}

#[test]
fn a_right_bundle_holds_and_says_what_it_shows() {
    let story = Story::honest();
    let report = verify(&story.bundle()).unwrap();
    assert_eq!(report.job, spec().id());
    assert_eq!(report.steps, 2);
    assert_eq!(report.record, story.records[1].digest());
    assert_eq!(report.coordinator, id(COORDINATOR));
    assert_eq!(report.workers.len(), 4);
    let mut convicted = [id(LIAR), id(LAZY)];
    convicted.sort_unstable();
    assert_eq!(report.convicted, convicted);
    // Two workers of two microbatches and two of one: 2 * (7 + 5) leaves a step.
    assert_eq!(report.leaves, 48);
    assert!(report.audits_agreed > 5);
    assert_eq!(report.audits_drawn, report.audits_agreed + 2);
    // The lazy checker has committed to no secrets, and was convicted.
    let [own] = &report.auditors[..] else {
        panic!("{:?}", report.auditors);
    };
    assert_eq!((own.auditor, own.rate), (id(CHECKER), RATE));
    // In each step one leaf that was drawn was not answered for: it may have been the false one.
    // The void attempt counts, too: it was hit.
    assert_eq!((own.steps, own.unsettled), (2, 3));
    assert!(own.detection(2).abs() < 1e-12);
}

/// A void attempt counts as unsettled where it may hide a hit: its claims are missing, or a leaf
/// that was drawn of it was not found right, also where its worker was convicted of that.
#[test]
fn what_a_void_attempt_may_hide_counts() {
    let unsettled = |story: &Story| verify(&story.bundle()).unwrap().auditors[0].unsettled;
    assert_eq!(unsettled(&Story::honest()), 3, "it was hit");
    // The same without the finding, and the void for another reason.
    let quiet = |drops: bool| {
        let mut story = Story::honest_again();
        if drops {
            story.voided.clear();
        }
        unsettled(&story)
    };
    assert_eq!((quiet(false), quiet(true)), (2, 3));
}

#[test]
fn the_claims_give_the_state_after_every_step() {
    let bundle = Story::honest().bundle();
    for steps in 0..3 {
        assert_eq!(
            bundle.state_after(steps),
            Some(state_after(steps)),
            "{steps}"
        );
    }
    assert_eq!(bundle.state_after(3), None);
}

#[test]
fn files_and_folders_give_the_bundle_back() {
    let bundle = Story::honest().bundle();
    let files = bundle.files();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, FILES);
    assert_eq!(Bundle::from_files(&files).unwrap(), bundle);
    assert_eq!(from_blob(&to_blob(&files)).unwrap(), files);

    let folder = std::env::temp_dir().join(format!("concord-bundle-{}", std::process::id()));
    bundle.write_dir(&folder).unwrap();
    assert_eq!(Bundle::read_dir(&folder).unwrap(), bundle);
    bundle.write_dir(&folder).unwrap();
    assert_eq!(Bundle::read_dir(&folder).unwrap(), bundle);
    let words = verify_bundle::verified(&folder).unwrap();
    assert!(words.contains("2 steps, hash "), "{words}");
    std::fs::remove_file(folder.join("chain.records")).unwrap();
    let error = Bundle::read_dir(&folder).unwrap_err();
    assert!(
        matches!(&error, BundleError::Content(e) if e.file == "chain.records"),
        "{error}"
    );
    // Of what is no file nothing is read.
    std::fs::create_dir(folder.join("chain.records")).unwrap();
    let error = Bundle::read_dir(&folder).unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(!folder.with_extension("partial").exists());
}

/// Flips bits in every `stride`th byte of a file.
fn flip_bytes(name: &str, stride: usize) {
    let files = Story::honest().bundle().files();
    let index = FILES.iter().position(|file| *file == name).unwrap();
    let length = files[index].1.len();
    for position in (0..length).step_by(stride) {
        let mut broken = files.clone();
        broken[index].1[position] ^= 1 << (position % 8);
        let error = check(&broken).expect_err(&format!(
            "byte {position} of {length} of {name} was flipped"
        ));
        assert_eq!(error.file, name, "byte {position}: {error}");
        assert!(!error.statement.is_empty() && !error.reason.is_empty());
    }
}

#[test]
fn every_byte_of_the_spec_counts() {
    flip_bytes("job.spec", 1);
}

#[test]
fn every_byte_of_the_manifests_counts() {
    flip_bytes("data.manifest", 1);
    flip_bytes("state.initial", 1);
}

#[test]
fn every_byte_of_the_records_counts() {
    flip_bytes("chain.records", 1);
}

#[test]
fn bytes_of_the_claims_count() {
    flip_bytes("claims.steps", 17);
}

#[test]
fn bytes_of_the_void_claims_count() {
    flip_bytes("claims.void", 17);
}

#[test]
fn bytes_of_the_ledger_count() {
    flip_bytes("ledger.entries", 5);
}

#[test]
fn missing_extra_cut_and_longer_files_are_named() {
    let files = Story::honest().bundle().files();
    for index in 0..files.len() {
        let name = &files[index].0;
        let mut missing = files.clone();
        missing.remove(index);
        let error = check(&missing).unwrap_err();
        assert_eq!(
            (&error.file, error.reason.as_str()),
            (name, "it is missing")
        );
        let mut twice = files.clone();
        twice.push(files[index].clone());
        assert_eq!(check(&twice).unwrap_err().file, *name);
        // Without the claims of void attempts a proof shows less, and holds.
        let none = usize::from(*name == "claims.void");
        for length in [0, 1, 4, files[index].1.len() / 2, files[index].1.len() - 1] {
            let length = length.max(none);
            let mut cut = files.clone();
            cut[index].1.truncate(length);
            assert_eq!(check(&cut).unwrap_err().file, *name, "cut to {length}");
        }
        for extra in [&[0][..], &[0; 4], &[255; 4], &[1; 300]] {
            let mut longer = files.clone();
            longer[index].1.extend_from_slice(extra);
            assert_eq!(
                check(&longer).unwrap_err().file,
                *name,
                "{extra:?} appended"
            );
        }
    }
    let mut stranger = files.clone();
    stranger.push(("readme".to_string(), Vec::new()));
    assert_eq!(check(&stranger).unwrap_err().file, "readme");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300), index in 0..7_usize,
    ) {
        let mut files = Story::honest().bundle().files();
        prop_assume!(!bytes.is_empty());
        files[index].1 = bytes.clone();
        prop_assert_eq!(check(&files).unwrap_err().file, FILES[index]);
        let _ = from_blob(&bytes);
    }
}
