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
    broken()


def broken():
    """Files whose second row, or all of which, cannot be used: by what is wrong with them."""
    into = HERE / "broken"
    into.mkdir(exist_ok=True)
    text, asks = pa.string(), pa.array(["a", "b"])

    def write(name, **columns):
        table = pa.table({"instruction": asks} | columns)
        pq.write_table(table, into / f"{name}.parquet", compression="none")

    write("missing")
    write("null", output=pa.array(["c", None]))
    write("number", output=pa.array([1, 2]))
    write("empty-text", output=pa.array(["c", ""]))
    write("bytes", output=pa.array([b"c", b"d"]))
    write("list", output=pa.array([["c"], ["d"]]))
    write("map", output=pa.array([[("c", "d")], []], pa.map_(text, text)))
    write("unused", output=pa.array(["c", "d"]), label=pa.array([True, False]))
    write("nul", output=pa.array(["c", "d\0"]))
    twice = pa.Table.from_arrays([asks, pa.array(["c", "d"]), pa.array(["e", "f"])],
                                 names=["instruction", "output", "output"])
    pq.write_table(twice, into / "twice.parquet", compression="none")
    none = pa.table({"instruction": pa.array([], text), "output": pa.array([], text)})
    pq.write_table(none, into / "no-rows.parquet")
    whole = (HERE / "flat.parquet").read_bytes()
    (into / "cut.parquet").write_bytes(whole[:len(whole) // 2])
    (into / "tail.parquet").write_bytes(whole[len(whole) // 2:])


main()
