//! The optimizer of a job file.

use concord_proto::{MomentFormat, UpdateRule};

use super::keys::Keys;

/// What the words of `optimizer` mean, in the order of the table.
const KINDS: [Kind; 11] = [
    Kind::AdamW(MomentFormat::F32),
    Kind::AdamW(MomentFormat::F32),
    Kind::AdamW(MomentFormat::Bits8),
    Kind::AdamW(MomentFormat::Bits8),
    Kind::AdamW(MomentFormat::Bits8),
    Kind::AdamW(MomentFormat::Bits8),
    Kind::Lion(MomentFormat::F32),
    Kind::Lion(MomentFormat::F32),
    Kind::Lion(MomentFormat::Bits8),
    Kind::Lion(MomentFormat::Bits8),
    Kind::Sgd,
];

#[derive(Clone, Copy)]
enum Kind {
    AdamW(MomentFormat),
    Lion(MomentFormat),
    Sgd,
}

/// What is done with gradients. Constants that the optimizer lacks are refused.
pub(super) fn rule(keys: &Keys) -> anyhow::Result<UpdateRule> {
    let number = |key: &str| keys.number(key).map(Into::into);
    let (rule, idle): (_, &[&str]) = match keys.word("optimizer", &KINDS)? {
        Kind::AdamW(moments) => {
            let rule = UpdateRule::AdamW {
                beta1: number("adam_beta1")?,
                beta2: number("adam_beta2")?,
                epsilon: number("adam_epsilon")?,
                moments,
            };
            (rule, &["momentum", "nesterov"])
        }
        Kind::Lion(moments) => {
            let rule = UpdateRule::Lion {
                beta1: number("adam_beta1")?,
                beta2: number("adam_beta2")?,
                moments,
            };
            (rule, &["adam_epsilon", "momentum", "nesterov"])
        }
        Kind::Sgd => {
            let (momentum, nesterov) = (keys.number("momentum")?, keys.flag("nesterov")?);
            if nesterov && momentum == 0.0 {
                return Err(keys.idle("nesterov", "without `momentum`"));
            }
            let rule = UpdateRule::Sgd {
                momentum: momentum.into(),
                nesterov,
            };
            (rule, &["adam_beta1", "adam_beta2", "adam_epsilon"])
        }
    };
    match idle.iter().find(|key| keys.has(key)) {
        Some(key) => Err(keys.idle(key, "with this `optimizer`")),
        None => Ok(rule),
    }
}
