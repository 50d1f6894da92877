//! Signatures, digests and tensor blobs: altered ones are refused, and the error names the signer.

mod messages;

use concord_formats::BlockFormat;
use concord_proto::session::{AddressChallenge, AddressProof};
use concord_proto::tensor::{AddressHasher, COMPACT, TensorHeader, address_of, numbers};
use concord_proto::{Digest, Domain, JobId, Keypair, Plan, Signed, SignedError};
use messages::Source;
use proptest::prelude::*;

fn key(index: u8) -> Keypair {
    Keypair::from_secret([index; 32])
}

#[test]
fn a_message_opens_only_as_it_was_signed() {
    let plan = Source::new(3).plan();
    let signed = Signed::new(&key(1), &plan);
    assert_eq!(signed.open::<Plan>().unwrap(), plan);
    for position in 0..signed.body.len() {
        let mut changed = signed.clone();
        changed.body[position] ^= 1;
        assert!(matches!(
            changed.open::<Plan>(),
            Err(SignedError::Forged(_))
        ));
    }
    for position in 0..64 {
        let mut changed = signed.clone();
        changed.signature[position] ^= 1;
        assert!(matches!(
            changed.open::<Plan>(),
            Err(SignedError::Forged(_))
        ));
    }
    let mut stolen = signed.clone();
    stolen.signer = key(2).public();
    let error = stolen.open::<Plan>().unwrap_err().to_string();
    assert!(error.contains(&key(2).public().to_string()), "{error}");
}

#[test]
fn signed_bytes_that_are_no_message_name_the_signer() {
    let signed = Signed::new(&key(1), &"no plan".to_string());
    let error = signed.open::<Plan>().unwrap_err();
    assert!(matches!(error, SignedError::Malformed { signer, .. } if signer == key(1).public()));
}

#[test]
fn a_signature_is_of_one_domain_and_one_key() {
    let message = Digest::of(Domain::Signature, b"message");
    let signature = key(1).sign(&message);
    assert!(key(1).public().verifies(&message, &signature));
    assert!(!key(2).public().verifies(&message, &signature));
    let elsewhere = Digest::of(Domain::Blob, b"message");
    assert!(!key(1).public().verifies(&elsewhere, &signature));
    // The same secret gives the same signature: nothing of it is random.
    assert_eq!(signature, key(1).sign(&message));
}

#[test]
fn every_domain_has_a_digest_of_its_own() {
    let domains = [
        Domain::Blob,
        Domain::Job,
        Domain::Sequence,
        Domain::Batch,
        Domain::Step,
        Domain::Leaf,
        Domain::MerkleLeaf,
        Domain::MerkleNode,
        Domain::MerkleRoot,
        Domain::Claim,
        Domain::FirstHalf,
        Domain::Plan,
        Domain::Nonce,
        Domain::Draw,
        Domain::Shuffle,
        Domain::Scalar,
        Domain::Norms,
        Domain::Ledger,
        Domain::Signature,
        Domain::AddressChallenge,
    ];
    let mut digests: Vec<Digest> = domains.map(|domain| Digest::of(domain, b"")).to_vec();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), domains.len());
    assert!(
        domains
            .iter()
            .all(|domain| domain.tag().starts_with("concord.v1."))
    );
}

#[test]
fn an_address_is_proven_by_the_key_that_is_asked_for_alone() {
    let challenge = AddressChallenge {
        worker: key(1).public(),
        nonce: [7; 32],
    };
    let proof = challenge.answer(&key(1)).expect("it is asked");
    assert!(challenge.is_proven_by(&proof));
    assert_eq!(challenge.answer(&key(2)), None, "another one is asked");
    // Neither another challenge nor another signer, nor a signature over the same bytes as a
    // message.
    for other in [
        AddressChallenge {
            nonce: [8; 32],
            ..challenge
        },
        AddressChallenge {
            worker: key(2).public(),
            ..challenge
        },
    ] {
        assert!(!other.is_proven_by(&proof), "{other:?}");
    }
    let signature = Signed::new(&key(1), &challenge).signature;
    assert!(!challenge.is_proven_by(&AddressProof { signature }));
}

proptest! {
    #[test]
    fn digests_are_read_as_they_are_written(bytes in any::<[u8; 32]>()) {
        let digest = Digest(bytes);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        prop_assert_eq!(digest.to_string().parse(), Ok(JobId(digest)));
    }

    #[test]
    fn other_texts_are_no_digest(text in ".{0,70}") {
        prop_assert!(text.parse::<Digest>().is_err() || text.len() == 64);
    }

    #[test]
    fn a_tensor_blob_is_its_header_and_elements(rows in 0_u64..9, columns in 0_u64..9) {
        let header = TensorHeader { dtype: BlockFormat::Bf16, shape: vec![rows, columns] };
        let elements = vec![7; (rows * columns * 2) as usize];
        let blob = header.blob(&elements);
        prop_assert_eq!(TensorHeader::split(&blob), Ok((header.clone(), &elements[..])));
        let wide = TensorHeader { dtype: BlockFormat::F32, ..header.clone() };
        let numbers: Vec<u8> = numbers(BlockFormat::Bf16, &elements)
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect();
        let address = Digest::of(Domain::Blob, &wide.blob(&numbers));
        prop_assert_eq!(header.digest(&elements), address);
        prop_assert_eq!(wide.digest(&numbers), address);
        prop_assert!(TensorHeader::split(&blob[..blob.len() - 1]).is_err());
        prop_assert!(TensorHeader::split(&[&blob[..], &[0]].concat()).is_err());
    }
}

fn in_pieces(bytes: &[u8], piece: usize) -> Digest {
    let mut hasher = AddressHasher::default();
    bytes.chunks(piece).for_each(|some| hasher.update(some));
    hasher.finish()
}

#[test]
fn an_address_does_not_depend_on_the_pieces() {
    let shape = vec![9, 4_100];
    let f16 = TensorHeader {
        dtype: BlockFormat::F16,
        shape,
    };
    let elements: Vec<u8> = (0..2 * 9 * 4_100_u32).map(|i| (i % 120) as u8).collect();
    for blob in [f16.blob(&elements), elements.clone(), b"concord".to_vec()] {
        let whole = address_of(&blob);
        for piece in [1, 7, 16, 255, 256, 4_096, 70_000] {
            assert_eq!(in_pieces(&blob, piece), whole, "{piece}");
        }
    }
    assert_eq!(address_of(&elements), Digest::of(Domain::Blob, &elements));
    assert_eq!(address_of(&f16.blob(&elements)), f16.digest(&elements));
}

#[test]
fn blocks_have_the_address_of_their_numbers() {
    for (index, format) in BlockFormat::ALL.into_iter().enumerate() {
        let packed = TensorHeader {
            dtype: format,
            shape: vec![70, 1_024],
        };
        let bytes = 70 * format.row_bytes(1_024).unwrap();
        assert_eq!(packed.element_bytes(), Some(bytes as u64));
        // Bytes that are finite scales in every format.
        let elements: Vec<u8> = (0..bytes).map(|i| (i * 7 % 60) as u8).collect();
        let mut numbers = vec![0.0; 70 * 1_024];
        format.decode(&elements, &mut numbers);
        let wide = TensorHeader {
            dtype: BlockFormat::F32,
            ..packed.clone()
        };
        let words: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
        let blob = packed.blob(&elements);
        let address = Digest::of(Domain::Blob, &wide.blob(&words));
        for piece in [1, 17, 1_000, 1 << 20] {
            assert_eq!(
                in_pieces(&blob, piece),
                address,
                "{} in {piece}",
                format.name()
            );
        }
        // The number of the format is part of what is stored: it may not change.
        let mark = if format == BlockFormat::F32 {
            0
        } else {
            COMPACT.len()
        };
        assert_eq!(blob[mark], index as u8);
        let known = [
            ("F32", 0),
            ("Q8_0", 3),
            ("Q4_K", 10),
            ("MXFP4", 15),
            ("NF4", 16),
            ("U4_32", 17),
            ("E4M3_64", 21),
            ("INT8_64", 22),
        ];
        let number = known.iter().find(|(name, _)| *name == format.name());
        assert!(number.is_none_or(|(_, number)| index == *number));
        assert_eq!(
            TensorHeader::split(&blob),
            Ok((packed.clone(), &elements[..]))
        );
        assert!(TensorHeader::split(&blob[..blob.len() - 1]).is_err());
    }
    let broken = TensorHeader {
        dtype: BlockFormat::Q4K,
        shape: vec![2, 128],
    };
    assert_eq!(broken.element_bytes(), None, "a row is no whole block");
}

#[test]
fn a_compact_tensor_that_is_not_whole_is_bytes_like_others() {
    let header = TensorHeader {
        dtype: BlockFormat::F16,
        shape: vec![3],
    };
    let blob = header.blob(&[0; 6]);
    let wide = TensorHeader {
        dtype: BlockFormat::F32,
        shape: vec![3],
    };
    assert_eq!(address_of(&blob), wide.digest(&[0; 12]));
    // Not a short format, or a short one without the mark: second spellings of the same numbers.
    let second = [&COMPACT[..], &wide.blob(&[0; 12])].concat();
    let unmarked = blob[COMPACT.len()..].to_vec();
    let longer = [&blob[..], &[0]].concat();
    for bytes in [
        &blob[..blob.len() - 1],
        &longer,
        &blob[..20],
        &second,
        &unmarked,
    ] {
        for piece in [1, 7, 1_000] {
            assert_eq!(in_pieces(bytes, piece), Digest::of(Domain::Blob, bytes));
        }
        assert!(TensorHeader::split(bytes).is_err());
    }
}

#[test]
fn shapes_that_overflow_are_refused() {
    let header = TensorHeader {
        dtype: BlockFormat::F32,
        shape: vec![1 << 62, 4],
    };
    assert_eq!(header.element_bytes(), None);
    assert!(TensorHeader::split(&header.blob(&[])).is_err());
    // No bytes at all, by a row of none; the numbers cannot be counted.
    let empty = TensorHeader {
        dtype: BlockFormat::F32,
        shape: vec![1 << 33, 1 << 33, 0],
    };
    assert_eq!(empty.element_bytes(), None);
    assert!(TensorHeader::split(&empty.blob(&[])).is_err());
    let deep = TensorHeader {
        dtype: BlockFormat::F32,
        shape: vec![1; 9],
    };
    assert!(TensorHeader::split(&deep.blob(&[0; 4])).is_err());
}
