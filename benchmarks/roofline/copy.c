// Rate of a copy loop on one core, by size of its working set (source and target together). Prints a line for each
// size: bytes, 10^9 bytes per second, read and written ones together. The best of several intervals of CPU time.
// Compile with -O3 -march=native.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SMALLEST (16UL << 10)
#define LARGEST (128UL << 20)
#define INTERVALS 7
// Bytes that an interval copies at least.
#define ENOUGH (64UL << 20)

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// The compiler must not call memcpy, which may bypass the caches: so bits change.
static void copy(uint64_t *restrict target, const uint64_t *restrict source, size_t count, uint64_t bits) {
    for (size_t index = 0; index < count; index++) target[index] = source[index] ^ bits;
    // The compiler must not leave out a copy that nothing reads.
    asm volatile("" : : "r"(target) : "memory");
}

int main(void) {
    uint64_t *source = aligned_alloc(4096, LARGEST / 2), *target = aligned_alloc(4096, LARGEST / 2);
    if (!source || !target) return 1;
    memset(source, 1, LARGEST / 2);
    memset(target, 2, LARGEST / 2);
    for (size_t size = SMALLEST; size <= LARGEST; size *= 2) {
        size_t half = size / 2, rounds = ENOUGH / size + 1;
        double best = 0;
        for (int interval = 0; interval < INTERVALS; interval++) {
            double start = now();
            for (size_t round = 0; round < rounds; round++) copy(target, source, half / sizeof(uint64_t), size);
            double rate = (double)rounds * (double)size / (now() - start);
            best = rate > best ? rate : best;
        }
        printf("%zu %.2f\n", size, best / 1e9);
    }
    return 0;
}
