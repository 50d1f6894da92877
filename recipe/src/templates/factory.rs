//! LLaMA-Factory's templates, as its version of September 2026 has them. An answer is learnt with
//! all that stands behind it, such as the line feed behind an end token, so templates mark it.

use super::TurnFormat;
use super::axolotl::QWEN;
use super::format::{Marks, PLAIN, System};

/// A template of LLaMA-Factory, and what a file says of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FactoryTemplate {
    pub name: String,
    /// `default_system`.
    pub default_system: Option<String>,
    /// `enable_thinking`.
    pub thinks: bool,
}

const CHATML: TurnFormat = TurnFormat {
    system: System::Turn(("<|im_start|>system\n", "<|im_end|>\n")),
    user: ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    assistant: ("", "<|im_end|>\n"),
    tool: Some(("<|im_start|>tool\n", "<|im_end|>\n<|im_start|>assistant\n")),
    alternates: true,
    ..PLAIN
};

/// As Qwen writes what a tool said.
const QWEN_TOOL: (&str, &str) = (
    "<|im_start|>user\n<tool_response>\n",
    "\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
);

const LLAMA3: TurnFormat = TurnFormat {
    begin: "{bos}",
    system: System::Turn((
        "<|start_header_id|>system<|end_header_id|>\n\n",
        "<|eot_id|>",
    )),
    user: (
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    assistant: ("", "<|eot_id|>"),
    tool: Some((
        "<|start_header_id|>ipython<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    )),
    alternates: true,
    ..PLAIN
};

const GEMMA: TurnFormat = TurnFormat {
    begin: "{bos}",
    system: System::Within(("", "\n\n")),
    user: (
        "<start_of_turn>user\n",
        "<end_of_turn>\n<start_of_turn>model\n",
    ),
    assistant: ("", "<end_of_turn>\n"),
    tool: Some((
        "<start_of_turn>tool\n",
        "<end_of_turn>\n<start_of_turn>model\n",
    )),
    alternates: true,
    ..PLAIN
};

const MISTRAL: TurnFormat = TurnFormat {
    begin: "{bos}",
    system: System::Within(("", "\n\n")),
    user: ("[INST]", "[/INST]"),
    assistant: ("", "{eos}"),
    alternates: true,
    ..PLAIN
};

const PHI: TurnFormat = TurnFormat {
    system: System::Turn(("<|system|>\n", "<|end|>\n")),
    user: ("<|user|>\n", "<|end|>\n<|assistant|>\n"),
    assistant: ("", "<|end|>\n"),
    alternates: true,
    ..PLAIN
};

const DEEPSEEK: TurnFormat = TurnFormat {
    begin: "{bos}",
    system: System::Turn(("", "")),
    user: ("<\u{ff5c}User\u{ff5c}>", "<\u{ff5c}Assistant\u{ff5c}>"),
    assistant: ("", "{eos}"),
    alternates: true,
    ..PLAIN
};

/// Texts alone, and the end token behind answers.
const BARE: TurnFormat = TurnFormat {
    system: System::Turn(("", "")),
    assistant: ("", "{eos}"),
    alternates: true,
    ..PLAIN
};

/// How a template thinks and ends.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    /// Answers have a thought, an empty one where the row has none.
    Thinks,
    /// The end token stands behind the last answer alone.
    EndsLast,
}

/// The names that are known.
pub(super) const NAMES: &str = "alpaca, chatml, deepseek, deepseek3, deepseekr1, default, empty, \
    falcon_h1, gemma, gemma2, gemma3, granite3, llama2, llama3, ministral, mistral, mistral_small, \
    openchat, phi, phi4, qwen, qwen3, qwen3_nothink, smollm, smollm2, vicuna, yi and zephyr";

impl FactoryTemplate {
    /// Its text (Jinja).
    ///
    /// # Errors
    /// Half a sentence, where the name is not known.
    pub fn jinja(&self) -> Result<String, String> {
        let (format, way) = format(&self.name).ok_or_else(|| {
            format!(
                "known are {NAMES}; without the key the tokenizer's own is used, which for most \
                 models is the same"
            )
        })?;
        let marks = Marks {
            ends_last: way == Way::EndsLast,
            thoughts: (way == Way::Thinks).then_some(self.thinks),
        };
        Ok(format.jinja(self.default_system.as_deref(), Some(marks)))
    }

    /// Whether answers have an end of their own.
    pub fn ends_answers(&self) -> bool {
        !matches!(format(&self.name), Some((_, Way::EndsLast)))
    }

    /// Whether answers of it have thoughts.
    pub fn has_thoughts(&self) -> bool {
        matches!(format(&self.name), Some((_, Way::Thinks)))
    }
}

fn format(name: &str) -> Option<(TurnFormat, Way)> {
    let qwen = TurnFormat {
        tool: Some(QWEN_TOOL),
        ..CHATML
    };
    let with = |default: &'static str, format: TurnFormat| TurnFormat {
        default_system: Some(default),
        ..format
    };
    let found = match name {
        "chatml" | "yi" => CHATML,
        "smollm" => TurnFormat {
            tool: None,
            ..CHATML
        },
        "smollm2" => with(
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face.",
            TurnFormat {
                tool: None,
                ..CHATML
            },
        ),
        "falcon_h1" => TurnFormat {
            begin: "{bos}",
            ..CHATML
        },
        "qwen" => with(QWEN, qwen),
        "qwen3_nothink" => qwen,
        "qwen3" => return Some((qwen, Way::Thinks)),
        "llama3" => LLAMA3,
        "gemma" | "gemma3" => GEMMA,
        "gemma2" => return Some((GEMMA, Way::EndsLast)),
        "mistral" => TurnFormat {
            user: ("[INST] ", "[/INST]"),
            assistant: (" ", "{eos}"),
            ..MISTRAL
        },
        "ministral" => MISTRAL,
        "mistral_small" => TurnFormat {
            system: System::Turn(("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")),
            ..MISTRAL
        },
        "phi" => PHI,
        "deepseek3" => DEEPSEEK,
        "deepseekr1" => return Some((DEEPSEEK, Way::Thinks)),
        name => return older(name),
    };
    Some((found, Way::Plain))
}

/// Formats of older models, or of one family.
fn older(name: &str) -> Option<(TurnFormat, Way)> {
    let found = match name {
        "empty" => TurnFormat {
            assistant: ("", ""),
            ..BARE
        },
        "default" => TurnFormat {
            system: System::Turn(("System: ", "{eos}\n")),
            user: ("Human: ", "{eos}\nAssistant:"),
            assistant: ("", "{eos}\n"),
            ..BARE
        },
        "alpaca" => TurnFormat {
            user: ("### Instruction:\n", "\n\n### Response:\n"),
            assistant: ("", "{eos}\n\n"),
            default_system: Some(
                "Below is an instruction that describes a task. Write a response that \
                 appropriately completes the request.\n\n",
            ),
            ..BARE
        },
        "vicuna" => TurnFormat {
            user: ("USER: ", " ASSISTANT:"),
            default_system: Some(
                "A chat between a curious user and an artificial intelligence assistant. The \
                 assistant gives helpful, detailed, and polite answers to the user's questions.",
            ),
            ..BARE
        },
        "zephyr" => TurnFormat {
            system: System::Turn(("<|system|>\n", "{eos}")),
            user: ("<|user|>\n", "{eos}<|assistant|>\n"),
            default_system: Some("You are Zephyr, a helpful assistant."),
            ..BARE
        },
        name => of_one_family(name)?,
    };
    Some((found, Way::Plain))
}

fn of_one_family(name: &str) -> Option<TurnFormat> {
    Some(match name {
        "openchat" => TurnFormat {
            begin: "{bos}",
            user: ("GPT4 Correct User: ", "{eos}GPT4 Correct Assistant:"),
            ..BARE
        },
        "deepseek" => TurnFormat {
            begin: "{bos}",
            system: System::Turn(("", "\n\n")),
            user: ("User: ", "\n\nAssistant:"),
            ..BARE
        },
        "llama2" => TurnFormat {
            system: System::Within(("<<SYS>>\n", "\n<</SYS>>\n\n")),
            user: ("{bos}[INST] ", " [/INST]"),
            ..BARE
        },
        "granite3" => TurnFormat {
            system: System::Turn((
                "<|start_of_role|>system<|end_of_role|>",
                "<|end_of_text|>\n",
            )),
            user: (
                "<|start_of_role|>user<|end_of_role|>",
                "<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
            ),
            assistant: ("", "<|end_of_text|>\n"),
            ..BARE
        },
        "phi4" => TurnFormat {
            system: System::Turn(("<|im_start|>system<|im_sep|>", "<|im_end|>")),
            user: (
                "<|im_start|>user<|im_sep|>",
                "<|im_end|><|im_start|>assistant<|im_sep|>",
            ),
            assistant: ("", "<|im_end|>"),
            ..BARE
        },
        _ => return None,
    })
}
