/* Threads that help a pass which has the machine to itself. */
#ifndef TEAM_H
#define TEAM_H

/* Does part `part` of some work. */
typedef void (*Part)(void *work, long part);

/* Starts the helpers, once a process. */
void team_start(int helpers);

/* Begins a pass; nonzero if the helpers are its own until it ends. */
int team_begin(void);
void team_end(int mine);

/* Does all parts, with the helpers' help if `mine`; returns when all are done. */
void team_do(int mine, Part function, void *work, long parts);

#endif
