"""torch + peft on the shape given: a step for each line of standard input, its seconds printed."""
import sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
from peft import LoraConfig, get_peft_model

hidden, inter, layers, heads, kv_heads, vocab, rank, batch, seq, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(0)
config = LlamaConfig(hidden_size=hidden, intermediate_size=inter, num_hidden_layers=layers,
                     num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab,
                     max_position_embeddings=seq, tie_word_embeddings=False)
model = LlamaForCausalLM(config)
names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=32, target_modules=names))
params = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(params, lr=1e-4)
tokens = torch.randint(0, vocab, (batch, seq))
for _ in sys.stdin:
    start = time.perf_counter()
    model(tokens, labels=tokens).loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(time.perf_counter() - start, flush=True)
