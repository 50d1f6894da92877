//! Architectures of NVIDIA GPUs, and which machine code a card runs.
//!
//! The build script compiles this file too.

use std::fmt;

/// An architecture that kernels are made for: the compute capability as a number, such as 80 for
/// 8.0. The tiles of kernels are chosen by it. One of 61, 70, 75, 80, 86, 89, 90, 100, 120.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch(pub u32);

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.0)
    }
}

/// What machine code is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeTarget {
    /// The architecture whose tiles it uses.
    pub arch: Arch,
    /// Compute capability of the code, as a number.
    code: u32,
}

/// What the build makes machine code for, oldest first.
pub const TARGETS: [CodeTarget; 9] = [
    CodeTarget::of_arch(61),
    CodeTarget::of_arch(70),
    CodeTarget::of_arch(75),
    CodeTarget::of_arch(80),
    CodeTarget::of_arch(86),
    CodeTarget::of_arch(89),
    CodeTarget::of_arch(90),
    CodeTarget::of_arch(100),
    CodeTarget::of_arch(120),
];

impl CodeTarget {
    const fn of_arch(number: u32) -> Self {
        Self {
            arch: Arch(number),
            code: number,
        }
    }

    /// The machine code for a card of compute capability `major.minor`; `None` for a card below
    /// 6.1, which lacks the integer dot product.
    ///
    /// Cards that have a target of their own run it, and 10.3 and 12.1 run the code of 10.0 and
    /// 12.0. Every other card gets code of its own, made when it is first used: machine code does
    /// not carry over to a newer generation, nor from cards to the chips of cars and robots (6.2,
    /// 7.2, 8.7, 11.0).
    pub fn of_card(compute: (u32, u32)) -> Option<Self> {
        let number = compute.0 * 10 + compute.1;
        let below = TARGETS.iter().rev().find(|t| t.arch.0 <= number)?;
        Some(match number {
            103 | 121 => *below,
            _ => Self {
                arch: below.arch,
                code: number,
            },
        })
    }

    /// Its compute capability, as a number.
    pub fn code(self) -> u32 {
        self.code
    }

    /// What compilers call it, such as "sm_90a".
    pub fn name(self) -> String {
        let suffix = if self.code == 90 { "a" } else { "" };
        format!("sm_{}{suffix}", self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_card_gets_the_code_that_it_runs() {
        let cases = [
            ((3, 5), None),
            ((5, 2), None),
            ((6, 0), None),
            ((6, 1), Some((61, "sm_61"))),
            ((6, 2), Some((61, "sm_62"))),
            ((7, 0), Some((70, "sm_70"))),
            ((7, 2), Some((70, "sm_72"))),
            ((7, 5), Some((75, "sm_75"))),
            ((8, 0), Some((80, "sm_80"))),
            ((8, 6), Some((86, "sm_86"))),
            ((8, 7), Some((86, "sm_87"))),
            ((8, 9), Some((89, "sm_89"))),
            ((9, 0), Some((90, "sm_90a"))),
            ((10, 0), Some((100, "sm_100"))),
            ((10, 1), Some((100, "sm_101"))),
            ((10, 3), Some((100, "sm_100"))),
            ((11, 0), Some((100, "sm_110"))),
            ((12, 0), Some((120, "sm_120"))),
            ((12, 1), Some((120, "sm_120"))),
            ((13, 0), Some((120, "sm_130"))),
        ];
        for (compute, expected) in cases {
            let target = CodeTarget::of_card(compute).map(|t| (t.arch.0, t.name()));
            let expected = expected.map(|(arch, name)| (arch, name.to_string()));
            assert_eq!(target, expected, "compute capability {compute:?}");
        }
    }
}
