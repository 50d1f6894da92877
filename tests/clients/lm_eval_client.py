"""lm-eval's local-completions against a server: `python3 lm_eval_client.py URL MODEL_DIR TEXT_FILE`.

The task is made from the text: which of two lines comes next? It asks for the log-likelihood of each,
by `echo` and `logprobs`, and for a greedy continuation.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

url, model, text = sys.argv[1:]
lines = [line for line in pathlib.Path(text).read_text().splitlines() if len(line) > 30]
docs = [
    {"text": lines[n], "right": " " + lines[n + 1], "wrong": " " + lines[5 * n + 400], "label": 0}
    for n in range(12)
]
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "lines.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    common = f"""dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/lines.jsonl}}}}
test_split: test
doc_to_text: "{{{{text}}}}"
"""
    (folder / "choose.yaml").write_text(
        "task: next_line\noutput_type: multiple_choice\n" + common
        + 'doc_to_choice: ["{{right}}", "{{wrong}}"]\ndoc_to_target: label\nmetric_list: [{metric: acc}]\n'
    )
    (folder / "write.yaml").write_text(
        "task: write_on\noutput_type: generate_until\n" + common
        + 'doc_to_target: "{{right}}"\ngeneration_kwargs: {until: ["."], max_gen_toks: 12, temperature: 0}\n'
        + "metric_list: [{metric: exact_match}]\n"
    )
    arguments = f"model=tiny,base_url={url}/v1/completions,tokenizer={model},num_concurrent=4,max_retries=1"
    ran = subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments,
         "--tasks", "next_line,write_on", "--include_path", name, "--output_path", f"{name}/out", "--log_samples"],
        capture_output=True, text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [results] = (folder / "out").rglob("results_*.json")
    results = json.loads(results.read_text())["results"]
    [samples] = (folder / "out").rglob("samples_next_line_*.jsonl")
    samples = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(samples) == len(docs)
    for sample in samples:
        for [response] in sample["resps"]:
            assert float(response[0]) < 0, sample
    print("lm-eval", "acc", results["next_line"]["acc,none"])
