/* How the thread pool shares work, tried in a process of its own: each case ends with 0, or is stopped by an
   alarm where helpers that should come do not. Nothing depends on how long anything takes.

   Parts of a job that needs N threads wait for one another, so that it ends only if N threads are at
   it at once. */

#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HELPERS 7
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Where so many threads wait for one another, once. A barrier, which macOS has none of. */
typedef struct {
    int awaited;
    pthread_mutex_t lock;
    pthread_cond_t all;
} Meeting;

#define MEETING(threads) {threads, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER}

static void arrive(Meeting *meeting) {
    pthread_mutex_lock(&meeting->lock);
    meeting->awaited--;
    while (meeting->awaited > 0) pthread_cond_wait(&meeting->all, &meeting->lock);
    pthread_cond_broadcast(&meeting->all);
    pthread_mutex_unlock(&meeting->lock);
}

static void meet(void *meeting, long part) {
    (void)part;
    arrive(meeting);
}

/* Ends only when the pass that asks has all helpers. Those on their way are waited for: a job's first
   part may be claimed by whoever is there. */
static void need_everybody(void) {
    Meeting meeting = MEETING(HELPERS + 1);
    thread_pool_run(meet, &meeting, HELPERS + 1);
}

typedef struct {
    pthread_t me;
    long parts;
    atomic_long done;
    atomic_int elsewhere;
    atomic_char *seen;
} Count;

static void count_part(void *work, long part) {
    Count *count = work;
    CHECK(part >= 0 && part < count->parts);
    CHECK(atomic_fetch_add(&count->seen[part], 1) == 0);
    atomic_fetch_add(&count->done, 1);
    if (!pthread_equal(pthread_self(), count->me)) atomic_store(&count->elsewhere, 1);
}

/* Each part once; returns whether anybody helped. */
static int count_parts(long parts) {
    Count count = {.me = pthread_self(), .parts = parts, .seen = calloc(parts ? parts : 1, 1)};
    thread_pool_run(count_part, &count, parts);
    CHECK(atomic_load(&count.done) == parts);
    for (long part = 0; part < parts; part++) CHECK(atomic_load(&count.seen[part]) == 1);
    free(count.seen);
    return atomic_load(&count.elsewhere);
}

/* A pass of another thread, that goes on between the two. */
typedef struct {
    Meeting begun, over;
    pthread_t thread;
} Other;

static void *pass(void *argument) {
    Other *other = argument;
    thread_pool_enter();
    arrive(&other->begun);
    arrive(&other->over);
    thread_pool_leave();
    return NULL;
}

static void begin(Other *other) {
    *other = (Other){.begun = MEETING(2), .over = MEETING(2)};
    pthread_create(&other->thread, NULL, pass, other);
    arrive(&other->begun);
}

static void end(Other *other) {
    arrive(&other->over);
    pthread_join(other->thread, NULL);
}

static void every_part_is_done_once(void) {
    const long parts[] = {0, 1, 2, 3, 7, 8, 100, 65534, 65535, 65536, 65537, 200000};
    thread_pool_enter();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) count_parts(parts[i]);
    for (int again = 0; again < 2000; again++) count_parts(again % 17);
    thread_pool_leave();
}

static void a_pass_alone_has_all_helpers(void) {
    for (int again = 0; again < 20; again++) {
        thread_pool_enter();
        need_everybody();
        need_everybody();
        thread_pool_leave();
    }
}

/* The long text that another one came beside, and left. */
static void helpers_come_back_to_the_pass_that_had_them(void) {
    for (int again = 0; again < 20; again++) {
        Other other;
        thread_pool_enter();
        need_everybody();
        begin(&other);
        CHECK(!count_parts(100)); /* each pass has its own thread */
        end(&other);
        need_everybody();
        thread_pool_leave();
    }
}

/* The long text that began beside another. */
static void helpers_come_to_a_pass_that_never_had_them(void) {
    for (int again = 0; again < 20; again++) {
        Other other;
        begin(&other);
        thread_pool_enter();
        CHECK(!count_parts(100));
        end(&other);
        need_everybody();
        thread_pool_leave();
    }
}

static void *many_passes(void *unused) {
    (void)unused;
    for (int pass = 0; pass < 300; pass++) {
        thread_pool_enter();
        for (int operation = 0; operation < 5; operation++) count_parts(1 + (pass * 7 + operation) % 40);
        thread_pool_leave();
    }
    return NULL;
}

static void passes_of_many_threads_do_their_own_parts(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, many_passes, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    thread_pool_enter();
    need_everybody();
    thread_pool_leave();
}

static void work_within_a_part(void *work, long part) {
    (void)part;
    atomic_fetch_add((atomic_long *)work, 1);
    count_parts(5);
}

static void a_part_may_have_parts(void) {
    atomic_long done = 0;
    thread_pool_enter();
    thread_pool_run(work_within_a_part, &done, 50);
    thread_pool_leave();
    CHECK(atomic_load(&done) == 50);
}

static void more_helpers_may_be_asked_for_and_fewer_are_as_many(void) {
    thread_pool_start(HELPERS);
    thread_pool_start(0);
    thread_pool_start(-5);
    thread_pool_enter();
    need_everybody();
    thread_pool_leave();
}

/* While another thread is in a pass, and one in the parent has the helpers. */
static void a_forked_child_has_no_helpers_and_all_parts_are_done(void) {
    Other other;
    begin(&other);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        alarm(20);
        thread_pool_enter();
        CHECK(!count_parts(1000));
        thread_pool_leave();
        thread_pool_start(HELPERS);
        thread_pool_enter();
        need_everybody();
        thread_pool_leave();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    end(&other);
    thread_pool_enter();
    need_everybody();
    thread_pool_leave();
}

#define CASE(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    CASE(every_part_is_done_once),
    CASE(a_pass_alone_has_all_helpers),
    CASE(helpers_come_back_to_the_pass_that_had_them),
    CASE(helpers_come_to_a_pass_that_never_had_them),
    CASE(passes_of_many_threads_do_their_own_parts),
    CASE(a_part_may_have_parts),
    CASE(more_helpers_may_be_asked_for_and_fewer_are_as_many),
    CASE(a_forked_child_has_no_helpers_and_all_parts_are_done),
};

/* Runs the case that is named; without a name it lists them. */
int main(int count, char **words) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (count < 2) {
            puts(cases[i].name);
        } else if (!strcmp(words[1], cases[i].name)) {
            alarm(50);
            thread_pool_start(HELPERS);
            cases[i].run();
            return 0;
        }
    }
    return count < 2 ? 0 : 2;
}
