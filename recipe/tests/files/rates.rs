//! Curves and rates that only some tools have.

use concord_recipe::Warmup;

use crate::axolotl::AXOLOTL;
use crate::others::LLAMA_FACTORY;
use crate::{job, problems, values};

#[test]
fn rex_is_a_curve_of_axolotl_alone() {
    let text = AXOLOTL.replace("lr_scheduler: cosine", "lr_scheduler: rex");
    let found = job(&text);
    assert_eq!(problems(&found), []);
    values(&found, &[("lr_scheduler", "rex")]);
    assert!(found.setting("min_lr_ratio").is_none());
    assert_eq!(found.rules.unwrap().warmup, Warmup::ShareDown(0.1));
    let text = format!("{text}cosine_min_lr_ratio: 0.1\nlr_scheduler_kwargs: {{min_lr: 1}}\n");
    let found = job(&text);
    assert_eq!(problems(&found), []);
    values(&found, &[("lr_scheduler", "rex"), ("min_lr_ratio", "0.1")]);
    let idle = found
        .idle
        .iter()
        .any(|idle| idle.key == "lr_scheduler_kwargs");
    assert!(idle, "{:?}", found.idle);
    let other = LLAMA_FACTORY.replace("lr_scheduler_type: cosine", "lr_scheduler_type: rex");
    let refused = ("lr_scheduler_type", Some("lr_scheduler_type=cosine"));
    assert_eq!(problems(&job(&other)), [refused]);
}

#[test]
fn lora_plus_has_a_ratio_and_no_embedding() {
    let more = "loraplus_lr_ratio: 16\nloraplus_lr_embedding: 1.0e-6\n";
    for text in [AXOLOTL, LLAMA_FACTORY] {
        let found = job(&format!("{text}{more}"));
        assert_eq!(problems(&found), []);
        values(&found, &[("loraplus_lr_ratio", "16")]);
        let idle: Vec<&str> = found.idle.iter().map(|idle| &*idle.key).collect();
        assert!(idle.contains(&"loraplus_lr_embedding"), "{idle:?}");
    }
    let full = LLAMA_FACTORY.replace("finetuning_type: lora", "finetuning_type: full");
    for text in [AXOLOTL.replace("adapter: lora\n", ""), full] {
        let found = job(&format!("{text}{more}"));
        assert!(found.setting("loraplus_lr_ratio").is_none());
        let idle: Vec<&str> = found.idle.iter().map(|idle| &*idle.key).collect();
        assert!(idle.contains(&"loraplus_lr_ratio"), "{idle:?}");
    }
    let groups = job(&format!("{AXOLOTL}embedding_lr: 1e-5\n"));
    assert_eq!(
        problems(&groups),
        [("embedding_lr", Some("embedding_lr=null"))]
    );
}
