"""The official Python client against a server: `python3 openai_client.py URL`."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
say = [{"role": "user", "content": "Once upon a time there was a dog"}]

answer = client.chat.completions.create(model=model, messages=say, max_tokens=24, seed=1, temperature=0.7)
assert answer.choices[0].finish_reason == "length", answer
assert answer.usage.completion_tokens == 24, answer.usage

# What libraries around the client add to its own messages: the answer is the same, and the response tells.
turns = [
    {"role": "user", "content": [{"type": "text", "text": say[0]["content"], "cache_control": {"type": "ephemeral"}}]},
    {**answer.choices[0].message.model_dump(), "provider_specific_fields": {"refusal": None}},
    {"role": "user", "content": "more", "id": "turn-3"},
]
plain = [say[0], {"role": "assistant", "content": answer.choices[0].message.content}, {"role": "user", "content": "more"}]
told = client.chat.completions.with_raw_response.create(
    model=model, messages=turns, max_tokens=8, seed=1, extra_headers={"x-request-id": "round-trip-1"}
)
same = client.chat.completions.create(model=model, messages=plain, max_tokens=8, seed=1)
assert told.parse().choices[0].message.content == same.choices[0].message.content
assert told.headers["x-request-id"] == "round-trip-1"
assert "messages[1].provider_specific_fields" in told.headers["x-concord-ignored"], told.headers

stream = client.chat.completions.create(
    model=model, messages=say, max_tokens=24, seed=1, temperature=0.7, stream=True,
    stream_options={"include_usage": True},
)
chunks = list(stream)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == answer.choices[0].message.content, (text, answer)
assert chunks[0].choices[0].delta.role == "assistant"
assert chunks[-1].usage.completion_tokens == 24 and not chunks[-1].choices

several = client.chat.completions.create(
    model=model, messages=say, max_tokens=24, n=3, seed=5, logprobs=True, top_logprobs=2
)
assert [c.index for c in several.choices] == [0, 1, 2]
assert len({c.message.content for c in several.choices}) > 1
for token in several.choices[0].logprobs.content:
    assert token.logprob <= 0 and len(token.top_logprobs) == 2 and token.bytes, token

scored = client.completions.create(model=model, prompt="The cat sat", max_tokens=0, echo=True, logprobs=1)
assert scored.choices[0].text.strip() == "The cat sat", scored
assert scored.choices[0].logprobs.token_logprobs[0] is None
assert all(value <= 0 for value in scored.choices[0].logprobs.token_logprobs[1:])

schema = {
    "type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
    "required": ["name", "age"], "additionalProperties": False,
}
strict = client.chat.completions.create(
    model=model, messages=say, max_tokens=400, seed=3,
    response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
)
import json

person = json.loads(strict.choices[0].message.content)
assert set(person) == {"name", "age"} and isinstance(person["age"], int), person

for change, param in [({"temperature": 9}, "temperature"), ({"model": "none-such"}, "model")]:
    try:
        client.chat.completions.create(**{"model": model, "messages": say, **change})
        raise AssertionError(f"{change} was taken")
    except (openai.BadRequestError, openai.NotFoundError) as error:
        assert error.param == param or error.code == "model_not_found", error
try:
    client.embeddings.create(model=model, input="text")
    raise AssertionError("embeddings were given")
except openai.BadRequestError as error:
    assert "embedding" in str(error)
print("openai", openai.__version__)
