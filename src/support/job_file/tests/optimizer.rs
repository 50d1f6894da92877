use concord_models::train::MomentForm;
use concord_proto::MomentFormat;

use super::*;

#[test]
fn lion_and_gradient_descent_have_constants_of_their_own() {
    let rule = |more: &str| with("", more).unwrap().rule;
    let lion = |moments| UpdateRule::Lion {
        beta1: 0.95.into(),
        beta2: 0.999.into(),
        moments,
    };
    for (name, moments) in [
        ("lion_32bit", MomentFormat::F32),
        ("paged_lion_32bit", MomentFormat::F32),
        ("lion_8bit", MomentFormat::Bits8),
        ("paged_lion_8bit", MomentFormat::Bits8),
    ] {
        let text = format!("optimizer: {name}\nadam_beta1: 0.95");
        assert_eq!(rule(&text), lion(moments), "{name}");
    }
    let job = with("", "optimizer: lion_8bit").unwrap();
    assert_eq!(job.training_run(None).moments, MomentForm::FirstBits8);
    let sgd = |momentum: f32, nesterov| UpdateRule::Sgd {
        momentum: momentum.into(),
        nesterov,
    };
    assert_eq!(rule("optimizer: sgd"), sgd(0.0, false));
    let ahead = "optimizer: sgd\nmomentum: 0.9\nnesterov: true";
    assert_eq!(rule(ahead), sgd(0.9, true));
    for (text, idle) in [
        ("optimizer: lion_32bit\nadam_epsilon: 1e-6", "adam_epsilon"),
        ("optimizer: sgd\nadam_beta1: 0.5", "adam_beta1"),
        ("optimizer: sgd\nnesterov: true", "nesterov"),
        ("momentum: 0.9", "momentum"),
    ] {
        let error = refusal("", text);
        assert!(
            error.contains(&format!("`{idle}` has no effect")),
            "{error}"
        );
    }
}

#[test]
fn the_names_of_other_tools_for_adamw_say_how_its_moments_are_kept() {
    for name in ["adamw_torch", "adamw_torch_fused"] {
        let job = with("", &format!("optimizer: {name}")).unwrap();
        assert_eq!(job.training_run(None).moments, MomentForm::F32, "{name}");
    }
    for name in [
        "adamw_8bit",
        "adamw_bnb_8bit",
        "paged_adamw_8bit",
        "adamw_torch_8bit",
    ] {
        let job = with("", &format!("optimizer: {name}")).unwrap();
        assert_eq!(job.training_run(None).moments, MomentForm::Bits8, "{name}");
    }
    for other in ["lion", "adafactor", "8", "[adamw_8bit]"] {
        let error = refusal("", &format!("optimizer: {other}"));
        assert!(
            error.contains("one of adamw_torch, adamw_torch_fused"),
            "{error}"
        );
    }
}
