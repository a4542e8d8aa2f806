/* A small HTTP server in threads of the test's own process: misbehaves as the path says, counts what it received. */
#ifndef MYELIN_TESTS_UNIT_HTTP_SERVER_H
#define MYELIN_TESTS_UNIT_HTTP_SERVER_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>

void http_server_start(void);
void http_server_stop(void);
void http_server_reset(void); /* forgets what was counted */

/* "http://127.0.0.1:PORT" and the path; valid for the next few calls. Paths:
 *   /ok /echo /silent (reads, never answers) /drip (a byte each 20 ms) /redirect /garbage
 *   /stale (the first request of a connection is answered, the second is read and then cut)
 *   /size/N /chunked/N (a body of N bytes) /headers/endless
 *   /retry/HEADER (429 with that header line, URL-encoded)
 *   /cut/{request,continue,status,headers,body,chunk} (cut after having read, or sent, so much) */
const char *http_server_url(const char *path);
const char *http_server_closed_url(const char *path); /* nobody listens there */
const char *http_server_full_url(const char *path);   /* a connection is never completed there */
void http_server_cut_at_accept(bool cut);             /* reset each connection before reading a byte */

int http_server_received(const char *path); /* whole requests for this target, since the reset */
int http_server_connections(void);          /* accepted, since the reset */

/* `openssl s_server` with a certificate of its own, in `ca_file`. False when there is no openssl here. */
bool http_server_tls_start(char *url, char *ca_file, size_t size);
void http_server_tls_stop(void);

#endif
