/* Threads that help a pass while no other pass runs. */
#ifndef THREAD_POOL_H
#define THREAD_POOL_H

/* Does one part of some work. */
typedef void (*DoPart)(void *work, long part);

/* Starts as many helpers as are missing until there are so many. */
void thread_pool_start(int helpers);

/* To be called where a pass begins, and where it ends. */
void thread_pool_enter(void);
void thread_pool_leave(void);

/* Whether helpers would help the calling pass now. */
int thread_pool_helps(void);

/* Does all parts, some of them on the helpers if no other pass runs; returns when all are done. */
void thread_pool_run(DoPart function, void *work, long parts);

#endif
