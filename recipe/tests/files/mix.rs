//! Data sets that alternate, as LLaMA-Factory has it.

use crate::others::LLAMA_FACTORY;
use crate::{job, problems, values};

#[test]
fn strategies_and_shares_are_taken_over() {
    let more = "mix_strategy: interleave_over\ninterleave_probs: 0.7,0.3\n";
    let found = job(&format!("{LLAMA_FACTORY}{more}"));
    assert_eq!(problems(&found), []);
    values(
        &found,
        &[
            ("mix_strategy", "interleave_over"),
            ("interleave_probs", "[0.7,0.3]"),
        ],
    );
    let found = job(&format!("{LLAMA_FACTORY}mix_strategy: interleave_under\n"));
    assert_eq!(problems(&found), []);
    assert!(found.setting("interleave_probs").is_none());
    let evaluated = format!("{LLAMA_FACTORY}{more}eval_dataset: ours,talks\n");
    let refused = ("mix_strategy", Some("mix_strategy=concat"));
    assert_eq!(problems(&job(&evaluated)), [refused]);
}

#[test]
fn what_is_joined_has_no_shares() {
    let one = LLAMA_FACTORY.replace("dataset: ours,talks", "dataset: ours");
    for text in [
        format!("{LLAMA_FACTORY}mix_strategy: concat\ninterleave_probs: 0.5,0.5\n"),
        format!("{one}mix_strategy: interleave_under\ninterleave_probs: 0.5,0.5\n"),
    ] {
        let found = job(&text);
        assert_eq!(problems(&found), []);
        assert!(found.setting("mix_strategy").is_none());
        let idle = found
            .idle
            .iter()
            .filter(|idle| idle.key == "mix_strategy" || idle.key == "interleave_probs");
        assert_eq!(idle.count(), 2, "{:?}", found.idle);
    }
    let other = job(&format!("{LLAMA_FACTORY}mix_strategy: blend\n"));
    assert_eq!(problems(&other), [("mix_strategy", None)]);
}
