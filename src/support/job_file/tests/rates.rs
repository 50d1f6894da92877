use super::*;

fn schedule(more: &str) -> RateSchedule {
    let job = with("lr_scheduler", more).unwrap();
    job.schedule(&steps(&job))
}

#[test]
fn rex_may_have_a_floor() {
    let rex = |floor: f32| ScheduleKind::Rex {
        floor: floor.into(),
    };
    assert_eq!(schedule("lr_scheduler: rex").kind, rex(0.0));
    let floor = "lr_scheduler: rex\nmin_lr_ratio: 0.25";
    assert_eq!(schedule(floor).kind, rex(0.25));
    assert!(refusal("lr_scheduler", "lr_scheduler: rexx").contains("inverse_sqrt, rex"));
}

#[test]
fn matrices_b_may_have_a_rate_of_their_own() {
    let ratio = |more: &str| schedule(more).b_ratio;
    assert_eq!(ratio("loraplus_lr_ratio: 16"), Some(16.0.into()));
    // The same job has one name.
    assert_eq!(ratio("loraplus_lr_ratio: 1.0"), None);
    assert_eq!(ratio(""), None);
    for wrong in ["0", "-2", "much", "[16]"] {
        let error = refusal("", &format!("loraplus_lr_ratio: {wrong}"));
        assert!(error.contains("must be a number above 0"), "{error}");
    }
    let job = JOB.replace("lora_r: 4\nlora_alpha: 32\n", "");
    let job = job.replace("adapter: lora ", "adapter: full ") + "loraplus_lr_ratio: 16\n";
    let error = format!("{:#}", parse(&job).unwrap_err());
    assert!(
        error.contains("`loraplus_lr_ratio` has no effect with `adapter: full`"),
        "{error}"
    );
}
