"""Writes what transformers makes of conversations with a template that marks answers.

`python make_masks.py` with transformers 5.24 writes tokenizer.json and masks.json beside it.
"""

import json
import pathlib

from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent


def byte_name(byte):
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + sum(1 for b in range(byte) if b not in printable))


def tokenizer_json():
    vocab = {byte_name(byte): byte for byte in range(256)}
    merges = [["a", "n"], ["an", "s"], ["\u0120", "w"], ["e", "r"], ["\u010a", "\u010a"],
              ["h", "e"], ["\u0120", "the"], ["t", "he"], ["\u00f0", "\u0141"]]
    merges = [pair for pair in merges if pair != ["\u0120", "the"]] + [["\u0120", "the"]]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    names = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    added = [{"id": len(vocab) + at, "content": name, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": True}
             for at, name in enumerate(names)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": level, "post_processor": level, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                      "merges": merges}}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = [
    [said("user", "who?"), said("assistant", "the answer")],
    [said("system", "be brief"), said("user", "a\n\nb"), said("assistant", "he\n\n"),
     said("user", " the"), said("assistant", " the er ")],
    [said("user", "\u4f60\u597d"), said("assistant", "\U0001f600 ok \U0001f600")],
    [said("assistant", "first"), said("user", "e\u0301"), said("assistant", "x")],
    [said("user", "weather?"),
     said("assistant", "", tool_calls=[{"type": "function", "function": {
         "name": "get", "arguments": {"city": "Bern", "days": [1, 2]}}}]),
     said("tool", "{\"t\": 3}"), said("assistant", "three")],
]
TOOLS = [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]


def main():
    (HERE / "tokenizer.json").write_text(json.dumps(tokenizer_json()) + "\n")
    (HERE / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}\n')
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(HERE / "tokenizer.json"),
                                        eos_token="<|im_end|>")
    template = (HERE / "marked.jinja").read_text()
    cases = []
    for messages in CONVERSATIONS:
        tools = TOOLS if any("tool_calls" in message for message in messages) else None
        made = tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=template, tokenize=True, return_dict=True,
            return_assistant_tokens_mask=True)
        cases.append({"messages": messages, "tools": tools, "ids": made["input_ids"],
                      "mask": made["assistant_masks"]})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "masks.json").write_text(f"[\n{lines}\n]\n")


main()
