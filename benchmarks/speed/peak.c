// Peak of one core of this CPU: products of values in registers, without loads and stores. Prints a line for each
// arithmetic: name, instructions, 10^9 operations per second (a multiplication and an addition are two). The best of
// several intervals of CPU time, each long enough for the clock. Compile with -march=native.
#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif
#include <stdio.h>
#include <time.h>

#define ROUNDS 200000L
#define INTERVALS 15
// Enough independent sums to hide the latency of an instruction; the rest of the registers, sixteen or 32 of ARM, holds
// the factors.
#define TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#if defined(__aarch64__)
#define SUMS 20
#define EACH(DO) TWELVE(DO) DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19)
#else
#define SUMS 12
#define EACH(DO) TWELVE(DO)
#endif

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

#define BEST(body, operations, name, instructions)                              \
    do {                                                                        \
        double best = 0;                                                        \
        for (int interval = 0; interval < INTERVALS; interval++) {                 \
            double start = now();                                               \
            for (long round = 0; round < ROUNDS; round++) { EACH(body) }        \
            double rate = (double)ROUNDS * SUMS * (operations) / (now() - start); \
            best = rate > best ? rate : best;                                   \
        }                                                                       \
        printf("%s %s %.2f\n", name, instructions, best / 1e9);                 \
    } while (0)

#if defined(__aarch64__)
typedef int32x4_t Integers;
typedef float32x4_t Floats;
#define ZERO_INTEGERS vdupq_n_s32(0)
#define ZERO_FLOATS vdupq_n_f32(0)
#elif defined(__AVX512F__)
typedef __m512i Integers;
typedef __m512 Floats;
#define WIDTH 16
#define ZERO_INTEGERS _mm512_setzero_si512()
#define ZERO_FLOATS _mm512_setzero_ps()
#define ONES _mm512_set1_epi16(1)
#else
typedef __m256i Integers;
typedef __m256 Floats;
#define WIDTH 8
#define ZERO_INTEGERS _mm256_setzero_si256()
#define ZERO_FLOATS _mm256_setzero_ps()
#define ONES _mm256_set1_epi16(1)
#endif

#if !defined(__aarch64__) && !(defined(__FMA__) && defined(__AVX2__))
#error "needs a CPU with FMA and AVX2, or an ARM one of 64 bits"
#endif

static void floats(void) {
#define SUM(n) Floats sum##n = ZERO_FLOATS;
    EACH(SUM)
#undef SUM
    Floats left = ZERO_FLOATS, right = ZERO_FLOATS;
#if defined(__aarch64__)
#define STEP(n) asm volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(sum##n) : "w"(left), "w"(right));
    BEST(STEP, 8, "fp32", "fmla");
#undef STEP
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define STEP(n) asm volatile("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(sum##n) : "w"(left), "w"(right));
    BEST(STEP, 32, "bf16", "bfmmla");
#undef STEP
#endif
#else
#define STEP(n) asm volatile("vfmadd231ps %1, %2, %0" : "+v"(sum##n) : "v"(left), "v"(right));
    BEST(STEP, 2 * WIDTH, "fp32", "vfmadd231ps");
#undef STEP
#if defined(__AVX512BF16__)
#define STEP(n) asm volatile("vdpbf16ps %1, %2, %0" : "+v"(sum##n) : "v"(left), "v"(right));
    BEST(STEP, 4 * WIDTH, "bf16", "vdpbf16ps");
#undef STEP
#endif
#endif
}

static void integers(void) {
#define SUM(n) Integers sum##n = ZERO_INTEGERS;
    EACH(SUM)
#undef SUM
    Integers left = ZERO_INTEGERS, right = ZERO_INTEGERS;
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define STEP(n) asm volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum##n) : "w"(left), "w"(right));
    BEST(STEP, 64, "int8", "smmla");
#elif defined(__ARM_FEATURE_DOTPROD)
#define STEP(n) asm volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum##n) : "w"(left), "w"(right));
    BEST(STEP, 32, "int8", "sdot");
#elif defined(__aarch64__)
    // The low half into 16 bits, the high half added there, pairs added in 32 bits.
    int16x8_t product;
#define STEP(n)                                                                                  \
    asm volatile("smull %1.8h, %2.8b, %3.8b\n\tsmlal2 %1.8h, %2.16b, %3.16b\n\tsadalp %0.4s, %1.8h" \
                 : "+w"(sum##n), "=&w"(product)                                                  \
                 : "w"(left), "w"(right));
    BEST(STEP, 32, "int8", "smull+smlal2+sadalp");
#elif defined(__AVX512VNNI__)
#define STEP(n) asm volatile("vpdpbusd %1, %2, %0" : "+v"(sum##n) : "v"(left), "v"(right));
    BEST(STEP, 8 * WIDTH, "int8", "vpdpbusd");
#elif defined(__AVXVNNI__)
#define STEP(n) asm volatile("%{vex%} vpdpbusd %1, %2, %0" : "+x"(sum##n) : "x"(left), "x"(right));
    BEST(STEP, 8 * WIDTH, "int8", "vpdpbusd");
#else
    Integers ones = ONES, product;
#define STEP(n)                                                        \
    asm volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0" \
                 : "+v"(sum##n), "=&v"(product)                        \
                 : "v"(left), "v"(right), "v"(ones));
    BEST(STEP, 8 * WIDTH, "int8", "vpmaddubsw+vpmaddwd+vpaddd");
#endif
}

int main(void) {
    floats();
    integers();
    return 0;
}
