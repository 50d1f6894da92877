use super::*;

#[test]
fn qlora_is_lora_on_a_base_of_4_bits() {
    let qlora = with("adapter", "adapter: qlora").unwrap();
    let both = with("", "load_in_4bit: true").unwrap();
    assert_eq!(qlora, both);
    assert_eq!(qlora.load_in, Some(QuantFormat::Nf4));
    let more = "adapter: qlora\nload_in_4bit: true\nbnb_4bit_quant_type: q4_k";
    assert_eq!(
        with("adapter", more).unwrap().load_in,
        Some(QuantFormat::Q4K)
    );
    for (more, words) in [
        (
            "load_in_4bit: false",
            "`load_in_4bit` is false, but `adapter: qlora`",
        ),
        (
            "load_in_8bit: true",
            "`load_in_8bit` is true, but `adapter: qlora`",
        ),
    ] {
        let error = refusal("adapter", &format!("adapter: qlora\n{more}"));
        assert!(
            error.contains(words) && error.contains("set `adapter: lora`"),
            "{error}"
        );
    }
}
