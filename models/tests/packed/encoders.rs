//! Blocks of GGUF that hold the levels -1, 0, 1 and 2, times a power of two.

/// The power of two.
pub const STEP: f32 = 0.03125;
/// The same as an f16.
pub const STEP_F16: [u8; 2] = [0, 0x28];

/// The bytes of numbers.
pub fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// A type of ggml: its name, its number, the numbers in a block, and how a block is made.
pub type Encoder = (&'static str, u32, usize, fn(&[i8]) -> Vec<u8>);

/// The types that hold the levels.
pub const BLOCKS: [Encoder; 13] = [
    ("F32", 0, 1, |l| f32s([f32::from(l[0]) * STEP])),
    ("F16", 1, 1, |l| {
        [[0, 0xa8], [0, 0], [0, 0x28], [0, 0x2c]][(l[0] + 1) as usize].to_vec()
    }),
    ("BF16", 30, 1, |l| {
        f32s([f32::from(l[0]) * STEP])[2..].to_vec()
    }),
    ("Q8_0", 8, 32, |l| {
        [STEP_F16.to_vec(), l.iter().map(|l| *l as u8).collect()].concat()
    }),
    ("Q4_0", 2, 32, |l| {
        [STEP_F16.to_vec(), nibbles(l, 8)].concat()
    }),
    ("Q4_1", 3, 32, |l| {
        [STEP_F16.to_vec(), vec![0, 0xb0], nibbles(l, 4)].concat()
    }),
    ("Q5_0", 6, 32, |l| {
        // 16 and above: the fifth bit says so.
        let fifth = l
            .iter()
            .enumerate()
            .map(|(i, l)| u32::from(*l >= 0) << i)
            .sum::<u32>();
        let low: Vec<i8> = l
            .iter()
            .map(|l| if *l >= 0 { *l } else { l + 16 })
            .collect();
        [
            STEP_F16.to_vec(),
            fifth.to_le_bytes().to_vec(),
            nibbles(&low, 0),
        ]
        .concat()
    }),
    ("Q5_1", 7, 32, |l| {
        [STEP_F16.to_vec(), vec![0, 0xa8], vec![0; 4], nibbles(l, 1)].concat()
    }),
    ("MXFP4", 39, 32, |l| {
        let codes: Vec<i8> = l.iter().map(|l| [10, 0, 2, 4][(l + 1) as usize]).collect();
        [vec![122], nibbles(&codes, 0)].concat()
    }),
    ("Q2_K", 10, 256, |l| {
        let halves = l.chunks(128).flat_map(|half| {
            (0..32).map(|i| {
                (0..4)
                    .map(|r| ((half[32 * r + i] + 1) as u8) << (2 * r))
                    .sum()
            })
        });
        [
            vec![0x11; 16],
            halves.collect(),
            STEP_F16.to_vec(),
            STEP_F16.to_vec(),
        ]
        .concat()
    }),
    ("Q4_K", 12, 256, |l| {
        // All scales and minima are 1.
        let six = [vec![1; 8], vec![0x11; 4]].concat();
        [STEP_F16.to_vec(), STEP_F16.to_vec(), six, pairs(l)].concat()
    }),
    ("Q5_K", 13, 256, |l| {
        let six = [vec![1; 8], vec![0x11; 4]].concat();
        [
            STEP_F16.to_vec(),
            STEP_F16.to_vec(),
            six,
            vec![0; 32],
            pairs(l),
        ]
        .concat()
    }),
    ("Q6_K", 14, 256, |l| {
        // Codes from 31 on: 32 above the level.
        let code = |l: i8| (l + 32) as u8;
        let (mut low, mut high) = (vec![0; 128], vec![0; 64]);
        for (i, l) in l.iter().enumerate() {
            let (n, run, at) = (i / 128, i % 128 / 32, i % 32);
            low[64 * n + 32 * (run % 2) + at] |= (code(*l) & 15) << (4 * (run / 2));
            high[32 * n + at] |= code(*l) >> 4 << (2 * run);
        }
        [low, high, vec![1; 16], STEP_F16.to_vec()].concat()
    }),
];

/// Codes of 32 numbers: i and i + 16 in a byte.
fn nibbles(levels: &[i8], zero: i8) -> Vec<u8> {
    let code = |i: usize| ((levels[i] + zero) as u8) & 15;
    (0..16).map(|i| code(i) | code(i + 16) << 4).collect()
}

/// Codes of 256 numbers as Q4_K has them: two runs of 32 in 32 bytes.
fn pairs(levels: &[i8]) -> Vec<u8> {
    let runs = levels.chunks(64);
    let byte = |run: &[i8], i: usize| (run[i] + 1) as u8 | ((run[i + 32] + 1) as u8) << 4;
    runs.flat_map(|run| (0..32).map(move |i| byte(run, i)).collect::<Vec<u8>>())
        .collect()
}
