/* Helpers wait on a condition unless exactly one pass runs, and spin while it does: a pass has dozens of
   jobs of some ten microseconds each, which is less than it takes to wake a thread. Parts are claimed
   one by one, so a helper that the system does not run delays only the part that it may have claimed. */

#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

#define SPINS 4096         /* how often the job is looked at before the processor is offered to other threads */
#define MOST_HELPERS 1023
#define MOST_PARTS 0xFFFFL /* of a job; more are done as several jobs */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static atomic_int helpers = 0;
static atomic_int running = 0; /* passes that run now */
static atomic_int busy = 0;    /* whether a pass has a job for the helpers */

/* The job: its number (32 bits), how many parts it has (16 bits) and how many of them are claimed (16
   bits) in one word, so that a part is claimed from the job that was looked at, or not at all. */
static _Atomic uint64_t job = 0;
static DoPart job_function;
static void *job_work;
static long job_first;
static atomic_long job_done;

#define PARTS(word) ((long)((word) >> 16 & MOST_PARTS))
#define CLAIMED(word) ((long)((word) & MOST_PARTS))

/* Does one part; returns 0 if none is left. */
static int do_one(void) {
    uint64_t seen = atomic_load_explicit(&job, memory_order_acquire);
    while (CLAIMED(seen) < PARTS(seen)) {
        if (atomic_compare_exchange_weak(&job, &seen, seen + 1)) {
            /* The job does not change meanwhile: it cannot end before this part is done. */
            job_function(job_work, job_first + CLAIMED(seen));
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
        while (atomic_load(&running) != 1) pthread_cond_wait(&wake, &lock);
        pthread_mutex_unlock(&lock);
        for (int idle = 0; atomic_load(&running) == 1;) {
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

static void wake_helpers(void) {
    if (!atomic_load(&helpers)) return;
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
}

/* A forked child has no helpers, and none of the passes that other threads were running. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
static void in_child(void) {
    atomic_store(&helpers, 0);
    atomic_store(&running, 0);
    atomic_store(&busy, 0);
    atomic_store(&job, 0);
    pthread_cond_init(&wake, NULL);
    pthread_mutex_unlock(&lock);
}

void thread_pool_start(int wanted) {
    static int prepared = 0;
    pthread_mutex_lock(&lock);
    if (!prepared) prepared = !pthread_atfork(before_fork, after_fork, in_child);
    sigset_t all, before; /* helpers get no signals: those are for Python's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (wanted > MOST_HELPERS) wanted = MOST_HELPERS;
    while (prepared && atomic_load(&helpers) < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, help, NULL)) break;
        atomic_fetch_add(&helpers, 1);
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_mutex_unlock(&lock);
}

/* Helpers are woken when a pass is alone: when it is the first, or when all others have ended. */
void thread_pool_enter(void) {
    if (atomic_fetch_add(&running, 1) == 0) wake_helpers();
}

void thread_pool_leave(void) {
    if (atomic_fetch_sub(&running, 1) == 2) wake_helpers();
}

int thread_pool_helps(void) { return atomic_load(&running) == 1 && atomic_load(&helpers) > 0; }

static void share(DoPart function, void *work, long first, long parts) {
    uint64_t number = (atomic_load(&job) >> 32) + 1;
    job_function = function;
    job_work = work;
    job_first = first;
    atomic_store(&job_done, 0);
    atomic_store_explicit(&job, number << 32 | (uint64_t)parts << 16, memory_order_release);
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

void thread_pool_run(DoPart function, void *work, long parts) {
    /* A pass that was alone a moment ago may still be at its job. */
    if (parts < 2 || !thread_pool_helps() || atomic_exchange(&busy, 1)) {
        for (long part = 0; part < parts; part++) function(work, part);
        return;
    }
    for (long first = 0; first < parts; first += MOST_PARTS)
        share(function, work, first, parts - first < MOST_PARTS ? parts - first : MOST_PARTS);
    atomic_store(&busy, 0);
}
