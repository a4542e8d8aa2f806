/* A redis-server of the test's own: on a free port of 127.0.0.1, its data in a directory of its own under /tmp. */
#ifndef MYELIN_TESTS_UNIT_REDIS_SERVER_H
#define MYELIN_TESTS_UNIT_REDIS_SERVER_H

#include <stdbool.h>

/* False when there is no redis-server on this machine. Append-only file, written at once; noeviction. */
bool redis_server_start(void);
void redis_server_end(void); /* and its data */

void redis_server_kill(void);  /* kill -9 */
void redis_server_again(void); /* the same port, the same data */
void redis_server_pause(void); /* SIGSTOP */
void redis_server_go_on(void);

const char *redis_server_address(void); /* HOST:PORT */
int redis_server_port(void);

/* One command, as redis-cli would send it; texts and errors as text, numbers in decimal, nil as "nil", the first of a list. Its
 * own connection. Valid until the next call. */
const char *redis_server_ask(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
