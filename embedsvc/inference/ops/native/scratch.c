/* Each thread has a pad. The thread holds its pad's lock while it computes, so that counting and freeing
   touch only pads that are not in use. */

#include "scratch.h"

#include <pthread.h>
#include <stdlib.h>

#define LINE 64
#define KEPT_BYTES (32L << 20) /* of each kind; memory of more bytes is freed when a pass ends */

typedef struct Pad {
    pthread_mutex_t lock;
    struct {
        float *memory;
        int64_t bytes;
    } kept[SCRATCHES];
    struct Pad *next;
} Pad;

static _Thread_local Pad *mine;
static _Thread_local int holds;
static Pad *pads;
static pthread_mutex_t pads_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t ending;
static int can_end; /* whether the key exists that has `forget` called when a thread ends */

#if defined(EMBEDSVC_TEST)
#include <stdatomic.h>
#include "tape.h"
/* For tests: how many allocations succeed before all fail; -1: all succeed. */
static atomic_long allowed = -1;
API void embedsvc_allow(int64_t allocations) { atomic_store(&allowed, allocations); }
static int refused(void) {
    long left = atomic_load(&allowed);
    while (left > 0 && !atomic_compare_exchange_weak(&allowed, &left, left - 1)) {
    }
    return left == 0;
}
#else
static int refused(void) { return 0; }
#endif

void *allocate(size_t bytes) { return refused() ? NULL : malloc(bytes ? bytes : 1); }

/* Frees what a pad has of each kind, where that is more than so many bytes. */
static void empty(Pad *pad, int64_t above) {
    for (int kind = 0; kind < SCRATCHES; kind++) {
        if (pad->kept[kind].bytes <= above) continue;
        free(pad->kept[kind].memory);
        pad->kept[kind].memory = NULL;
        pad->kept[kind].bytes = 0;
    }
}

/* Frees a pad when its thread ends. */
static void forget(void *argument) {
    Pad *pad = argument;
    pthread_mutex_lock(&pads_lock);
    for (Pad **at = &pads; *at; at = &(*at)->next) {
        if (*at != pad) continue;
        *at = pad->next;
        break;
    }
    pthread_mutex_unlock(&pads_lock);
    empty(pad, 0);
    pthread_mutex_destroy(&pad->lock);
    free(pad);
}

/* A forked child has all pads, but only the thread that forked. The pads of other threads may stay locked
   for ever, so the child forgets them; their memory is lost to it. */
static void before_fork(void) { pthread_mutex_lock(&pads_lock); }
static void after_fork(void) { pthread_mutex_unlock(&pads_lock); }
static void in_child(void) {
    pads = mine;
    if (mine) mine->next = NULL;
    pthread_mutex_unlock(&pads_lock);
}

static void begin(void) {
    can_end = !pthread_key_create(&ending, forget);
    pthread_atfork(before_fork, after_fork, in_child);
}

static Pad *open_pad(void) {
    pthread_once(&once, begin);
    Pad *pad = can_end ? allocate(sizeof(Pad)) : NULL;
    if (!pad) return NULL;
    *pad = (Pad){.lock = PTHREAD_MUTEX_INITIALIZER};
    if (pthread_setspecific(ending, pad)) {
        free(pad);
        return NULL;
    }
    pthread_mutex_lock(&pads_lock);
    pad->next = pads;
    pads = pad;
    pthread_mutex_unlock(&pads_lock);
    return pad;
}

int scratch_hold(void) {
    if (!mine && !(mine = open_pad())) return 0;
    if (!holds++) pthread_mutex_lock(&mine->lock);
    return 1;
}

void scratch_drop(void) {
    if (--holds) return;
    empty(mine, KEPT_BYTES);
    pthread_mutex_unlock(&mine->lock);
}

float *scratch(enum Scratch kind, int64_t floats) {
    int64_t bytes = (floats * (int64_t)sizeof(float) + LINE - 1) / LINE * LINE;
    if (bytes > mine->kept[kind].bytes) {
        free(mine->kept[kind].memory);
        mine->kept[kind].memory = refused() ? NULL : aligned_alloc(LINE, bytes);
        mine->kept[kind].bytes = mine->kept[kind].memory ? bytes : 0;
    }
    return mine->kept[kind].memory;
}

static int64_t look(int releasing) {
    int64_t found = 0;
    pthread_mutex_lock(&pads_lock);
    for (Pad *pad = pads; pad; pad = pad->next) {
        if (pthread_mutex_trylock(&pad->lock)) continue;
        for (int kind = 0; kind < SCRATCHES; kind++) found += pad->kept[kind].bytes;
        if (releasing) empty(pad, 0);
        pthread_mutex_unlock(&pad->lock);
    }
    pthread_mutex_unlock(&pads_lock);
    return found;
}

int64_t scratch_kept(void) { return look(0); }
void scratch_release(void) { look(1); }
