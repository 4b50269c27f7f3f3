/* Helpers wait on a condition between passes, and spin within one: a pass has dozens of jobs of some
   ten microseconds each, less than it takes to wake a thread. Parts are claimed one by one, so a
   helper that the system does not run delays nothing but the part it may be holding. */

#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

#define SPINS 4096 /* looks at the job before the processor is offered to others */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static int helpers = 0;
static atomic_int running = 0;  /* passes */
static atomic_int owned = 0;    /* whether a pass has the helpers */

/* The job: its number (24 bits), how many parts it has (20) and how many are claimed (20), in one
   word, so that a part is claimed from the job that was looked at or not at all. */
static _Atomic uint64_t job = 0;
static Part job_function;
static void *job_work;
static atomic_long job_done;

#define PARTS(word) ((long)((word) >> 20 & 0xFFFFF))
#define CLAIMED(word) ((long)((word) & 0xFFFFF))

/* Does one part; 0 if none is left. */
static int do_one(void) {
    uint64_t seen = atomic_load_explicit(&job, memory_order_acquire);
    while (CLAIMED(seen) < PARTS(seen)) {
        if (atomic_compare_exchange_weak(&job, &seen, seen + 1)) {
            job_function(job_work, CLAIMED(seen)); /* stable: the job cannot end before this part */
            atomic_fetch_add_explicit(&job_done, 1, memory_order_release);
            return 1;
        }
    }
    return 0;
}

static void *help(void *unused) {
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!atomic_load(&owned) || atomic_load(&running) > 1) pthread_cond_wait(&wake, &lock);
        pthread_mutex_unlock(&lock);
        for (int idle = 0; atomic_load(&owned) && atomic_load(&running) == 1;) {
            if (do_one()) {
                idle = 0;
            } else if (++idle % SPINS) {
                PAUSE();
            } else {
                sched_yield();
            }
        }
    }
    return NULL;
}

void team_start(int wanted) {
    pthread_mutex_lock(&lock);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (; helpers < wanted; helpers++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, help, NULL)) break;
    }
    pthread_attr_destroy(&attributes);
    pthread_mutex_unlock(&lock);
}

int team_begin(void) {
    int alone = atomic_fetch_add(&running, 1) == 0;
    if (!alone || !helpers || atomic_exchange(&owned, 1)) return 0;
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    return 1;
}

void team_end(int mine) {
    if (mine) atomic_store(&owned, 0);
    atomic_fetch_sub(&running, 1);
}

void team_do(int mine, Part function, void *work, long parts) {
    if (!mine || parts < 2 || atomic_load(&running) > 1) {
        for (long part = 0; part < parts; part++) function(work, part);
        return;
    }
    uint64_t number = (atomic_load(&job) >> 40) + 1;
    job_function = function;
    job_work = work;
    atomic_store(&job_done, 0);
    atomic_store_explicit(&job, number << 40 | (uint64_t)parts << 20, memory_order_release);
    while (do_one()) {
    }
    for (int spins = 1; atomic_load_explicit(&job_done, memory_order_acquire) < parts; spins++) {
        if (spins % SPINS) {
            PAUSE();
        } else {
            sched_yield();
        }
    }
}
