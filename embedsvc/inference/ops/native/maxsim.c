/* Scores documents by MaxSim: see maxsim.inc. Python calls it. */

#include <stdlib.h>

#include "scratch.h"
#include "tape.h"
#include "thread_pool.h"

#define MOST_NUMBERS (1L << 40) /* of a query or a document: no product of sizes exceeds 63 bits */

typedef struct {
    const MaxSim *maxsim;
    const Operations *operations;
} Scoring;

static void score_part(void *argument, long document) {
    const Scoring *scoring = argument;
    if (!scratch_hold()) {
        atomic_store(scoring->maxsim->failed, 1);
        return;
    }
    scoring->operations->score_document(scoring->maxsim, document);
    scratch_drop();
}

static int sizes_fit(const MaxSim *m) {
    if (!m->query || !m->documents || !m->lengths || !m->scores) return 0;
    if (!between(m->tokens, 1, MOST_ROWS) || !between(m->size, 1, MOST_NUMBERS / m->tokens)) return 0;
    if (!between(m->count, 1, MOST_ROWS)) return 0;
    for (long d = 0; d < m->count; d++)
        if (!m->documents[d] || !between(m->lengths[d], 1, MOST_NUMBERS / m->size)) return 0;
    return 1;
}

/* Writes the score of each of `count` documents for a query: vectors (tokens, size), and (lengths[d],
   size) in float16, all finite. Returns 1; 0 if sizes are wrong; -1 without memory. */
API int embedsvc_maxsim(
    int kernels, const float *query, int64_t tokens, int64_t size, const uint16_t *const *documents,
    const int64_t *lengths, int64_t count, float *scores) {
    const Kernels *chosen = kernels_numbered(kernels);
    atomic_int failed = 0;
    MaxSim maxsim = {query, tokens, size, documents, lengths, count, scores, &failed};
    if (!chosen || !sizes_fit(&maxsim)) return 0;
    const Operations *operations = chosen->operations;
    float *packed = allocate((tokens + operations->panel) * size * sizeof(float));
    if (!packed) return -1;
    operations->pack_query(query, tokens, size, packed);
    maxsim.query = packed;
    Scoring scoring = {&maxsim, operations};
    thread_pool_enter();
    thread_pool_run(score_part, &scoring, count);
    thread_pool_leave();
    free(packed);
    return atomic_load(&failed) ? -1 : 1;
}
