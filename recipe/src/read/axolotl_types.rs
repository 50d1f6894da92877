//! Axolotl's types of data sets that write an instruction and its answer in words of their own.

/// What a row of a type has, and in which words it is written.
pub struct InstructType {
    /// The fields of instruction and output.
    pub fields: (&'static str, &'static str),
    /// The words around instruction and input.
    pub format: String,
    /// The same without an input.
    pub no_input_format: String,
}

/// Words for a system's text, for an instruction with an input, and for one without.
type Style = (&'static str, &'static str, &'static str);

const STYLES: [(&str, Style); 4] = [
    (
        "instruct",
        (
            "{system}\n\n",
            "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
            "### Instruction:\n{instruction}\n\n### Response:\n",
        ),
    ),
    (
        "chat",
        (
            "SYSTEM: {system}\n",
            "USER: {instruction}\n{input}\nASSISTANT:",
            "USER: {instruction}\nASSISTANT:",
        ),
    ),
    (
        "chatml",
        (
            "<|im_start|>system\n{system}<|im_end|>\n",
            "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
            "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
        ),
    ),
    (
        "phi",
        (
            "<|system|>\n{system}<|end|>\n",
            "<|user|>\n{instruction}<|end|>{input}<|assistant|>",
            "<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
        ),
    ),
];

/// The system's text of Alpaca, for rows with an input and without.
const ALPACA: [&str; 2] = [
    "Below is an instruction that describes a task, paired with an input that provides further \
     context. Write a response that appropriately completes the request.",
    "Below is an instruction that describes a task. Write a response that appropriately completes \
     the request.",
];

/// The names of types, the fields of their rows, the style that they have without a `:`, and
/// whether Alpaca's system text is in front.
const TYPES: [(&str, (&str, &str), &str, bool); 7] = [
    ("alpaca", ("instruction", "output"), "instruct", true),
    (
        "alpaca_instruct",
        ("instruction", "output"),
        "instruct",
        true,
    ),
    ("alpaca_chat", ("instruction", "output"), "chat", true),
    ("gpteacher", ("instruction", "response"), "instruct", true),
    ("oasst", ("INSTRUCTION", "RESPONSE"), "instruct", true),
    (
        "alpaca_instruct.load_no_prompt",
        ("instruction", "output"),
        "instruct",
        false,
    ),
    (
        "alpaca_chat.load_no_prompt",
        ("instruction", "output"),
        "chat",
        false,
    ),
];

/// The names of the types, for messages.
pub const NAMES: &str = "alpaca, gpteacher and oasst, each also with :chat, :chatml or :phi \
                         behind it, alpaca_instruct and alpaca_chat, each also with \
                         .load_no_prompt";

/// The type of a name, such as `alpaca:chat`; `None` where it is not one of these.
pub fn instruct_type(name: &str) -> Option<InstructType> {
    let (base, style) = match name.split_once(':') {
        Some((base, style)) => (base, Some(style)),
        None => (name, None),
    };
    let (_, fields, usual, has_system) = TYPES.iter().find(|(name, ..)| *name == base)?;
    // Those that are modules of their own have one style.
    let takes_style = !base.starts_with("alpaca_");
    let style = style.filter(|style| !style.is_empty());
    if style.is_some() && !takes_style {
        return None;
    }
    let wanted = style.unwrap_or(usual);
    let (_, (around, with, without)) = STYLES.iter().find(|(name, _)| *name == wanted)?;
    let [system, system_without] = ALPACA.map(|text| match has_system {
        true => around.replace("{system}", text),
        false => String::new(),
    });
    Some(InstructType {
        fields: *fields,
        format: system + with,
        no_input_format: system_without + without,
    })
}
