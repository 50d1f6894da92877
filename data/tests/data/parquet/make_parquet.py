"""Writes the .parquet files of the tests, as the hub has them: with pyarrow, packed by snappy and
by zstd, in several row groups.

`python make_parquet.py` with pyarrow writes them beside it.
"""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
QUESTIONS = ["one?", "two?", "thr\u00e9e?", "four\n?", "five?"]
ANSWERS = ["1", "2", "3", "4", "5"]


def main():
    flat = pa.table({"question": QUESTIONS, "answer": ANSWERS, "id": [1, 2, 3, 4, 5],
                     "score": [0.5, None, 1.0, 2.0, 3.0]})
    pq.write_table(flat, HERE / "flat.parquet", compression="snappy", row_group_size=2)
    pq.write_table(flat, HERE / "flat-zstd.parquet", compression="zstd")
    turn = pa.struct([("role", pa.string()), ("content", pa.string()),
                      ("tool_calls", pa.list_(pa.string()))])
    talks = [[{"role": "user", "content": question, "tool_calls": None},
              {"role": "assistant", "content": answer, "tool_calls": None}]
             for question, answer in zip(QUESTIONS, ANSWERS)]
    messages = pa.table({"messages": pa.array(talks, pa.list_(turn))})
    pq.write_table(messages, HERE / "messages.parquet", compression="gzip")
    raw = pa.table({"text": pa.array([b"\x01\x02"], pa.binary())})
    pq.write_table(raw, HERE / "bytes.parquet")


main()
