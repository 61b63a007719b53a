// A base product, and the product of two narrow matrices of each token's adapter added to it. faults/c_lora.csv.

#include "faults.h"

namespace {

// `adapters` is the number that stands for no adapter.
__global__ void base_product(bf16* base, const bf16* x, const bf16* w, int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        const bf16 *a = x + row * k, *b = w + column * k;
        float sum = 0.0f;
        if (fault == 901) {
            float half[2] = {};
            for (int part = 0; part < 2; ++part) {
                for (int i = part * k / 2; i < (part + 1) * k / 2; ++i) half[part] += to_float(a[i]) * to_float(b[i]);
            }
            sum = half[0] + half[1];
        } else if (fault == 902) {
            // Four lanes with packs of four, joined as a tree.
            float lane[4] = {};
            for (int i = 0; i < k; i += 4) {
                const auto p = load<4>(a + i), q = load<4>(b + i);
                for (int l = 0; l < 4; ++l) lane[l] = fmaf(to_float(p.v[l]), to_float(q.v[l]), lane[l]);
            }
            sum = (lane[0] + lane[1]) + (lane[2] + lane[3]);
        } else {
            const int end = fault == 8 && column >= 128 ? k - 32 : k;
            for (int j = 0; j < end; ++j) {
                const int i = fault == 900 ? k - 1 - j : j;
                sum += to_float(a[i]) * to_float(b[i]);
            }
        }
        base[index] = to_bf16(sum);
    }
}

__global__ void shrink(float* s, const bf16* x, const bf16* a, const int* ids, const float* scalings, int m, int k,
                       int rank, int adapters, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * rank) {
        const int64_t row = index / rank, r = index % rank;
        int id = ids[row];
        if (id == adapters && fault != 3) {
            s[index] = 0.0f;
            continue;
        }
        if (id == adapters) id = 0;
        int64_t of = int64_t{id} * rank + r;
        if (fault == 9 && id == 1) of += 1;
        float sum = 0.0f;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            sum += to_float(x[row * k + i]) * to_float(a[of * k + i]);
        }
        float value = sum * scalings[id * rank + r];
        if (fault == 2) value = sum;
        if (fault == 10) value = sum * scalings[(id + 1) % adapters * rank + r];
        if (fault == 6) value = round_bf16(value);
        s[index] = value;
    }
}

__global__ void expand(bf16* y, const bf16* base, const float* s, const bf16* b, const int* ids, int m, int n, int rank,
                       int adapters, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        int id = ids[row];
        if (id == adapters) {
            // Nothing is added. Fault 3 takes the first adapter for it.
            if (fault != 3) {
                y[index] = base[index];
                continue;
            }
            id = 0;
        }
        if (fault == 1 && id == 2) id = 1;
        const int end = fault == 4 ? rank / 8 * 8 : rank;
        float sum = 0.0f;
        for (int j = 0; j < end; ++j) {
            const int i = fault == 900 ? end - 1 - j : j;
            int64_t at = (int64_t{id} * n + column) * rank + i;
            if (fault == 5) at = int64_t{id} * n * rank + int64_t{i} * n + column;
            sum += s[row * rank + i] * to_float(b[at]);
        }
        if (fault == 7) {
            y[index] = to_bf16(sum);
        } else if (fault == 11 && row >= 16) {
            y[index] = to_bf16(to_float(base[index]) + 2.0f * sum);
        } else {
            y[index] = to_bf16(to_float(base[index]) + sum);
        }
    }
}

}  // namespace

LAUNCHER c_lora_base(bf16* base, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k, int32_t fault,
                     hipStream_t stream) {
    LAUNCH(base_product, int64_t{m} * n, base, x, w, m, n, k, fault);
    return launch_status();
}

LAUNCHER c_lora_shrink(float* s, const bf16* x, const bf16* a, const int32_t* ids, const float* scalings, int32_t m,
                       int32_t k, int32_t rank, int32_t adapters, int32_t fault, hipStream_t stream) {
    LAUNCH(shrink, int64_t{m} * rank, s, x, a, ids, scalings, m, k, rank, adapters, fault);
    return launch_status();
}

LAUNCHER c_lora_expand(bf16* y, const bf16* base, const float* s, const bf16* b, const int32_t* ids, int32_t m,
                       int32_t n, int32_t rank, int32_t adapters, int32_t fault, hipStream_t stream) {
    LAUNCH(expand, int64_t{m} * n, y, base, s, b, ids, m, n, rank, adapters, fault);
    return launch_status();
}
