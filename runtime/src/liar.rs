//! Ways to cheat, for tests of the proof. Compiled only with the feature `liars`.

mod serving;

use std::str::FromStr;

use concord_proto::ledger::Finding;
use concord_proto::{Digest, Leaf, Port, Signed};

use crate::wrong_data::WrongData;

/// What a cheat does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cheat {
    /// Claims an update that it did not do.
    SkippedStep,
    /// Computes on other tokens than it claims.
    WrongData,
    /// Keeps the weights of an old step.
    StaleWeights,
    /// Computes with weights of 8 bits.
    LowerPrecision,
    /// Sends the claim of the step before.
    ReplayedClaim,
    /// Sends a claim whose signature is not its own.
    ForgedSignature,
    /// Sends bytes that are no message.
    MalformedBytes,
    /// Passes every leaf without a look.
    LazyChecker,
    /// Calls every leaf wrong, without a look.
    FalseAccuser,
    /// Alters an activation of one pass, and claims it.
    AlterActivation,
    /// Sends other rows than it claims, in one pass.
    AlterSent,
    /// Serves with other weights.
    OtherWeights,
    /// Reports another token than it drew, once.
    WrongToken,
}

impl Cheat {
    /// All, with the names that the command line takes.
    pub const ALL: [(&'static str, Self); 13] = [
        ("skipped-step", Self::SkippedStep),
        ("wrong-data", Self::WrongData),
        ("stale-weights", Self::StaleWeights),
        ("lower-precision", Self::LowerPrecision),
        ("replayed-claim", Self::ReplayedClaim),
        ("forged-signature", Self::ForgedSignature),
        ("malformed-bytes", Self::MalformedBytes),
        ("lazy-checker", Self::LazyChecker),
        ("false-accuser", Self::FalseAccuser),
        ("alter-activation", Self::AlterActivation),
        ("alter-sent", Self::AlterSent),
        ("other-weights", Self::OtherWeights),
        ("wrong-token", Self::WrongToken),
    ];
}

/// A cheat from some step on; of those of serving, in the pass of that number.
#[derive(Clone, Debug)]
pub struct Lie {
    cheat: Cheat,
    from_step: u32,
    last_claim: Option<Signed>,
}

impl FromStr for Lie {
    type Err = String;

    /// Such as "wrong-data" or "wrong-data@3".
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, step) = text.split_once('@').unwrap_or((text, "0"));
        let known = Cheat::ALL.iter().find(|(known, _)| *known == name);
        let cheat = known.ok_or_else(|| format!("unknown cheat '{name}'"))?.1;
        let from_step = step.parse().map_err(|_| format!("'{step}' is no step"))?;
        Ok(Self {
            cheat,
            from_step,
            last_claim: None,
        })
    }
}

impl Lie {
    fn tells(&self, cheat: Cheat, step: u32) -> bool {
        self.cheat == cheat && step >= self.from_step
    }

    /// Whether it computes with weights of 8 bits: from the first step on, whatever is said.
    pub(crate) fn lowers_precision(&self) -> bool {
        self.cheat == Cheat::LowerPrecision
    }

    /// What a checker that does not look says of a leaf; nothing where it looks.
    pub(crate) fn finding(&self, step: u32, leaf: &Leaf) -> Option<Finding> {
        if self.tells(Cheat::LazyChecker, step) {
            return Some(Finding::Agrees);
        }
        let invented = |port: &Port| Port {
            kind: port.kind,
            digest: Digest([0x5a; 32]),
        };
        let computed = leaf.outputs.iter().map(invented).collect();
        self.tells(Cheat::FalseAccuser, step)
            .then_some(Finding::Differs { computed })
    }

    pub(crate) fn skips_step(&self, step: u32) -> bool {
        self.tells(Cheat::SkippedStep, step)
    }

    pub(crate) fn keeps_stale_weights(&self, step: u32) -> bool {
        self.tells(Cheat::StaleWeights, step)
    }

    pub(crate) fn garbles(&self, step: u32) -> bool {
        self.tells(Cheat::MalformedBytes, step)
    }

    pub(crate) fn wrong_data(&self) -> Option<WrongData> {
        let from_step = self.from_step;
        (self.cheat == Cheat::WrongData).then_some(WrongData { from_step })
    }

    pub(crate) fn claim(&mut self, step: u32, claim: Signed) -> Signed {
        let last = self.last_claim.replace(claim.clone());
        if self.tells(Cheat::ForgedSignature, step) {
            let mut forged = claim;
            forged.signature[7] ^= 1;
            return forged;
        }
        match last {
            Some(last) if self.tells(Cheat::ReplayedClaim, step) => last,
            _ => claim,
        }
    }
}
