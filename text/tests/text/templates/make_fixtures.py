"""Writes jinja2.json: what transformers' own renderer makes of the templates beside this file.

Run with a Python that has transformers 5: python text/tests/text/templates/make_fixtures.py"""

import copy
import json
import os

from transformers.utils import chat_template_utils

from families import CONVERSATIONS, FAMILIES
from snippets import ALL, VARIABLES

HERE = os.path.dirname(os.path.abspath(__file__))


def case(name, template, messages, tools, prompt, more):
    given = {"name": name, "template": template, "messages": messages, "tools": tools, "add_generation_prompt": prompt, "more": more}
    given = copy.deepcopy(given)
    try:
        chat = chat_template_utils._normalize_chat_messages(copy.deepcopy(messages))
        rendered, _ = chat_template_utils.render_jinja_template([chat], tools=copy.deepcopy(tools), chat_template=template, add_generation_prompt=prompt, **copy.deepcopy(more))
        given["text"] = rendered[0]
    except Exception as error:
        raised = type(error).__name__ == "TemplateError"
        given["error"] = str(error) if raised else ""
    return given


def main():
    cases = []
    hello = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    for kind, templates in ALL.items():
        for index, template in enumerate(templates):
            made = case(f"{kind} {index}", template, hello, None, False, {})
            made["more"] = "variables"
            made.pop("messages"), made.pop("tools"), made.pop("add_generation_prompt")
            again = case(made["name"], template, hello, None, False, VARIABLES)
            for key in ("text", "error"):
                made.pop(key, None)
                if key in again:
                    made[key] = again[key]
            assert ("error" in made) == (kind == "errors"), (template, made)
            cases.append(made)
    families = []
    for name, template in FAMILIES.items():
        for index, (conversation, options) in enumerate(CONVERSATIONS):
            more = {"bos_token": "<s>", "eos_token": "</s>", **options}
            prompt = more.pop("add_generation_prompt", True)
            made = case(f"{name} {index}", template, conversation["messages"], conversation.get("tools"), prompt, more)
            for key in ("template", "messages", "tools", "add_generation_prompt", "more"):
                made.pop(key)
            made.update(family=name, conversation=index)
            families.append(made)
    conversations = [{"messages": c["messages"], "tools": c.get("tools"), "more": {k: v for k, v in o.items() if k != "add_generation_prompt"}, "add_generation_prompt": o.get("add_generation_prompt", True)} for c, o in CONVERSATIONS]
    whole = {"variables": VARIABLES, "messages": hello, "snippets": cases, "sources": FAMILIES, "conversations": conversations, "families": families}
    with open(os.path.join(HERE, "jinja2.json"), "w", encoding="utf-8") as out:
        json.dump(whole, out, ensure_ascii=False, indent=1)
        out.write("\n")
    print(len(cases), "snippets,", len(families), "conversations,", sum("error" in made for made in families), "of them refused")


if __name__ == "__main__":
    main()
