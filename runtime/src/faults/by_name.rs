//! The liars by the names that the command line takes.

use std::str::FromStr;

use super::altered_activation::AlteredActivation;
use super::altered_sent::AlteredSent;
use super::false_accuser::FalseAccuser;
use super::false_norm::FalseNorm;
use super::forged_signature::ForgedSignature;
use super::lazy_checker::LazyChecker;
use super::lower_precision::LowerPrecision;
use super::malformed_bytes::MalformedBytes;
use super::no_dropout::NoDropout;
use super::other_weights::OtherWeights;
use super::replayed_claim::ReplayedClaim;
use super::skipped_step::SkippedStep;
use super::stale_weights::StaleWeights;
use super::wrong_logprob::WrongLogprob;
use super::wrong_token::WrongToken;
use super::{Faults, WrongData};

/// Makes a liar that lies from a step on; those of serving lie in the pass of that number.
type Maker = fn(u32) -> Faults;

const LIARS: [(&str, Maker); 18] = [
    ("skipped-step", |from_step| {
        Faults::of(SkippedStep { from_step })
    }),
    ("wrong-data", |from_step| {
        Faults::of(WrongData { from_step })
    }),
    ("no-dropout", |from_step| {
        Faults::of(NoDropout { from_step })
    }),
    ("false-norm", |from_step| {
        Faults::of(FalseNorm {
            from_step,
            squared: 1e20,
        })
    }),
    ("nan-norm", |from_step| {
        Faults::of(FalseNorm {
            from_step,
            squared: f32::NAN,
        })
    }),
    ("infinite-norm", |from_step| {
        Faults::of(FalseNorm {
            from_step,
            squared: f32::INFINITY,
        })
    }),
    ("stale-weights", |from_step| {
        Faults::of(StaleWeights { from_step })
    }),
    ("lower-precision", |_| Faults::of(LowerPrecision)),
    ("replayed-claim", |from_step| {
        Faults::of(ReplayedClaim::new(from_step))
    }),
    ("forged-signature", |from_step| {
        Faults::of(ForgedSignature { from_step })
    }),
    ("malformed-bytes", |from_step| {
        Faults::of(MalformedBytes { from_step })
    }),
    ("lazy-checker", |from_step| {
        Faults::of(LazyChecker { from_step })
    }),
    ("false-accuser", |from_step| {
        Faults::of(FalseAccuser { from_step })
    }),
    ("alter-activation", |pass| {
        Faults::of(AlteredActivation { pass: pass.into() })
    }),
    ("alter-sent", |pass| {
        Faults::of(AlteredSent { pass: pass.into() })
    }),
    ("other-weights", |_| Faults::of(OtherWeights)),
    ("wrong-token", |pass| {
        Faults::of(WrongToken { pass: pass.into() })
    }),
    ("wrong-logprob", |pass| {
        Faults::of(WrongLogprob { pass: pass.into() })
    }),
];

impl FromStr for Faults {
    type Err = String;

    /// Such as "wrong-data" or "wrong-data@3".
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, from) = text.split_once('@').unwrap_or((text, "0"));
        let found = LIARS.iter().find(|(known, _)| *known == name);
        let Some((_, make)) = found else {
            let known: Vec<&str> = LIARS.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            return Err(format!("there is no liar '{name}': known are {known}"));
        };
        let from = from.parse();
        let from = from.map_err(|_| format!("'{text}' names no step, such as in '{name}@3'"))?;
        Ok(make(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_liar_has_one_name() {
        for (name, _) in LIARS {
            for text in [name.to_string(), format!("{name}@3")] {
                assert!(text.parse::<Faults>().is_ok(), "{text}");
            }
            let same = LIARS.iter().filter(|(other, _)| *other == name);
            assert_eq!(same.count(), 1, "{name}");
        }
    }

    #[test]
    fn what_is_no_liar_is_refused_by_name() {
        for (text, words) in [
            ("nobody", "there is no liar 'nobody'"),
            ("", "wrong-data"),
            ("wrong-data@", "names no step"),
            ("wrong-data@-1", "names no step"),
            ("wrong-data@x", "wrong-data@3"),
        ] {
            let why = text.parse::<Faults>().unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_liar_lies_from_its_step_on() {
        let faults: Faults = "stale-weights@3".parse().unwrap();
        let lies: Vec<bool> = (0..6)
            .map(|step| faults.keeps_weights_at_commit(step))
            .collect();
        assert_eq!(lies, [false, false, false, true, true, true]);
    }
}
