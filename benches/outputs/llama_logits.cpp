// The logits of llama.cpp for given token ids: llama_logits MODEL.gguf IDS OUT
//
// IDS are int32 numbers, OUT becomes f32 numbers, one row of logits for each id; both little-endian
// and without a header. With IDS given as "-", the text on standard input is cut into tokens, and
// OUT becomes their int32 ids.
//
// c++ -O2 -I LLAMA/include -I LLAMA/ggml/include llama_logits.cpp -o llama_logits \
//     -L BUILD/src -L BUILD/ggml/src -lllama -lggml -lggml-cpu -lggml-base -lpthread -fopenmp
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "llama.h"

static int cut(const llama_vocab *vocab, const char *out) {
    std::string text((std::istreambuf_iterator<char>(std::cin)), {});
    std::vector<llama_token> ids(text.size() + 8);
    int count = llama_tokenize(vocab, text.data(), (int)text.size(), ids.data(), (int)ids.size(),
                               true, false);
    if (count < 0) return 1;
    std::ofstream file(out, std::ios::binary);
    file.write(reinterpret_cast<const char *>(ids.data()), count * sizeof(llama_token));
    return file.good() ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: llama_logits MODEL.gguf IDS OUT\n");
        return 2;
    }
    llama_log_set([](ggml_log_level level, const char *text, void *) {
        if (level >= GGML_LOG_LEVEL_WARN) std::fputs(text, stderr);
    }, nullptr);
    llama_backend_init();
    llama_model_params of_model = llama_model_default_params();
    llama_model *model = llama_model_load_from_file(argv[1], of_model);
    if (!model) return 1;
    const llama_vocab *vocab = llama_model_get_vocab(model);
    if (std::string(argv[2]) == "-") return cut(vocab, argv[3]);
    std::ifstream input(argv[2], std::ios::binary);
    std::vector<char> bytes((std::istreambuf_iterator<char>(input)), {});
    std::vector<llama_token> ids(bytes.size() / sizeof(llama_token));
    std::copy(bytes.begin(), bytes.begin() + ids.size() * sizeof(llama_token),
              reinterpret_cast<char *>(ids.data()));
    llama_context_params of_context = llama_context_default_params();
    of_context.n_ctx = (uint32_t)ids.size();
    of_context.n_batch = of_context.n_ubatch = (uint32_t)ids.size();
    // f32, so that what differs is the file's numbers, and not the cache's.
    of_context.type_k = of_context.type_v = GGML_TYPE_F32;
    of_context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context *context = llama_init_from_model(model, of_context);
    if (!context) return 1;
    llama_batch batch = llama_batch_init((int32_t)ids.size(), 0, 1);
    batch.n_tokens = (int32_t)ids.size();
    for (int i = 0; i < batch.n_tokens; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = true;
    }
    if (llama_decode(context, batch) != 0) return 1;
    std::ofstream out(argv[3], std::ios::binary);
    const int width = llama_vocab_n_tokens(vocab);
    for (int i = 0; i < batch.n_tokens; i++) {
        const float *row = llama_get_logits_ith(context, i);
        out.write(reinterpret_cast<const char *>(row), width * sizeof(float));
    }
    return out.good() ? 0 : 1;
}
