//! What the machine could do: loops on registers, nothing read or written.

use std::thread;
use std::time::Instant;

/// Operations a second (a product and an addition are two), of all threads together.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// f32 fused multiply-add.
    pub float: f64,
    /// Products of 16 bits.
    pub words: f64,
    /// Products of 8 bits.
    pub bytes: f64,
}

impl Peaks {
    /// Measures `threads` threads at once; none where the machine lacks AVX-512 VNNI.
    pub fn measure(threads: usize) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if concord_kernels::isa::Isa::Avx512.is_available() {
            let all = |one: fn() -> f64| -> f64 {
                let runs = || {
                    thread::scope(|scope| {
                        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
                        handles
                            .into_iter()
                            .filter_map(|h| h.join().ok())
                            .sum::<f64>()
                    })
                };
                (0..3).map(|_| runs()).fold(0.0, f64::max)
            };
            return Some(Self {
                float: all(|| 32.0 * registers::vfmadd231ps()),
                words: all(|| 64.0 * registers::vpdpwssd()),
                bytes: all(|| 128.0 * registers::vpdpbusd()),
            });
        }
        let _ = (thread::current, Instant::now, threads);
        None
    }
}

/// The name that the processor gives itself.
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(": ").nth(1))
            .unwrap_or("unknown")
            .to_owned()
    };
    format!(
        "{} (family {}, model {})",
        field("model name"),
        field("cpu family"),
        field("model\t")
    )
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use std::arch::asm;
    use std::time::Instant;

    /// Defines a function that counts an instruction's runs a second, on 12 chains of registers.
    macro_rules! loop_of {
        ($name:ident) => {
            pub fn $name() -> f64 {
                const TURNS: u32 = 20_000_000;
                let start = Instant::now();
                for _ in 0..TURNS {
                    // SAFETY: registers only, all declared; the caller has seen AVX-512 VNNI.
                    unsafe { chains!($name) }
                }
                12.0 * f64::from(TURNS) / start.elapsed().as_secs_f64()
            }
        };
    }

    macro_rules! chains {
        ($name:ident) => {
            asm!(
                concat!(stringify!($name), " zmm0, zmm30, zmm31"),
                concat!(stringify!($name), " zmm1, zmm30, zmm31"),
                concat!(stringify!($name), " zmm2, zmm30, zmm31"),
                concat!(stringify!($name), " zmm3, zmm30, zmm31"),
                concat!(stringify!($name), " zmm4, zmm30, zmm31"),
                concat!(stringify!($name), " zmm5, zmm30, zmm31"),
                concat!(stringify!($name), " zmm6, zmm30, zmm31"),
                concat!(stringify!($name), " zmm7, zmm30, zmm31"),
                concat!(stringify!($name), " zmm8, zmm30, zmm31"),
                concat!(stringify!($name), " zmm9, zmm30, zmm31"),
                concat!(stringify!($name), " zmm10, zmm30, zmm31"),
                concat!(stringify!($name), " zmm11, zmm30, zmm31"),
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _,
                out("zmm5") _, out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _,
                out("zmm10") _, out("zmm11") _, options(nomem, nostack, preserves_flags),
            )
        };
    }

    loop_of!(vfmadd231ps);
    loop_of!(vpdpwssd);
    loop_of!(vpdpbusd);
}
