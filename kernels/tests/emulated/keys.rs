//! Attention over keys and values that grow.

use concord_kernels::Device;
use concord_kernels::coded::{Coded, Precision};
use concord_kernels::ops::{AttentionCodes, AttentionShape, CodedKv, KeyValues};

use crate::attention::{P, SequenceInput, shape};
use crate::gpus::{OutputsOrError, devices, same_bits};

/// Rows of tokens `[start, + count)`.
fn tokens_of(coded: &Coded, start: usize, count: usize, heads: usize) -> Coded {
    coded.part(start * heads, count * heads)
}

fn new_tokens(codes: &AttentionCodes, start: usize, count: usize, kv_heads: usize) -> CodedKv {
    CodedKv {
        k: tokens_of(&codes.kv.k, start, count, kv_heads),
        v: tokens_of(&codes.kv.v, start, count, kv_heads),
    }
}

/// Prefill = decode = chunks of any size, across pages and chunks of blocks.
#[test]
fn a_cache_does_not_see_how_the_sequence_was_cut() {
    let grown = |device: &Device,
                 input: &SequenceInput,
                 (shape, key_values): (&AttentionShape, Precision),
                 chunk: usize|
     -> OutputsOrError {
        let mut codes = input.codes(device, shape, P)?;
        codes.kv = input.codes(device, shape, key_values)?.kv;
        let tokens = codes.queries.rows / shape.heads;
        let mut keys = device.new_keys(shape, key_values)?;
        let mut out = Vec::new();
        for start in (0..tokens).step_by(chunk) {
            let count = chunk.min(tokens - start);
            device.append_keys(&mut keys, &new_tokens(&codes, start, count, shape.kv_heads))?;
            let queries = tokens_of(&codes.queries, start, count, shape.heads);
            let part = device.attention_cached(&queries, &keys, start, shape, None, P)?;
            out.extend_from_slice(&part.values()?);
        }
        Ok(vec![out])
    };
    let cases = [
        (140, 1, shape(3, 1, 6, None)),
        (140, 7, shape(4, 2, 34, Some(50))),
        (270, 64, shape(2, 2, 16, None)),
        (1_100, 129, shape(4, 1, 8, None)),
        (1_100, 1_100, shape(2, 1, 8, Some(200))),
    ];
    for (tokens, chunk, shape) in cases {
        let input = SequenceInput::ordinary(tokens, &shape);
        for key_values in [P, Precision::I8] {
            same_bits(
                &format!("{tokens} tokens by {chunk}, {shape:?}, {key_values:?}"),
                |device| {
                    let chunk = if matches!(device, Device::Reference) {
                        tokens
                    } else {
                        chunk
                    };
                    grown(device, &input, (&shape, key_values), chunk)
                },
            );
        }
    }
}

/// A clone of a cache grows independently.
#[test]
fn clones_of_a_cache_part_when_one_grows() {
    let shape = shape(2, 1, 8, None);
    let (tokens, fork) = (150, 140);
    let input = SequenceInput::ordinary(tokens, &shape);
    let mut other = SequenceInput::ordinary(tokens, &shape);
    other.k.iter_mut().skip(fork * 8).for_each(|k| *k *= -1.5);
    let each = devices().into_iter();
    for (device, key_values) in each.flat_map(|d| [P, Precision::I8].map(|p| (d.clone(), p))) {
        let out = |codes: &AttentionCodes, keys: &KeyValues| -> Vec<f32> {
            let queries = tokens_of(&codes.queries, fork, tokens - fork, 2);
            let out = device.attention_cached(&queries, keys, fork, &shape, None, P);
            out.unwrap().into_values().unwrap()
        };
        let coded = |input: &SequenceInput| {
            let codes = |p| input.codes(&device, &shape, p).unwrap();
            AttentionCodes {
                kv: codes(key_values).kv,
                ..codes(P)
            }
        };
        let (codes, other_codes) = (coded(&input), coded(&other));
        let mut keys = device.new_keys(&shape, key_values).unwrap();
        let start = new_tokens(&codes, 0, fork, 1);
        device.append_keys(&mut keys, &start).unwrap();
        let mut clone = keys.clone();
        let end = |codes| new_tokens(codes, fork, tokens - fork, 1);
        device.append_keys(&mut keys, &end(&codes)).unwrap();
        device.append_keys(&mut clone, &end(&other_codes)).unwrap();
        let (of_keys, of_clone) = (out(&codes, &keys), out(&other_codes, &clone));

        let whole = |codes: &AttentionCodes| -> Vec<f32> {
            let out = device
                .attention(codes, &codes.as_one(&shape), &shape, None, P)
                .unwrap();
            out.out.into_values().unwrap()[fork * 16..].to_vec()
        };
        assert_eq!(of_keys, whole(&codes), "{}", device.name());
        assert_eq!(of_clone, whole(&other_codes), "{}", device.name());
        assert_ne!(of_keys, of_clone);
    }
}
