/* The load of the benchmarks: thousands of connections to one server from one thread, in C, so that what is measured
 * is the server. It knows framings, not messages: what to send comes as octets from `generator.py`, with the places
 * where a number is to be written. The plan is a text file, one setting a line; the results are lines of JSON.
 *
 *   closed   each connection sends its request, waits for the reply, and again, for so many seconds
 *   fanout   one writer changes something, all watchers are told and react; so many rounds
 *   trigger  all watchers wait for a push that holds given octets; something outside causes it
 *   start    all connections are made and set up as fast as the server takes them
 *   hold     all connections are made and set up, and kept until standard input ends
 *
 * When the connections are set up it prints {"ready":true}, waits for a line on standard input, does it, prints what was
 * measured, and waits for the next line; it ends when standard input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATCHES_MAX 16
#define SETUPS_MAX 64
#define RETRY_SECONDS 0.2
#define REACTIONS_AT_ONCE 32
#define STUCK_SECONDS 30.0

enum { REPLY = 1, PUSH = 2 };
enum { INDEX, COUNT, TOTAL };

struct patch { int offset, width, decimal, of; long start, step; int copy_from; };
struct step { unsigned char *octets; int length, expect; struct patch patches[PATCHES_MAX]; int patches_count; };

struct connection {
    int fd, index, connected, handshaken, setup, expected, want_write, round, failed, later;
    SSL *ssl;
    SSL_SESSION *session;
    unsigned char *in, *out;
    int in_length, in_size, out_length, out_sent, out_size;
    long counts[4];
    double sent_at, retry_at, beat_at;
    int is_writer;
};

static char mode[16] = "closed", framing[16] = "echo", host[64] = "127.0.0.1", tls_key[512], tls_certs[512], sni[256];
static int port, wanted = 1, rounds = 20, echo_length, pause_for_line = 1, resume_sessions, in_flight = 0;
static double run_seconds = 5.0, gap_seconds = 0.25;
static unsigned char match[256], later[64];
static int match_length, later_length;
static double beat_seconds;
static struct step setups[SETUPS_MAX], writer_setups[SETUPS_MAX], request, writer_request, reaction, heartbeat;
static int setups_count, writer_setups_count;

static struct connection *connections, *writer;
/* Those whose reaction to a push is not sent yet: a ring, in the order of the pushes. */
static struct connection **reacting;
static int reacting_first, reacting_count;
static int poller, ready, told, running, retries, reused;
static long total, answered, latencies_size;
static uint32_t *latencies;
static double last_at, writer_answered_at;
static SSL_CTX *context;
static X509 **certificates;
static int certificates_count;
static EVP_PKEY *key;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s (%s)\n", what, errno ? strerror(errno) : "no more is known");
    ERR_print_errors_fp(stderr);
    exit(1);
}

/* The plan. */

static void read_step(struct step *step, const char *file, int expect) {
    FILE *f = fopen(file, "rb");
    if (!f) die(file);
    fseek(f, 0, SEEK_END);
    step->length = ftell(f);
    rewind(f);
    step->octets = malloc(step->length + 1);
    if (fread(step->octets, 1, step->length, f) != (size_t)step->length) die(file);
    fclose(f);
    step->expect = expect;
}

static void read_plan(const char *file) {
    char line[2048], name[64], a[512], b[512], c[512];
    struct step *step = NULL;
    FILE *f = fopen(file, "r");
    if (!f) die(file);
    while (fgets(line, sizeof line, f)) {
        int n = sscanf(line, "%63s %511s %511s %511s", name, a, b, c);
        if (n < 2) continue;
        if (!strcmp(name, "mode")) strncpy(mode, a, sizeof mode - 1);
        else if (!strcmp(name, "framing")) { strncpy(framing, a, sizeof framing - 1); if (n > 2) echo_length = atoi(b); }
        else if (!strcmp(name, "address")) { strncpy(host, a, sizeof host - 1); port = atoi(b); }
        else if (!strcmp(name, "connections")) wanted = atoi(a);
        else if (!strcmp(name, "rounds")) rounds = atoi(a);
        else if (!strcmp(name, "seconds")) run_seconds = atof(a);
        else if (!strcmp(name, "gap")) gap_seconds = atof(a);
        else if (!strcmp(name, "pause")) pause_for_line = atoi(a);
        else if (!strcmp(name, "resume")) resume_sessions = atoi(a);
        else if (!strcmp(name, "in_flight")) in_flight = atoi(a);
        else if (!strcmp(name, "match")) {
            match_length = strlen(a) / 2;
            for (int i = 0; i < match_length; i++) sscanf(a + 2 * i, "%2hhx", &match[i]);
        } else if (!strcmp(name, "later")) {
            later_length = strlen(a) / 2;
            for (int i = 0; i < later_length; i++) sscanf(a + 2 * i, "%2hhx", &later[i]);
        } else if (!strcmp(name, "tls")) { strcpy(tls_key, a); strcpy(tls_certs, b); if (n > 3) strncpy(sni, c, 255); }
        else if (setups_count == SETUPS_MAX || writer_setups_count == SETUPS_MAX) die("too many setups");
        else if (!strcmp(name, "setup")) read_step(step = &setups[setups_count++], a, atoi(b));
        else if (!strcmp(name, "writer_setup")) read_step(step = &writer_setups[writer_setups_count++], a, atoi(b));
        else if (!strcmp(name, "request")) read_step(step = &request, a, atoi(b));
        else if (!strcmp(name, "writer_request")) read_step(step = &writer_request, a, atoi(b));
        else if (!strcmp(name, "beat_seconds")) beat_seconds = atof(a);
        else if (!strcmp(name, "heartbeat")) read_step(step = &heartbeat, a, atoi(b));
        else if (!strcmp(name, "reaction")) read_step(step = &reaction, a, atoi(b));
        else if (!strcmp(name, "patch")) {
            struct patch *p = &step->patches[step->patches_count++];
            char how[8], of[8];
            if (sscanf(line, "patch %d %d %7s %7s %ld %ld", &p->offset, &p->width, how, of, &p->start, &p->step) != 6)
                die(line);
            p->decimal = !strcmp(how, "dec");
            p->of = !strcmp(of, "index") ? INDEX : !strcmp(of, "count") ? COUNT : TOTAL;
            p->copy_from = -1;
        } else if (!strcmp(name, "copy")) {
            struct patch *p = &step->patches[step->patches_count++];
            if (sscanf(line, "copy %d %d %d", &p->copy_from, &p->offset, &p->width) != 3) die(line);
        } else die(line);
    }
    fclose(f);
}

/* Framings: the length of the unit at the beginning of `data`, 0 when it is not complete; what it is. */

static long number_at(const unsigned char *p, int width) {
    long n = 0;
    while (width--) n = n << 8 | *p++;
    return n;
}

static int redis_value(const unsigned char *data, int length) {
    const unsigned char *end = memmem(data, length, "\r\n", 2);
    if (!end) return 0;
    int used = end - data + 2, n = atoi((const char *)data + 1);
    if (*data == '$') { if (n < 0) return used; return used + n + 2 <= length ? used + n + 2 : 0; }
    if (*data == '*')
        for (int i = 0; i < n; i++) {
            int more = used < length ? redis_value(data + used, length - used) : 0;
            if (!more) return 0;
            used += more;
        }
    return used;
}

static void put(struct connection *c, const unsigned char *octets, int length);

static int unit(struct connection *c, const unsigned char *data, int length, int *kind) {
    *kind = REPLY;
    if (!strcmp(framing, "opengnsp")) {
        if (length < 8) return 0;
        if (!number_at(data + 4, 4)) *kind = PUSH;
        long whole = 8 + number_at(data, 4);
        return whole <= length ? whole : 0;
    }
    if (!strcmp(framing, "zookeeper")) {
        if (length < 8) return 0;
        if (number_at(data + 4, 4) == 0xffffffff) *kind = PUSH;
        if (number_at(data + 4, 4) == 0xfffffffe) *kind = 0; /* the answer to a heartbeat */
        long whole = 4 + number_at(data, 4);
        return whole <= length ? whole : 0;
    }
    if (!strcmp(framing, "redis")) {
        int whole = redis_value(data, length);
        if (whole > 12 && data[0] == '*' && !memcmp(data + 4, "$7\r\nmessage", 11)) *kind = PUSH;
        return whole;
    }
    if (!strcmp(framing, "nats")) {
        const unsigned char *end = memmem(data, length, "\r\n", 2);
        if (!end) return 0;
        int used = end - data + 2, sid, size;
        if (!memcmp(data, "MSG ", 4)) {
            char line[512] = {0}, last[512], *space;
            memcpy(line, data, used - 2 < 500 ? used - 2 : 500);
            /* MSG subject sid [reply-to] size */
            if (!(space = strrchr(line, ' ')) || sscanf(line, "MSG %511s %d", last, &sid) != 2) die("a strange MSG");
            size = atoi(space + 1);
            *kind = sid == 1 ? REPLY : PUSH;
            return used + size + 2 <= length ? used + size + 2 : 0;
        }
        if (memcmp(data, "PONG", 4)) *kind = 0;
        if (!memcmp(data, "PING", 4)) put(c, (const unsigned char *)"PONG\r\n", 6);
        if (!memcmp(data, "-ERR", 4)) { fwrite(data, 1, used, stderr); exit(1); }
        return used;
    }
    if (!strcmp(framing, "http2")) {
        if (length < 9) return 0;
        long whole = 9 + number_at(data, 3);
        if (whole > length) return 0;
        int type = data[3], flags = data[4];
        *kind = 0;
        if (type == 0) *kind = flags & 1 ? REPLY : PUSH;
        else if (type == 1 && flags & 1) *kind = REPLY;
        else if (type == 4 && !(flags & 1)) put(c, (const unsigned char *)"\0\0\0\4\1\0\0\0\0", 9);
        else if (type == 6 && !(flags & 1)) {
            unsigned char pong[17] = {0, 0, 8, 6, 1};
            memcpy(pong + 9, data + 9, 8);
            put(c, pong, 17);
        } else if (type == 7 || type == 3) { fwrite(data, 1, whole, stderr); die("GOAWAY or RST_STREAM"); }
        return whole;
    }
    return length >= echo_length ? echo_length : 0;
}

/* Connections. */

static void put(struct connection *c, const unsigned char *octets, int length) {
    if (c->out_sent == c->out_length) c->out_sent = c->out_length = 0;
    if (c->out_length + length > c->out_size) c->out = realloc(c->out, c->out_size = c->out_length + length + 256);
    memcpy(c->out + c->out_length, octets, length);
    c->out_length += length;
}

static void send_step(struct connection *c, struct step *step, int which, const unsigned char *pushed) {
    int at = c->out_sent == c->out_length ? 0 : c->out_length;
    put(c, step->octets, step->length);
    unsigned char *octets = c->out + at;
    for (int i = 0; i < step->patches_count; i++) {
        struct patch *p = &step->patches[i];
        if (p->copy_from >= 0) { memcpy(octets + p->offset, pushed + p->copy_from, p->width); continue; }
        long value = p->start + p->step * (p->of == INDEX ? c->index : p->of == COUNT ? c->counts[which] : total);
        if (p->decimal) {
            char text[32];
            snprintf(text, sizeof text, "%0*ld", p->width, value);
            memcpy(octets + p->offset, text, p->width);
        } else
            for (int w = p->width - 1; w >= 0; w--, value >>= 8) octets[p->offset + w] = value;
    }
    c->counts[which]++;
    total++;
    c->expected = step->expect;
}

static void interest(struct connection *c, int write) {
    if (write == c->want_write) return;
    c->want_write = write;
    struct epoll_event e = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

static void connect_it(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    inet_pton(AF_INET, host, &to.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
    c->connected = c->handshaken = c->setup = c->in_length = c->out_length = c->out_sent = 0;
    c->want_write = 1;
    c->retry_at = 0;
    memset(c->counts, 0, sizeof c->counts);
    if (context) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_connect_state(c->ssl);
        SSL_set_mode(c->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
        if (!strcmp(framing, "http2")) SSL_set_alpn_protos(c->ssl, (const unsigned char *)"\2h2", 3);
        if (*sni) SSL_set_tlsext_host_name(c->ssl, sni);
        if (certificates_count) {
            SSL_use_certificate(c->ssl, certificates[c->index % certificates_count]);
            SSL_use_PrivateKey(c->ssl, key);
        }
        if (c->session) SSL_set_session(c->ssl, c->session);
        SSL_set_app_data(c->ssl, c);
    }
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
}

static void drop(struct connection *c) {
    if (c->ssl) { SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); SSL_free(c->ssl); c->ssl = NULL; }
    close(c->fd);
    c->fd = -1;
}

static void lost(struct connection *c, const char *why) {
    if (!running && c->setup >= 0 && retries < 20 * wanted) {
        drop(c);
        retries++;
        c->retry_at = now() + RETRY_SECONDS;
        return;
    }
    fprintf(stderr, "load: connection %d was lost: %s\n", c->index, why);
    exit(1);
}

static int flush(struct connection *c) {
    while (c->out_sent < c->out_length) {
        int n;
        if (c->ssl) {
            ERR_clear_error();
            n = SSL_write(c->ssl, c->out + c->out_sent, c->out_length - c->out_sent);
            if (n <= 0) {
                int e = SSL_get_error(c->ssl, n);
                if (e == SSL_ERROR_WANT_WRITE || e == SSL_ERROR_WANT_READ) break;
                lost(c, "TLS write");
                return 0;
            }
        } else {
            n = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
            if (n < 0) {
                if (errno == EAGAIN) break;
                lost(c, strerror(errno));
                return 0;
            }
        }
        c->out_sent += n;
    }
    interest(c, c->out_sent < c->out_length);
    return 1;
}

static void next_setup(struct connection *c) {
    struct step *steps = c->is_writer ? writer_setups : setups;
    int count = c->is_writer ? writer_setups_count : setups_count;
    while (c->setup < count) {
        send_step(c, &steps[c->setup++], 3, NULL);
        if (c->expected) return;
    }
    c->setup = -1;
    ready++;
    last_at = now();
}

/* Each watcher stands for a host of its own, whose reaction does not keep the others from reading. So what there is to
 * be read is read first, and reactions go out while there is nothing. */
static void react(struct connection *c, const unsigned char *pushed) {
    send_step(c, &reaction, 1, pushed);
    if (c->later) return;
    c->later = 1;
    reacting[(reacting_first + reacting_count++) % wanted] = c;
}

static void send_reactions(int most) {
    for (; reacting_count && most--; reacting_count--) {
        struct connection *c = reacting[reacting_first];
        reacting_first = (reacting_first + 1) % wanted;
        c->later = 0;
        if (c->fd >= 0) flush(c);
    }
}

static void latency(double seconds) {
    if (answered == latencies_size)
        latencies = realloc(latencies, (latencies_size = latencies_size * 2 + 65536) * sizeof *latencies);
    latencies[answered++] = seconds * 1e9 > 4e9 ? 4000000000u : seconds * 1e9;
}

/* Whether the system sends this one away until later: it says so with given octets, after which the seconds stand as
 * MessagePack has them. It is not there then, and comes again at that time. */
static int sent_away(struct connection *c, const unsigned char *octets, int length) {
    const unsigned char *said = later_length ? memmem(octets, length, later, later_length) : NULL;
    if (!said) return 0;
    double seconds = RETRY_SECONDS;
    said += later_length;
    if (octets + length - said >= 9 && *said == 0xcb) {
        uint64_t bits = (uint64_t)number_at(said + 1, 4) << 32 | (uint64_t)number_at(said + 5, 4);
        memcpy(&seconds, &bits, 8);
    }
    drop(c);
    retries++;
    c->retry_at = now() + seconds;
    return 1;
}

static void met(struct connection *c, int kind, const unsigned char *octets, int length) {
    if (!kind) return;
    if (c->setup >= 0) {
        if (sent_away(c, octets, length)) return;
        if (c->expected > 0 && --c->expected == 0) next_setup(c);
        return;
    }
    if (!strcmp(mode, "closed")) {
        if (kind != REPLY || --c->expected) return;
        double at = now();
        latency(at - c->sent_at);
        if (running) { c->sent_at = at; send_step(c, &request, 0, NULL); }
        return;
    }
    if (c->is_writer) { if (kind == REPLY && --c->expected == 0) writer_answered_at = now(); return; }
    if (kind == PUSH && (!match_length || memmem(octets, length, match, match_length))) {
        if (reaction.length) react(c, octets);
        if (!reaction.expect) { told++; c->round++; last_at = now(); }
    } else if (kind == PUSH) { if (reaction.length) react(c, octets); }
    else if (reaction.expect && c->expected > 0 && --c->expected == 0) { told++; c->round++; last_at = now(); }
}

static void serve(struct connection *c, unsigned events) {
    if (c->fd < 0) return;
    if (!c->connected) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) { lost(c, strerror(error)); return; }
        if (!(events & EPOLLOUT)) return;
        c->connected = 1;
    }
    if (c->ssl && !c->handshaken) {
        ERR_clear_error();
        int n = SSL_do_handshake(c->ssl);
        if (n <= 0) {
            int e = SSL_get_error(c->ssl, n);
            if (e == SSL_ERROR_WANT_READ) interest(c, 0);
            else if (e == SSL_ERROR_WANT_WRITE) interest(c, 1);
            else lost(c, "TLS handshake");
            return;
        }
        if (SSL_session_reused(c->ssl)) reused++;
    }
    if (!c->handshaken) { c->handshaken = 1; next_setup(c); }
    for (;;) {
        if (c->in_size - c->in_length < 2048) c->in = realloc(c->in, c->in_size = c->in_size ? c->in_size * 2 : 4096);
        int n;
        if (c->ssl) {
            ERR_clear_error();
            n = SSL_read(c->ssl, c->in + c->in_length, c->in_size - c->in_length);
            if (n <= 0) {
                int e = SSL_get_error(c->ssl, n);
                if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) break;
                lost(c, "closed by the server");
                return;
            }
        } else {
            n = recv(c->fd, c->in + c->in_length, c->in_size - c->in_length, 0);
            if (n < 0 && errno == EAGAIN) break;
            if (n <= 0) { lost(c, "closed by the server"); return; }
        }
        c->in_length += n;
        int used = 0, kind;
        for (;;) {
            int whole = used < c->in_length ? unit(c, c->in + used, c->in_length - used, &kind) : 0;
            if (!whole) break;
            met(c, kind, c->in + used, whole);
            if (c->fd < 0) return;
            used += whole;
        }
        memmove(c->in, c->in + used, c->in_length -= used);
        if (!c->ssl && c->in_size - c->in_length > 2048 && n < 2048) break;
    }
    if (!c->later) flush(c);
}

static void turn(double until) {
    struct epoll_event events[512];
    double left = until - now();
    int n = epoll_wait(poller, events, 512, left <= 0 || reacting_count ? 0 : left > 0.1 ? 100 : (int)(left * 1000) + 1);
    if (!n) send_reactions(REACTIONS_AT_ONCE);
    for (int i = 0; i < n; i++) serve(events[i].data.ptr, events[i].events);
}

/* Sessions that the system ends when it hears nothing: each says so often that it is there, but not while measured. */
static void beat(void) {
    double at = now();
    for (int i = 0; heartbeat.length && i < wanted; i++) {
        struct connection *c = &connections[i];
        if (c->fd < 0 || c->setup >= 0 || at - c->beat_at < beat_seconds) continue;
        if (c->beat_at) { put(c, heartbeat.octets, heartbeat.length); flush(c); }
        c->beat_at = at;
    }
}

static int keep_session(SSL *ssl, SSL_SESSION *session) {
    struct connection *c = SSL_get_app_data(ssl);
    if (c->session) SSL_SESSION_free(c->session);
    c->session = session;
    return 1;
}

static void prepare_tls(void) {
    if (!*tls_certs && !*tls_key) return;
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    /* The peers' certificates are not what is measured; the server verifies ours. */
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    if (resume_sessions) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }
    if (!strcmp(tls_key, "-")) return;
    FILE *f = fopen(tls_key, "r");
    if (!f || !(key = PEM_read_PrivateKey(f, NULL, NULL, NULL))) die(tls_key);
    fclose(f);
    if (!(f = fopen(tls_certs, "r"))) die(tls_certs);
    X509 *one;
    while ((one = PEM_read_X509(f, NULL, NULL, NULL))) {
        certificates = realloc(certificates, (certificates_count + 1) * sizeof *certificates);
        certificates[certificates_count++] = one;
    }
    ERR_clear_error();
    fclose(f);
}

static void set_up(int count, int target) {
    /* At most `in_flight` of them at once: what a kernel's queue of new connections takes. */
    int begun = 0;
    double moved = now();
    int before = -1;
    while (ready < target) {
        while (begun < count && (!in_flight || begun - ready < in_flight)) connect_it(&connections[begun++]);
        turn(now() + 0.05);
        if (ready != before) beat();
        if (retries)
            for (int i = 0; i < wanted; i++)
                if (connections[i].fd < 0 && connections[i].retry_at && connections[i].retry_at < now())
                    connect_it(&connections[i]);
        if (ready != before) { before = ready; moved = now(); }
        if (now() - moved > STUCK_SECONDS) { fprintf(stderr, "load: stuck with %d of %d ready\n", ready, target); exit(1); }
    }
}

static void wait_for_line(void) {
    running = 0;
    printf("{\"ready\":true,\"connections\":%d,\"retries\":%d}\n", ready, retries);
    fflush(stdout);
    if (!pause_for_line) return;
    /* What comes meanwhile (settings, pings) is read, so that nothing old is met in the measurement. */
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event events[512];
    fcntl(0, F_SETFL, O_NONBLOCK);
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &e);
    for (;;) {
        int n = epoll_wait(poller, events, 512, 1000);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) { serve(events[i].data.ptr, events[i].events); send_reactions(1); continue; }
            char c;
            int got = read(0, &c, 1);
            if (got == 0) exit(0);
            if (got == 1 && c == '\n') { epoll_ctl(poller, EPOLL_CTL_DEL, 0, NULL); return; }
        }
        beat();
    }
}

static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_utime.tv_usec / 1e6 + u.ru_stime.tv_sec + u.ru_stime.tv_usec / 1e6;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void closed(void) {
    double before = cpu(), began = now();
    answered = 0;
    running = 1;
    for (int i = 0; i < wanted; i++) {
        connections[i].sent_at = now();
        send_step(&connections[i], &request, 0, NULL);
        flush(&connections[i]);
    }
    while (now() < began + run_seconds) turn(began + run_seconds);
    double took = now() - began, used = cpu() - before;
    running = 0;
    if (!answered) die("nothing was answered");
    long counted = answered;
    /* The last replies are waited for, so that the next time begins with none under way. */
    for (double until = now() + 5.0; now() < until;) {
        int waiting = 0;
        for (int i = 0; i < wanted; i++) waiting += connections[i].expected > 0;
        if (!waiting) break;
        turn(now() + 0.01);
    }
    answered = counted;
    qsort(latencies, answered, sizeof *latencies, by_size);
    printf("{\"answered\":%ld,\"seconds\":%.6f,\"p50\":%.9f,\"p99\":%.9f,\"worst\":%.9f,\"cpu\":%.4f}\n", answered, took,
           latencies[answered / 2] / 1e9, latencies[answered * 99 / 100] / 1e9, latencies[answered - 1] / 1e9, used);
}

static void fanout(void) {
    double before = cpu(), began = now();
    running = 1;
    printf("{\"times\":[");
    double reply_sum = 0;
    for (int r = 0; r < rounds; r++) {
        double at = now();
        told = 0;
        writer_answered_at = 0;
        send_step(writer, &writer_request, 2, NULL);
        flush(writer);
        while (told < wanted - 1 || !writer_answered_at) {
            turn(now() + 0.1);
            if (now() - at > STUCK_SECONDS) { fprintf(stderr, "load: stuck with %d told\n", told); exit(1); }
        }
        printf("%s%.9f", r ? "," : "", last_at - at);
        reply_sum += writer_answered_at - at;
        double pause = now() + gap_seconds;
        while (now() < pause || reacting_count) turn(pause);
    }
    printf("],\"reply\":%.9f,\"cpu\":%.4f,\"seconds\":%.6f}\n", reply_sum / rounds, cpu() - before, now() - began);
}

static void trigger(void) {
    double began = now();
    running = 1;
    told = 0;
    while (told < wanted)  {
        turn(now() + 0.1);
        if (now() - began > STUCK_SECONDS) { fprintf(stderr, "load: stuck with %d told\n", told); exit(1); }
    }
    printf("{\"last_at\":%.9f}\n", last_at);
}

int main(int argc, char **argv) {
    if (argc != 2) { fprintf(stderr, "usage: load PLAN\n"); return 2; }
    read_plan(argv[1]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < (rlim_t)wanted + 64) { fprintf(stderr, "load: only %ld files may be open\n", (long)files.rlim_cur); return 1; }
    poller = epoll_create1(0);
    prepare_tls();
    connections = calloc(wanted, sizeof *connections);
    reacting = calloc(wanted, sizeof *reacting);
    for (int i = 0; i < wanted; i++) connections[i].index = i, connections[i].fd = -1;
    int with_writer = !strcmp(mode, "fanout");
    if (with_writer) { writer = &connections[wanted - 1]; writer->is_writer = 1; }
    if (!strcmp(mode, "start")) {
        if (resume_sessions) {
            set_up(wanted, wanted);
            double until = now() + 0.5;
            while (now() < until) turn(until);
            for (int i = 0; i < wanted; i++) drop(&connections[i]);
            ready = reused = retries = 0;
        }
        wait_for_line();
        double before = cpu(), began = now();
        ready = 0;
        set_up(wanted, wanted);
        printf("{\"seconds\":%.6f,\"retries\":%d,\"reused\":%d,\"cpu\":%.4f}\n", last_at - began, retries, reused, cpu() - before);
        fflush(stdout);
        char c;
        fcntl(0, F_SETFL, 0);
        while (read(0, &c, 1) == 1 && c != '\n') continue;
        return 0;
    }
    if (with_writer) {
        set_up(wanted - 1, wanted - 1);
        connect_it(writer);
        set_up(0, wanted);
    } else set_up(wanted, wanted);
    do {
        wait_for_line();
        if (!strcmp(mode, "closed")) closed();
        else if (with_writer) fanout();
        else if (!strcmp(mode, "trigger")) trigger();
        fflush(stdout);
    } while (pause_for_line);
    return 0;
}
