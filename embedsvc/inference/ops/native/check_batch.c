/* Checks a batch each time a program runs, so that no index of it lies beside a table. */

#include "tape.h"

int refuse(Refusal *why, enum Reason reason, int64_t at, int64_t value, int64_t limit) {
    *why = (Refusal){.reason = reason, .at = at, .value = value, .limit = limit};
    return 0;
}

/* Checks that a table of so many rows has one for each index. A negative index counts as very large. */
static int check_indices(
    const int32_t *indices, int64_t count, int64_t rows, enum Reason reason, Refusal *why) {
    if (!rows) return 1; /* no table is looked up by them */
    if (!indices) return refuse(why, BAD_BATCH, 0, 0, rows);
    uint32_t most = 0;
    for (int64_t i = 0; i < count; i++) most = (uint32_t)indices[i] > most ? (uint32_t)indices[i] : most;
    if (most < rows && most < MOST_ROWS) return 1;
    int64_t at = 0;
    while (indices[at] >= 0 && indices[at] < rows) at++;
    return refuse(why, reason, at, indices[at], rows);
}

int check_batch(const Program *program, const Batch *batch, Refusal *why) {
    int64_t tokens = batch->tokens, texts = batch->texts;
    if (!between(tokens, 1, MOST_ROWS)) return refuse(why, BAD_BATCH, 0, tokens, MOST_ROWS);
    if (!between(texts, 1, tokens)) return refuse(why, BAD_BATCH, 0, texts, tokens);
    if (!batch->bounds) return refuse(why, BAD_BATCH, 0, 0, 0);
    if (batch->bounds[0]) return refuse(why, BAD_BATCH, 0, batch->bounds[0], 0);
    for (int64_t t = 0; t < texts; t++) {
        int64_t begin = batch->bounds[t], end = batch->bounds[t + 1];
        if (!between(end, begin + 1, tokens)) return refuse(why, BAD_BATCH, t, end, tokens);
        if (program->limits.longest && end - begin > program->limits.longest)
            return refuse(why, BAD_LENGTH, t, end - begin, program->limits.longest);
        if (!batch->seen) continue;
        int64_t window = program->limits.window, least = 1; /* so that the last token sees one */
        if (window >= 0 && end - begin - window > least) least = end - begin - window;
        if (!between(batch->seen[t], least, end - begin))
            return refuse(why, BAD_SEEN, t, batch->seen[t], least);
    }
    if (batch->bounds[texts] != tokens)
        return refuse(why, BAD_BATCH, texts, batch->bounds[texts], tokens);
    static const enum Reason reasons[SOURCES] = {
#define SOURCE(NAME, REASON) [NAME] = REASON,
#include "operations.def"
    };
    for (int source = 0; source < SOURCES; source++)
        if (!check_indices(
                batch->sources[source], tokens, program->limits.rows[source], reasons[source], why))
            return 0;
    return 1;
}
