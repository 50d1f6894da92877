//! `concord verify`: the proof of a job, or the receipt of an answer, checked with no coordinator
//! running.

mod heads;
mod percent;
mod proof;
mod receipt;
mod replay;
mod replay_case;
mod verdict;
mod words;

use std::path::PathBuf;
use std::str::FromStr;

use concord_proto::{Digest, PublicKey};

use crate::support::device::DeviceArgs;
use crate::support::job_file::ReadOptions;
use crate::support::load_in::LoadInArgs;
use crate::support::output::{Output, Unshown};
use verdict::is_refutation;

/// Options of `concord verify`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord verify out/shakespeare/proof
  concord verify out/shakespeare/proof --model out/shakespeare   # the weights, too
  concord verify out/shakespeare/proof --replay 3 --job examples/shakespeare.yaml
  concord verify out/shakespeare/proof --checker KEY             # one that you trust
  concord verify out/shakespeare/proof --heads ~/worker          # as that worker saw it
  concord verify receipt.json --model path/to/model              # an answer of `concord serve`
  concord verify receipt.json --model path/to/model --adapter out/poet --device cuda:0

A proof shows who claims to have done the work, that the claims fit together from the first step
to the last, and which pieces of work that were drawn for an audit were re-run by somebody else.
All of that can come from one hand that has all the keys. So it is called proven only where you
name a checker that you trust (--checker): it drew what it re-ran by secrets of its own, which
nobody else knew before the work was signed. The key of one of your own is printed by `concord
train --audit 1%`. Or let this machine compute a part of the job again (--replay).

With --replay, segments of the job are drawn by chance, here and now, and computed from the states
that the proof has kept, with the model and the data that the job file names; every record must
come out. Nobody's word enters into that.

Exit status: 0 if all that was asked for is shown, 1 if something is refuted (the proof, the
weights or the receipt do not hold), 2 if neither: not enough is shown, something that is needed is
missing, or the command line is wrong.")]
pub struct VerifyArgs {
    /// The folder of a proof, or the file of a receipt.
    #[arg(value_name = "BUNDLE_DIR_OR_RECEIPT")]
    path: PathBuf,
    /// A folder that the job wrote: check that its weights are those that the proof ends with. With
    /// --replay, also the base model, where it is not where the job file says. For a receipt, the
    /// model that answered.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    load_in: LoadInArgs,
    /// The adapter that answered, as a PEFT folder.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The key that must have signed the proof or the receipt; by default any key.
    #[arg(long, value_name = "KEY")]
    coordinator: Option<String>,
    /// The key of a checker or auditor that you trust; may be given again. Audits by others count
    /// for nothing then.
    #[arg(long, value_name = "KEY")]
    checker: Vec<String>,
    /// What a worker or checker has kept of the ledger that it was shown: its --dir, or a file of
    /// `heads` in it; may be given again. A proof with another history is refuted.
    #[arg(long, value_name = "PATH")]
    heads: Vec<PathBuf>,
    /// Compute so many segments between kept states again, drawn by chance, or all.
    #[arg(long, value_name = "K|all")]
    replay: Option<ReplayCount>,
    /// The job file, for --replay: the base model and the data that it names are read.
    #[arg(long, value_name = "FILE", requires = "replay")]
    job: Option<PathBuf>,
    #[command(flatten)]
    asked: ReadOptions,
    /// What the segments are drawn by, as 64 hexadecimal digits, to repeat a draw; by default fresh
    /// randomness, which nobody could foresee.
    #[arg(long, value_name = "HEX", requires = "replay")]
    replay_seed: Option<Digest>,
    /// Where segments, or a receipt's answer, are computed again.
    #[command(flatten)]
    device: DeviceArgs,
}

/// How many segments are computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplayCount {
    Some(u32),
    All,
}

impl FromStr for ReplayCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(count @ 1..)) => Ok(Self::Some(count)),
            _ => Err(format!("'{text}': a number from 1, or all")),
        }
    }
}

/// Checks a proof and, if they are given, the weights; or a receipt.
///
/// # Errors
/// Naming the file, the statement in it and, where one is at fault, the party; [`Unshown`] where
/// nothing is refuted, but not enough is shown.
pub fn run(args: &VerifyArgs, output: &Output) -> anyhow::Result<()> {
    let done = match args.path.is_file() {
        true => receipt::run(args, output),
        false => proof::run(args, output),
    };
    done.map_err(
        |error| match is_refutation(&error) || error.is::<Unshown>() {
            true => error,
            false => error.context(Unshown(format!("{}: not proven", args.path.display()))),
        },
    )
}

impl VerifyArgs {
    /// The key that must have signed.
    ///
    /// # Errors
    /// Where it is no key.
    fn coordinator(&self) -> anyhow::Result<Option<PublicKey>> {
        self.coordinator.as_deref().map(key).transpose()
    }
}

fn key(text: &str) -> anyhow::Result<PublicKey> {
    let digest: Digest = text.parse().map_err(anyhow::Error::msg)?;
    Ok(PublicKey(digest.0))
}

#[cfg(test)]
mod tests {
    use super::ReplayCount;

    #[test]
    fn segments_are_a_number_or_all() {
        assert_eq!("all".parse(), Ok(ReplayCount::All));
        assert_eq!("3".parse(), Ok(ReplayCount::Some(3)));
        for text in ["0", "-1", "some", "", "1.5"] {
            let refused = text.parse::<ReplayCount>().unwrap_err();
            assert!(refused.contains("a number from 1, or all"), "{refused}");
        }
    }
}
