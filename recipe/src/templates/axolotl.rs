//! Axolotl's templates, as its version of November 2026 writes conversations without tools. Those
//! that are not here are refused by name.

use super::TurnFormat;
use super::format::{PLAIN, System};

/// The names that are known.
pub(super) const NAMES: [&str; 14] = [
    "chatml",
    "cohere",
    "gemma",
    "gemma3",
    "llama3",
    "mistral_v1",
    "mistral_v2v3",
    "mistral_v3_tekken",
    "mistral_v7_tekken",
    "phi_3",
    "phi_35",
    "phi_4",
    "qwen3",
    "qwen_25",
];

const CHATML: TurnFormat = TurnFormat {
    system: System::Turn(("<|im_start|>system\n", "<|im_end|>\n")),
    user: ("<|im_start|>user\n", "<|im_end|>\n"),
    assistant: ("<|im_start|>assistant\n", "<|im_end|>\n"),
    tool: Some(("<|im_start|>tool\n", "<|im_end|>\n")),
    ..PLAIN
};

const LLAMA3: TurnFormat = TurnFormat {
    begin: "{bos}",
    system: System::Turn((
        "<|start_header_id|>system<|end_header_id|>\n\n",
        "<|eot_id|>",
    )),
    user: ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    assistant: (
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    tool: Some(("<|start_header_id|>tool<|end_header_id|>\n\n", "<|eot_id|>")),
    trims: true,
    ..PLAIN
};

const GEMMA: TurnFormat = TurnFormat {
    begin: "{bos}",
    user: ("<start_of_turn>user\n", "<end_of_turn>\n"),
    assistant: ("<start_of_turn>model\n", "<end_of_turn>\n"),
    trims: true,
    alternates: true,
    ..PLAIN
};

const COHERE: TurnFormat = TurnFormat {
    begin: "{bos}",
    system: System::Turn((
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
    )),
    user: (
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    assistant: (
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    trims: true,
    alternates: true,
    ..PLAIN
};

const PHI: TurnFormat = TurnFormat {
    system: System::Turn(("<|system|>\n", "<|end|>\n")),
    user: ("<|user|>\n", "<|end|>\n"),
    assistant: ("<|assistant|>\n", "<|end|>\n"),
    ..PLAIN
};

const MISTRAL: TurnFormat = TurnFormat {
    begin: "{bos}",
    user: ("[INST]", "[/INST]"),
    assistant: ("", "{eos}"),
    alternates: true,
    ..PLAIN
};

/// The system's text of Qwen 2.5 for conversations that have none.
pub(super) const QWEN: &str =
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

/// Qwen3's, which keeps the thoughts behind the last question alone.
const QWEN3: &str = include_str!("qwen3.jinja");

/// The text of a template; `None` where the name is not known.
pub(super) fn template(name: &str) -> Option<String> {
    let format = match name {
        "qwen3" => return Some(QWEN3.trim_end().to_string()),
        "chatml" => CHATML,
        "qwen_25" => TurnFormat {
            default_system: Some(QWEN),
            tool: None,
            ..CHATML
        },
        "cohere" => COHERE,
        "llama3" => LLAMA3,
        "gemma" => GEMMA,
        "gemma3" => TurnFormat {
            system: System::Within(("", "\n\n")),
            ..GEMMA
        },
        "phi_3" => TurnFormat {
            begin: "{bos}",
            ..PHI
        },
        "phi_35" => PHI,
        "phi_4" => TurnFormat {
            system: System::Turn(("<|im_start|>system<|im_sep|>", "<|im_end|>")),
            needs_system: true,
            user: ("<|im_start|>user<|im_sep|>", "<|im_end|>"),
            assistant: ("<|im_start|>assistant<|im_sep|>", "<|im_end|>"),
            ..PLAIN
        },
        "mistral_v1" => TurnFormat {
            user: (" [INST] ", " [/INST]"),
            assistant: (" ", "{eos}"),
            ..MISTRAL
        },
        "mistral_v2v3" => TurnFormat {
            user: ("[INST] ", "[/INST]"),
            assistant: (" ", "{eos}"),
            ..MISTRAL
        },
        "mistral_v3_tekken" => MISTRAL,
        "mistral_v7_tekken" => TurnFormat {
            system: System::Turn(("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")),
            needs_system: true,
            alternates: false,
            ..MISTRAL
        },
        _ => return None,
    };
    Some(format.jinja(None, None))
}
