/* Threads that help a pass which has the machine to itself. */
#ifndef TEAM_H
#define TEAM_H

/* Does part `part` of some work. */
typedef void (*Part)(void *work, long part);

/* Has so many helpers, if there are fewer yet. */
void team_start(int helpers);

/* A pass begins, and ends. */
void team_begin(void);
void team_end(void);

/* Whether the pass that asks has the helpers now. */
int team_helps(void);

/* Does all parts, with the helpers' help if no other pass runs; returns when all are done. */
void team_do(Part function, void *work, long parts);

#endif
