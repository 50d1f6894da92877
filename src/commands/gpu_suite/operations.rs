//! Every operation at the sizes of a model, with the least that it must read, write or multiply.

use concord_kernels::coded::Precision;
use concord_kernels::ops::sample::Sampling;
use concord_kernels::ops::{
    Activation, AdamStep, Atoms, AttentionShape, CodedKv, Columns, LionStep, RouterKind, Routing,
};
use concord_kernels::tables::{FrequencyScaling, RopeTable};
use concord_kernels::{KernelError, MomentKind, PackedMoment, Tensor};

use super::SuiteSize;
use super::bench::{TimedWork, TimingBench};

const CODES: Precision = Precision::I16;
/// Bytes of an f32.
const F32: usize = 4;
/// Bytes of a code.
const CODE: usize = 2;

/// Sizes of a model and of its operands.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    tokens: usize,
    /// Rows for operations that are bound by memory: more than caches hold.
    rows: usize,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    parameters: usize,
}

impl Sizes {
    fn of(size: SuiteSize) -> Self {
        match size {
            SuiteSize::Small => Self {
                tokens: 40,
                rows: 70,
                hidden: 64,
                intermediate: 96,
                heads: 4,
                kv_heads: 2,
                head_dim: 16,
                vocab: 131,
                parameters: 4_099,
            },
            // An 8B model on one long sequence.
            SuiteSize::Full => Self {
                tokens: 2_048,
                rows: 8_192,
                hidden: 4_096,
                intermediate: 14_336,
                heads: 32,
                kv_heads: 8,
                head_dim: 128,
                vocab: 32_000,
                parameters: 1 << 26,
            },
        }
    }
}

/// Times all operations except plain products.
///
/// # Errors
/// Where the GPU fails, except for a lack of memory.
pub fn time_all(bench: &mut TimingBench<'_>, size: SuiteSize) -> Result<(), KernelError> {
    let sizes = Sizes::of(size);
    bench.group("coding and norms", |bench| rows(bench, sizes))?;
    bench.group("elementwise", |bench| elementwise(bench, sizes))?;
    bench.group("activations", |bench| activations(bench, sizes))?;
    bench.group("rope", |bench| rope(bench, sizes))?;
    bench.group("gradients of products", |bench| gradients(bench, sizes))?;
    bench.group("attention", |bench| attention(bench, sizes))?;
    bench.group("decoding", |bench| decoding(bench, sizes))?;
    bench.group("head", |bench| head(bench, sizes))?;
    bench.group("embedding", |bench| embedding(bench, sizes))?;
    bench.group("experts", |bench| experts(bench, sizes))?;
    bench.group("optimizer", |bench| optimizer(bench, sizes))?;
    bench.group("whole tensors", |bench| whole_tensors(bench, sizes))
}

fn memory(elements: usize, bytes_each: usize) -> TimedWork {
    TimedWork::Memory {
        elements,
        bytes: elements * bytes_each,
    }
}

fn by(rows: usize, cols: usize) -> String {
    format!("{rows} x {cols}")
}

fn rows(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let (len, shape) = (s.rows * s.hidden, by(s.rows, s.hidden));
    let (x, dy) = (
        bench.random(&[s.rows, s.hidden])?,
        bench.random(&[s.rows, s.hidden])?,
    );
    let w = bench.random(&[s.hidden])?;
    let atoms = Atoms::new(1, s.rows);
    let (_, inverse) = device.rmsnorm(&x, &w, 1e-5)?;
    bench.time("code", &shape, memory(len, F32 + CODE), || {
        device.code(&x, s.hidden, CODES).map(drop)
    })?;
    bench.time("rmsnorm", &shape, memory(len, 2 * F32), || {
        device.rmsnorm(&x, &w, 1e-5).map(drop)
    })?;
    bench.time("rmsnorm_dx", &shape, memory(len, 3 * F32), || {
        device.rmsnorm_dx(&dy, &x, &w, &inverse).map(drop)
    })?;
    bench.time("rmsnorm_dw", &shape, memory(len, 2 * F32), || {
        device
            .rmsnorm_dw(&dy, &x, &inverse, s.hidden, &atoms)
            .map(drop)
    })?;
    let (_, mean, inverse) = device.layernorm(&x, &w, None, 1e-5)?;
    bench.time("layernorm", &shape, memory(len, 2 * F32), || {
        device.layernorm(&x, &w, None, 1e-5).map(drop)
    })?;
    bench.time("layernorm_dx", &shape, memory(len, 3 * F32), || {
        device.layernorm_dx(&dy, &x, &w, &mean, &inverse).map(drop)
    })?;
    bench.time("layernorm_dw", &shape, memory(len, 2 * F32), || {
        device
            .layernorm_dw(&dy, &x, &mean, &inverse, s.hidden, &atoms)
            .map(drop)
    })?;
    bench.time("bias_gradient", &shape, memory(len, F32), || {
        device.bias_gradient(&dy, &atoms).map(drop)
    })
}

fn elementwise(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let (len, shape) = (s.rows * s.hidden, by(s.rows, s.hidden));
    let mut a = bench.random(&[s.rows, s.hidden])?;
    let (b, bias) = (
        bench.random(&[s.rows, s.hidden])?,
        bench.random(&[s.hidden])?,
    );
    bench.time("add_assign", &shape, memory(len, 3 * F32), || {
        device.add_assign(&mut a, &b)
    })?;
    bench.time("scaled_add_assign", &shape, memory(len, 3 * F32), || {
        device.scaled_add_assign(&mut a, 0.5, &b)
    })?;
    bench.time("add_bias", &shape, memory(len, 2 * F32), || {
        device.add_bias(&mut a, &bias)
    })?;
    bench.time("scaled", &shape, memory(len, 2 * F32), || {
        device.scaled(&b, 0.5).map(drop)
    })?;
    bench.time("products", &shape, memory(len, 3 * F32), || {
        device.products(&b, &b).map(drop)
    })?;
    bench.time("scaled_columns", &shape, memory(len, 2 * F32), || {
        device.scaled_columns(&b, &bias).map(drop)
    })?;
    bench.time("put_rows", &shape, memory(len, 2 * F32), || {
        device.put_rows(&mut a, 0, &b)
    })
}

fn activations(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let (len, shape) = (s.tokens * s.intermediate, by(s.tokens, s.intermediate));
    let side = || bench.random(&[s.tokens, s.intermediate]);
    let (g, u, dy) = (side()?, side()?, side()?);
    bench.time("swiglu", &shape, memory(len, 3 * F32), || {
        device.swiglu(&g, &u).map(drop)
    })?;
    bench.time("swiglu_backward", &shape, memory(len, 5 * F32), || {
        device.swiglu_backward(&dy, &g, &u).map(drop)
    })?;
    bench.time("gelu", &shape, memory(len, 2 * F32), || {
        device.activation(&g, Activation::Gelu).map(drop)
    })?;
    bench.time("gelu_backward", &shape, memory(len, 3 * F32), || {
        device
            .activation_backward(&dy, &g, Activation::Gelu)
            .map(drop)
    })?;
    bench.time("soft_cap", &shape, memory(len, 2 * F32), || {
        device.soft_cap(&g, 30.0).map(drop)
    })?;
    let halves = Columns {
        groups: 1,
        group_width: s.intermediate,
        offset: 0,
        width: s.intermediate / 2,
    };
    bench.time("take_columns", &shape, memory(len / 2, 2 * F32), || {
        device.take_columns(&g, &halves).map(drop)
    })
}

fn rope(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let width = s.heads * s.head_dim;
    let table = RopeTable::new(s.head_dim, 500_000.0, FrequencyScaling::None, s.rows);
    let table = device.place_rope(table)?;
    let positions = device.ids(&(0..s.rows as u32).collect::<Vec<_>>())?;
    let mut x = bench.random(&[s.rows, width])?;
    let work = memory(s.rows * width, 2 * F32);
    bench.time("rope", by(s.rows, width), work, || {
        device.rope(&mut x, &table, &positions, false)
    })
}

fn gradients(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let (m, n, k) = (s.tokens, s.intermediate, s.hidden);
    let (x, dy) = (bench.random(&[m, k])?, bench.random(&[m, n])?);
    let w = device.code(&bench.random(&[n, k])?, k, CODES)?;
    let x = device.code(&x, k, CODES)?;
    let (shape, atoms) = (format!("{m} x {n} x {k}"), Atoms::new(1, m));
    let work = TimedWork::Products(2.0 * m as f64 * n as f64 * k as f64);
    bench.time("matmul_dx", &shape, work, || {
        device.matmul_dx(&dy, &w, CODES).map(drop)
    })?;
    bench.time("matmul_dw", &shape, work, || {
        device.matmul_dw(&dy, &x, &atoms, CODES).map(drop)
    })
}

fn attention_shape(s: Sizes) -> AttentionShape {
    AttentionShape {
        heads: s.heads,
        kv_heads: s.kv_heads,
        head_dim: s.head_dim,
        window: None,
        scale: 1.0 / (s.head_dim as f32).sqrt(),
        soft_cap: None,
    }
}

fn attention(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let shape = attention_shape(s);
    let (q_width, kv_width) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    let q = bench.random(&[s.tokens, q_width])?;
    let (k, v) = (
        bench.random(&[s.tokens, kv_width])?,
        bench.random(&[s.tokens, kv_width])?,
    );
    let d_out = bench.random(&[s.tokens, q_width])?;
    let text = format!("{} tokens, {} x {}", s.tokens, s.heads, s.head_dim);
    let coded = s.tokens * (q_width + 2 * kv_width);
    bench.time("attention_codes", &text, memory(coded, F32 + CODE), || {
        device
            .attention_codes(&q, &k, &v, &shape, CODES, CODES)
            .map(drop)
    })?;
    let codes = device.attention_codes(&q, &k, &v, &shape, CODES, CODES)?;
    let one = codes.as_one(&shape);
    let atoms = Atoms::of(one.clone());
    // A causal mask leaves half of all pairs of tokens.
    let product = (q_width * s.tokens * s.tokens) as f64;
    bench.time(
        "attention",
        &text,
        TimedWork::Products(2.0 * product),
        || {
            device
                .attention(&codes, &one, &shape, None, CODES)
                .map(drop)
        },
    )?;
    let out = device.attention(&codes, &one, &shape, None, CODES)?;
    bench.time(
        "attention_backward",
        &text,
        TimedWork::Products(5.0 * product),
        || {
            device
                .attention_backward(&codes, &out, &d_out, (&one, &atoms), &shape, None, CODES)
                .map(drop)
        },
    )
}

/// The attention of one token after `s.tokens` others.
fn decoding(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let shape = attention_shape(s);
    let kv_width = s.kv_heads * s.head_dim;
    let code =
        |rows: usize, width: usize| device.code(&bench.random(&[rows, width])?, s.head_dim, CODES);
    let kv = CodedKv {
        k: code(s.tokens, kv_width)?,
        v: code(s.tokens, kv_width)?,
    };
    let query = code(1, s.heads * s.head_dim)?;
    let mut keys = device.new_keys(&shape, CODES)?;
    device.append_keys(&mut keys, &kv)?;
    let (read, text) = (2 * s.tokens * kv_width, format!("1 of {} tokens", s.tokens));
    bench.time("attention_cached", text, memory(read, CODE), || {
        let last = s.tokens - 1;
        device
            .attention_cached(&query, &keys, last, &shape, None, CODES)
            .map(drop)
    })?;
    bench.time(
        "append_keys",
        format!("{} tokens", s.tokens),
        memory(read, 2 * CODE),
        || {
            let mut keys = device.new_keys(&shape, CODES)?;
            device.append_keys(&mut keys, &kv)
        },
    )
}

/// The head on one atom of tokens, and the draw of a token.
fn head(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let rows = Atoms::TOKENS.min(s.tokens);
    let (len, shape) = (rows * s.vocab, by(rows, s.vocab));
    let targets: Vec<_> = (0..rows).map(|i| Some((i * 7 % s.vocab) as u32)).collect();
    let targets = device.targets(&targets)?;
    let x = bench.random(&[rows, s.hidden])?;
    let w = device.code(&bench.random(&[s.vocab, s.hidden])?, s.hidden, CODES)?;
    let mut p = bench.random(&[rows, s.vocab])?;
    let logits = p.rows(0, 1);
    bench.time(
        "sample, greedy",
        by(1, s.vocab),
        memory(s.vocab, F32),
        || device.sample(&logits, &sampling(0.0), 3).map(drop),
    )?;
    bench.time(
        "sample, top-p",
        by(1, s.vocab),
        memory(s.vocab, F32),
        || device.sample(&logits, &sampling(0.8), 3).map(drop),
    )?;
    bench.time("cross_entropy", &shape, memory(len, 2 * F32), || {
        device.cross_entropy(&mut p, &targets).map(drop)
    })?;
    let products = TimedWork::Products(2.0 * len as f64 * s.hidden as f64);
    bench.time(
        "head_dx",
        format!("{shape} x {}", s.hidden),
        products,
        || device.head_dx(&p, &targets, &w, CODES, None).map(drop),
    )?;
    let mut dw = device.zeros(&[s.vocab, s.hidden])?;
    bench.time(
        "take_targets",
        by(rows, s.hidden),
        memory(rows * s.hidden, 3 * F32),
        || device.take_targets(&mut dw, &x, &targets, None),
    )
}

fn sampling(temperature: f32) -> Sampling {
    Sampling {
        temperature,
        top_k: 0,
        top_p: 0.9,
        seed: 1,
    }
}

fn embedding(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let (len, shape) = (s.tokens * s.hidden, by(s.tokens, s.hidden));
    let table = bench.random(&[s.vocab, s.hidden])?;
    let dy = bench.random(&[s.tokens, s.hidden])?;
    let ids: Vec<u32> = (0..s.tokens)
        .map(|i| (i * 7_919 % s.vocab) as u32)
        .collect();
    let ids = device.ids(&ids)?;
    bench.time("embedding", &shape, memory(len, 2 * F32), || {
        device.embedding(&table, &ids).map(drop)
    })?;
    // The whole gradient is written, mostly zeros.
    let work = TimedWork::Memory {
        elements: len,
        bytes: F32 * (len + s.vocab * s.hidden),
    };
    bench.time("embedding_gradient", &shape, work, || {
        device.embedding_gradient(&dy, &ids, s.vocab).map(drop)
    })
}

/// Routing and rows, with 8 of 64 experts for each token.
fn experts(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    const EXPERTS: usize = 64;
    let device = bench.device;
    let routing = Routing {
        kind: RouterKind::Softmax,
        chosen: 8,
        normalised: true,
        factor: 1.0,
    };
    let logits = bench.random(&[s.tokens, EXPERTS])?;
    let work = memory(s.tokens * EXPERTS, F32);
    bench.time("route", by(s.tokens, EXPERTS), work, || {
        device.route(&logits, None, &routing).map(drop)
    })?;
    let routes = device.route(&logits, None, &routing)?;
    let rows = device.expert_rows(&routes, EXPERTS)?;
    let mut y = bench.random(&[s.tokens, s.hidden])?;
    let x = device.code(&y, s.hidden, CODES)?;
    let results = bench.random(&[routing.chosen * s.tokens, s.hidden])?;
    let (len, shape) = (results.len(), by(routing.chosen * s.tokens, s.hidden));
    bench.time("gather", &shape, memory(len, 2 * CODE), || {
        device.gather(&x, &rows.tokens).map(drop)
    })?;
    bench.time("combine", &shape, memory(len, F32), || {
        device.combine(&mut y, &results, &rows.slots, Some(&routes.weights))
    })?;
    bench.time("combine_backward", &shape, memory(len, 3 * F32), || {
        device
            .combine_backward(&y, &results, &rows.slots, &routes.weights)
            .map(drop)
    })
}

fn optimizer(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let step = AdamStep {
        gradient_scale: 1e-3,
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.999,
        bias1: 0.1,
        bias2: 0.001,
        epsilon: 1e-8,
        weight_decay: 0.01,
    };
    let tensor = || bench.random(&[s.parameters]);
    let (gradient, mut value) = (tensor()?, tensor()?);
    let moment = || device.zeros(&[s.parameters]);
    let (mut m, mut v) = (moment()?, moment()?);
    let (work, text) = (memory(s.parameters, 7 * F32), s.parameters.to_string());
    bench.time("adamw", &text, work, || {
        device.adamw(&step, &gradient, &mut value, &mut m, &mut v)
    })?;
    let moment = |kind| device.place_moment(PackedMoment::zeros(kind, &[s.parameters]));
    let (mut m, mut v) = (moment(MomentKind::First)?, moment(MomentKind::Second)?);
    // Gradient, value read and written, and a byte of each moment, read and written.
    let work = memory(s.parameters, 4 * F32);
    bench.time("adamw_8bit", &text, work, || {
        device.adamw_8bit(&step, &gradient, &mut value, &mut m, &mut v)
    })?;
    let step = LionStep {
        gradient_scale: 1e-3,
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.01,
    };
    // As above, with the byte of one moment.
    let work = memory(s.parameters, 3 * F32 + 2);
    bench.time("lion_8bit", &text, work, || {
        device.lion_8bit(&step, &gradient, &mut value, &mut m)
    })
}

/// Operations on whole tensors before they are sent or hashed.
fn whole_tensors(bench: &mut TimingBench<'_>, s: Sizes) -> Result<(), KernelError> {
    let device = bench.device;
    let mut x: Tensor = bench.random(&[s.parameters])?;
    let (work, text) = (memory(s.parameters, F32), s.parameters.to_string());
    bench.time("sum_squares", &text, work, || {
        device.sum_squares(&[&x]).map(drop)
    })?;
    bench.time("sum", &text, work, || device.sum(&x).map(drop))?;
    bench.time("digest", &text, work, || {
        x.derived_digest(&[7; 32], b"a header").map(drop)
    })?;
    bench.time("canonicalise", &text, work, || {
        device.canonicalise(&mut [("x", &mut x)])
    })
}
