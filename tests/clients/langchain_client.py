"""LangChain's ChatOpenAI against a server: `python3 langchain_client.py URL MODEL`."""

import sys

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    base_url=sys.argv[1] + "/v1", api_key="none", model=sys.argv[2], temperature=0.5, seed=4,
    max_completion_tokens=16, max_retries=0,
)
asked = [SystemMessage("You tell stories."), HumanMessage("Tell one.")]
answer = model.invoke(asked)
assert answer.usage_metadata["output_tokens"] == 16, answer
streamed = "".join(chunk.content for chunk in model.stream(asked))
assert streamed == answer.content, (streamed, answer.content)
batch = model.batch([[HumanMessage("One")], [HumanMessage("Two")]])
assert len(batch) == 2
print("langchain", answer.response_metadata["model_name"])
